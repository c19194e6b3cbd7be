"""`import hutch`: what is left when a program ends well, badly, or by force; and what it does to the program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

import hutch
from tests.support.host import requires
from tests.support.library import SOURCE
from tests.support.programs import wait_until

pytestmark = requires("root")

_HOLD = """
    with engine.containers.run(IMAGE, {command!r}, detach=True, cgroup_parent=CGROUP, {more}) as c:
        print(c.id, flush=True)
        time.sleep(1000)
"""


def test_with_removes_at_the_end(lib):
    with lib.start(volumes=["/anonymous"]) as c:
        assert c.status == "running"
    assert lib.left() == [] and lib.engine.volumes.list() == []
    with pytest.raises(ZeroDivisionError), lib.start() as c:
        raise ZeroDivisionError
    assert lib.left() == []
    with lib.start() as c:
        c.remove(force=True)
    with lib.start() as c:  # stopped, started and restarted in between
        c.stop(timeout=0)
        assert c.status == "exited"
        c.start()
        c.restart(timeout=0)
        assert c.status == "running"
        c.kill()
        c.wait()
    assert lib.left() == []
    with lib.engine.containers.create(lib.image, "sleep 100", cgroup_parent=lib.cgroup) as c:
        c.start()
    assert lib.left() == []


@pytest.mark.parametrize(
    ("command", "more", "running"),
    [
        ("sleep 1000", "", 1),
        ("true", "", 0),
        ("sleep 0.2", "restart_policy='always'", None),
        ("sleep 1000", "auto_remove=True", 1),
        ("sleep 1000", "volumes=['/data']", 1),
    ],
)
def test_a_killed_program_leaves_nothing(lib, command, more, running):
    with lib.program(_HOLD.format(command=command, more=more)) as program:
        container = lib.engine.containers.get(program.stdout.readline().strip())
        if running == 0:
            wait_until(lambda: container.status == "exited", 5)
        program.send_signal(signal.SIGKILL)
    wait_until(lambda: lib.left() == [], 10)
    assert lib.engine.volumes.list() == []


def test_a_program_that_is_killed_while_it_waits_leaves_nothing(lib):
    text = """
        print("waits", flush=True)
        engine.containers.run(IMAGE, "sleep 1000", cgroup_parent=CGROUP)
    """
    with lib.program(text) as program:
        wait_until(lambda: lib.engine.containers.list() != [], 10)
        program.send_signal(signal.SIGKILL)
    wait_until(lambda: lib.left() == [], 10)
    with lib.program(text) as program:
        wait_until(lambda: lib.engine.containers.list() != [], 10)
        program.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in program.stderr.read()
    wait_until(lambda: lib.left() == [], 10)


def test_a_program_killed_at_any_moment_leaves_no_half_of_a_container(lib):
    """Before `run` has returned the container goes with its program; afterwards it is whole and runs."""
    text = "print('go', flush=True)\nengine.containers.run(IMAGE, 'sleep 1000', detach=True, cgroup_parent=CGROUP)"
    for delay_s in (0.005, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2):
        with lib.program(text) as program:
            program.stdout.readline()
            time.sleep(delay_s)
            program.kill()
        settled = lambda: all(c.status == "running" for c in lib.engine.containers.list(all=True))
        wait_until(settled, 10)
    for container in lib.engine.containers.list():
        assert container.exec("echo whole").stdout == b"whole\n"
        container.remove(force=True)
    assert lib.left() == [] and os.listdir(f"{lib.engine.root}/snapshots") == []


def test_an_exec_ends_with_its_program(lib):
    c = lib.start(name="stays")
    with lib.program("engine.containers.get('stays').exec(['sh', '-c', 'sleep 900; true'])") as program:
        wait_until(lambda: len(c.top()["Processes"]) == 3, 10)
        program.send_signal(signal.SIGKILL)
    wait_until(lambda: len(c.top()["Processes"]) == 1, 5)


def test_a_detached_container_outlives_its_program(lib):
    with lib.program("print(engine.containers.run(IMAGE, 'sleep 1000', detach=True, cgroup_parent=CGROUP).id)") as one:
        container = lib.engine.containers.get(one.stdout.read().strip())
    assert one.returncode == 0 and container.status == "running"


def test_twenty_threads_at_once(lib):
    lib.start(name="shared")
    results: list[object] = []

    def work(number: int) -> None:
        try:
            output = lib.run(f"echo {number}", remove=True)
            shared = lib.engine.containers.get("shared").exec(f"echo {number}").stdout
            results.append((number, int(output), int(shared)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == sorted(((number, number, number) for number in range(20)), key=str)
    assert lib.left() == ["shared"]


def _state() -> tuple[object, ...]:
    handlers = [signal.getsignal(number) for number in range(1, 65) if number not in (32, 33)]
    mask = os.umask(0)
    os.umask(mask)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return handlers, mask, wakeup, blocked, os.getcwd(), dict(os.environ), len(os.listdir("/proc/self/fd"))


def _use(lib) -> None:
    with lib.start() as c:
        c.exec("cat", stdin=b"x" * 100_000)
        c.put("/tmp/a", b"a")
        assert c.get("/tmp/a") == b"a"
        c.snapshot("s")
        c.reset("s")
        c.clone().remove(force=True)
        assert list(c.logs(stream=True)) == []
        c.diff()
    lib.engine.images.load(b"".join(lib.engine.images.save(lib.image)))


def test_the_program_is_left_as_it_was(lib, capfd):
    _use(lib)  # what is opened once
    before, threads = _state(), threading.active_count()
    _use(lib)
    assert _state() == before
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")


def test_nothing_is_forked(lib):
    forks = []
    armed = True
    sys.addaudithook(lambda event, _: forks.append(event) if armed and event in ("os.fork", "os.forkpty") else None)
    _use(lib)
    assert lib.engine.info()["Version"]
    armed = False
    assert forks == []


@requires("program:strace")
def test_nothing_is_forked_as_the_kernel_sees_it(lib, tmp_path):
    trace = tmp_path / "trace"
    text = f"""
        import subprocess
        tracer = subprocess.Popen(["strace", "-qq", "-o", {str(trace)!r}, "-e", "trace=fork,vfork,clone,clone3",
                                   "-p", str(os.getpid())], stderr=subprocess.PIPE)
        while "TracerPid:\\t0" in open("/proc/self/status").read():
            time.sleep(0.01)
        with engine.containers.run(IMAGE, "sleep 100", detach=True, cgroup_parent=CGROUP) as c:
            c.exec("true")
            c.put("/tmp/a", b"a")
            c.clone().remove(force=True)
        tracer.terminate()
        tracer.wait()
    """
    with lib.program(text) as program:
        _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    calls = [line for line in trace.read_text().splitlines() if "(" in line and "+++" not in line]
    assert calls, "put has a helper"
    assert [
        line for line in calls if "vfork" not in line and "CLONE_VFORK" not in line and "CLONE_THREAD" not in line
    ] == []


def test_warnings_are_pythons(lib, monkeypatch):
    from hutch.engine.prepare import prepare as real

    def prepare(*given, **more):
        found = real(*given, **more)
        return found.replace(warnings=("something is lowered",))

    monkeypatch.setattr("hutch.library.containers.prepare", prepare)
    with pytest.warns(hutch.HutchWarning, match="something is lowered"):
        lib.run("true", remove=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", hutch.HutchWarning)
        with pytest.raises(hutch.HutchWarning):
            lib.run("true", remove=True)
    assert lib.left() == []


def test_it_works_where_a_loop_runs_already(lib):
    """As in Jupyter: a cell is executed by a running event loop, with threads beside it and output captured."""
    text = """
        import asyncio, io, contextlib

        async def cell():
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                with engine.containers.run(IMAGE, "sleep 100", detach=True, cgroup_parent=CGROUP) as c:
                    first = c.exec("echo blocking").stdout
                    async with hutch.aio.Engine(engine.root, engine.state) as aio:
                        second = (await (await aio.containers.get(c.id)).exec("echo awaited")).stdout
            assert out.getvalue() == "", out.getvalue()
            return first + second

        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(cell()).decode())
    """
    with lib.program(text) as program:
        output, errors = program.communicate(timeout=60)
    assert output.split() == ["blocking", "awaited"] and errors == ""


@requires("module:ipykernel", "module:nbclient")
def test_it_works_in_jupyter(lib, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    code = f"""
        import hutch
        engine = hutch.Engine({lib.engine.root!r}, {lib.engine.state!r})
        with engine.containers.run({lib.image!r}, "sleep 100", detach=True, cgroup_parent={lib.cgroup!r}) as c:
            print(c.exec("echo a").stdout)
            print((await hutch.aio.Container(c).exec("echo b")).stdout)
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.text == "b'a\\n'\nb'b\\n'\n"


_TESTS = """
    import pytest

    def test_one(container, hutch_engine):
        hutch_engine.images.load({layout!r})[0].tag("busybox")
        c = container("busybox", "sleep 1000", cgroup_parent={cgroup!r})
        assert c.exec("echo hello").stdout == b"hello\\n"

    def test_two(container, hutch_engine):
        assert hutch_engine.containers.list(all=True) == []
        c = container("busybox", "sleep 1000", cgroup_parent={cgroup!r})
        assert False, f"root={{hutch_engine.root}}"
"""


def test_pytest_has_fixtures(busybox_image, cgroup_parent, tmp_path, monkeypatch):
    tests = _TESTS.format(layout=busybox_image.path, cgroup=cgroup_parent)
    (tmp_path / "test_it.py").write_text(textwrap.dedent(tests))
    (tmp_path / "tmp").mkdir()
    words = [sys.executable, "-m", "pytest", "-p", "hutch.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path / "tmp")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # installed, it would be there twice

    def run(*flags: str) -> str:
        done = subprocess.run(
            [*words, "-c", "/dev/null", "--rootdir", str(tmp_path), *flags, str(tmp_path / "test_it.py")],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
        found = re.search(r"AssertionError: root=(\S+)", done.stdout)
        assert found, done.stdout
        return found[1]

    root = run()
    assert not os.path.exists(os.path.dirname(root)) and os.listdir(tmp_path / "tmp") == []
    kept = str(tmp_path / "kept")
    assert run("--hutch-root", kept) == kept
    with hutch.Engine(kept) as engine:
        assert engine.containers.list(all=True) == []
        assert engine.images.list() != []
        engine.destroy()
    assert not os.path.exists(kept)
