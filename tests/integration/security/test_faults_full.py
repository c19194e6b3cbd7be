"""Rows X10 to X14 and X22: disks that are full, calls that fail or take long, too little memory, floods, meddlers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hutch.engine.forkserver import client
from tests.integration.security.conftest import Host
from tests.integration.security.lab import Lab, monitors, parent
from tests.integration.security.test_faults_kill import EVERY, prepared, words_of
from tests.support import faults
from tests.support.host import requires
from tests.support.programs import run, wait_until

pytestmark = requires("root", "program:busybox", "program:strace")


@pytest.fixture
def small_disk(own_box: Host) -> Iterator[str]:
    """The data root on a file system of 24 MiB."""
    small = f"{own_box.roots.base}/small"
    os.mkdir(small, 0o700)
    run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", small])
    own_box.cli.words[own_box.cli.words.index("--root") + 1] = small
    own_box.mode = "host"  # tmpfs maps no ids
    try:
        yield small
    finally:
        run(["umount", small])


def fill(small: str) -> None:
    with open(f"{small}/fill", "ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


def one_line(text: str) -> None:
    assert "no space left on device" in text
    assert "Traceback" not in text
    assert "internal error" not in text
    assert len(text.splitlines()) <= 2, text


def test_x10_a_full_disk(own_box: Host, small_disk: str) -> None:
    cli = own_box.cli
    image = own_box.image("full")
    own_box.run(image, "true")
    common = ["--cgroup-parent", own_box.cgroup]
    script = "trap 'exit 7' TERM; while :; do echo 0123456789; sleep 0.01; done"
    for name in ("one", "two"):
        cli("run", "-d", "--name", name, *common, image, "sh", "-c", script)
    before = set(os.listdir(small_disk))
    fill(small_disk)

    one_line(cli.fails("run", "--name", "three", *common, image, "true", status=125))
    one_line(cli.fails("create", "--name", "three", "-v", "named:/n", *common, image, "true"))
    time.sleep(0.3)
    assert cli("exec", "one", "sh", "-c", "exit 5", check=False).returncode == 5
    fill(small_disk)
    one_line(cli.fails("commit", "one", "copy"))
    assert "one" in cli("ps").stdout
    cli("stop", "one")
    os.truncate(f"{small_disk}/fill", os.path.getsize(f"{small_disk}/fill") - (4 << 20))
    status = lambda: cli("ps", "-a", "--filter", "name=one", "--format", "{{.Status}}").stdout
    wait_until(lambda: status().startswith("Exited (7)"), 10, explain=status)
    fill(small_disk)
    cli("rm", "one")
    os.unlink(f"{small_disk}/fill")

    assert cli("exec", "two", "true").returncode == 0
    wait_until(lambda: "not logged: no space left" in cli("logs", "two").stderr, 5)
    own_box.run(image, "true")
    cli("rm", "-f", "two")
    assert set(os.listdir(small_disk)) <= before | {"hutch.db-reserve"}
    assert os.listdir(f"{small_disk}/containers") == os.listdir(f"{small_disk}/snapshots") == []


def test_x10_a_disk_without_inodes(own_box: Host, small_disk: str) -> None:
    cli = own_box.cli
    image = own_box.image("full")
    cli("run", "-d", "--name", "one", "--cgroup-parent", own_box.cgroup, image, "sleep", "1000")
    run(["mount", "-o", "remount,nr_inodes=400", small_disk])
    os.mkdir(f"{small_disk}/fill")
    with pytest.raises(OSError, match="No space"):
        for number in range(400):
            Path(f"{small_disk}/fill/{number}").touch()
    one_line(cli.fails("run", "--rm", "--cgroup-parent", own_box.cgroup, image, "true", status=125))
    cli("exec", "one", "true")
    cli("rm", "-f", "one")
    assert os.listdir(f"{small_disk}/containers") == []
    run(["rm", "-r", f"{small_disk}/fill"])
    own_box.run(image, "true")


ERRORS = [
    ("create", "openat", "EMFILE", (140, 240, 275)),
    ("create", "mkdir", "ENOSPC", (5, 9)),
    ("create", "pwrite64", "EIO", (1, 20, 60)),
    ("create", "symlink", "EIO", (1,)),
    ("create", "renameat", "EIO", (2,)),
    ("create", "fsync", "EIO", (1,)),
    ("run", "openat", "ENOMEM", (270,)),
    ("run", "sendmsg", "ENOMEM", (1,)),
    ("start", "connect", "EACCES", (1,)),
    ("start", "recvmsg", "EIO", (2,)),
    ("rm -f", "pwrite64", "EIO", (9,)),
    ("rm -f", "unlinkat", "EIO", (1, 12)),
    ("exec", "recvmsg", "EIO", (2,)),
]


def test_x11_a_call_of_a_command_that_fails(lab: Lab) -> None:
    for verb, call, error, when in ERRORS:
        for number in range(1, 300) if EVERY else when:
            what = (verb, call, error, number)
            prepared(lab, verb)
            done = faults.injected(words_of(lab, verb), lab.cli.env, call, f"error={error}", number, timeout_s=30)
            assert "Traceback" not in done.stderr, what
            assert "internal error" not in done.stderr, (what, done.stderr)
            assert done.returncode == 0 or done.stderr.startswith("hutch: "), (what, done.stderr)
            lab.removed()


@contextmanager
def tracing(pid: int, call: str, what: str, when: int | str) -> Iterator[None]:
    """Do `what` to the `when`th `call` of a process, and of each that it forks."""
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    with subprocess.Popen([*words, "-e", f"inject={call}:{what}:when={when}", "-p", str(pid)]) as tracer:
        try:
            wait_until(lambda: b"TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_bytes(), 5)
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)


MONITOR_ERRORS = [
    ("openat", "EMFILE", (8,)),
    ("pwrite64", "EIO", (3,)),
    ("clone", "EAGAIN", (1,)),
    ("pipe2", "EMFILE", (3,)),
    ("recvmsg", "ENOMEM", (3,)),
    ("accept4", "EMFILE", (1,)),
]


def test_x11_a_call_of_a_monitor_that_fails(lab: Lab) -> None:
    for call, error, when in MONITOR_ERRORS:
        for number in range(1, 40) if EVERY else when:
            server = faults.server(lab.box.roots.state)
            with tracing(server, call, f"error={error}", number):
                for words in (["run", "-d", "--name", "x", *lab.flags, lab.image, "sleep", "9"], ["exec", "x", "true"]):
                    done = lab.cli(*words, check=False, timeout_s=30)
                    assert "Traceback" not in done.stderr
                    assert "internal error" not in done.stderr, (call, error, number, done.stderr)
                lab.cli("rm", "-fv", "x", check=False, timeout_s=30)
            lab.cli("run", "--rm", *lab.flags, lab.image, "true")
            Path(lab.box.roots.state, "fork-server.log").write_text("")
            lab.removed()


@pytest.mark.parametrize("limit", [18, 64])
def test_x11_few_descriptors(lab: Lab, limit: int) -> None:
    """Whoever starts the fork server may have few; what runs then has none of his limits."""
    client.end(lab.box.roots.state)
    words = [*lab.cli.words, "run", "--rm", *lab.flags, lab.image, "sh", "-c", "ulimit -n"]
    done = run(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *words], env=lab.cli.env, check=False, timeout_s=30)
    assert done.returncode == 0 or "too many open files" in done.stderr.lower(), done.stderr
    assert "Traceback" not in done.stderr
    lab.removed()


def test_x12_what_takes_long_for_one_holds_up_nobody_else(lab: Lab) -> None:
    """A removal that hangs in the kernel, and a sync of the store that takes its time."""
    lab.start()
    slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rmdir,fsync,unlinkat"]
    slow += ["-e", "inject=rmdir,unlinkat:delay_enter=300000", "-e", "inject=fsync:delay_enter=3000000"]
    with subprocess.Popen([*slow, *lab.cli.words, "rm", "-fv", "x"], env=lab.cli.env) as removing:
        time.sleep(1)
        begin = time.monotonic()
        lab.cli("exec", "bystander", "true")
        lab.cli("run", "--rm", *lab.flags, lab.image, "true")
        lab.cli("ps", "-a")
        assert time.monotonic() - begin < 3
        assert removing.poll() is None
        removing.send_signal(signal.SIGKILL)  # strace; what it traced goes on
    lab.removed()


def test_x13_a_process_that_takes_too_much_memory(lab: Lab) -> None:
    greedy = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    lab.cli("create", "--name", "x", "-m", "16m", *lab.flags, lab.image, "sh", "-c", f"{greedy}; sleep 1000")
    lab.cli("start", "x")
    wait_until(lambda: "oom" in lab.cli("events", "--since", "1m", "--until", "0s").stdout or _oom_kills(lab) > 0, 10)
    assert lab.status().startswith("Up ")  # init was not hit, and goes on
    assert lab.cli("exec", "x", "true").returncode == 0
    lab.cli("kill", "x")
    assert lab.cli("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "x").stdout == "true 137\n"
    lab.removed()
    lab.cli("run", "-d", "--name", "x", "-m", "16m", *lab.flags, lab.image, *greedy.split())
    assert lab.cli("wait", "x").stdout == "137\n"
    assert lab.cli("inspect", "--format", "{{.State.OOMKilled}}", "x").stdout == "true\n"
    lab.removed()


def _oom_kills(lab: Lab) -> int:
    from hutch.runtime.container import Container

    with Container.load(lab.engine.runtime_state, lab.record("x").id) as container:
        return container.cgroup().oom_kills()


def test_x14_a_flood_of_output_and_of_processes(lab: Lab) -> None:
    """Memory and descriptors of the monitor stay; exec works; stopping takes no longer than it may."""
    bomb = "while :; do sleep 1000 & done 2>/dev/null"
    flood = "while :; do echo 01234567890123456789012345678901234567890123456789012345678901234567890123456789; done"
    lab.start("--pids-limit", "64", "--log-opt", "max-size=100k", "--log-opt", "max-file=2",
              command=("sh", "-c", f"({bomb}) & {flood} & {flood}"))  # fmt: skip
    monitor = parent(lab.record("x").pid)
    time.sleep(1)
    before = _resident(monitor)
    time.sleep(3)
    assert _resident(monitor) - before < 4 << 20
    assert len(os.listdir(f"/proc/{monitor}/fd")) < 40
    logs = Path(lab.box.roots.data, "containers", lab.record("x").id)
    assert sum(path.stat().st_size for path in logs.glob("*log*")) < 400_000
    done = lab.cli("exec", "x", "true", check=False)
    assert done.returncode == 0 or "resource temporarily unavailable" in done.stderr, done.stderr
    assert lab.cli("exec", "bystander", "true").returncode == 0
    begin = time.monotonic()
    lab.cli("stop", "-t", "1", "x")
    assert time.monotonic() - begin < 3
    lab.removed()


def test_x14_a_reader_who_stops_reading(lab: Lab) -> None:
    """The container waits in write(2), its monitor holds little, and stopping works all the same."""
    words = [
        *lab.cli.words,
        "run",
        "--name",
        "x",
        *lab.flags,
        lab.image,
        "sh",
        "-c",
        "while :; do echo 0123456789; done",
    ]
    with subprocess.Popen(words, env=lab.cli.env, stdout=subprocess.PIPE) as stalled:
        wait_until(lambda: bool(monitors(lab)), 10)
        time.sleep(2)
        (monitor,) = monitors(lab)
        spent, resident = _cpu_ticks(monitor), _resident(monitor)
        time.sleep(1)
        assert _cpu_ticks(monitor) - spent < 20
        assert _resident(monitor) - resident < 1 << 20
        begin = time.monotonic()
        lab.cli("stop", "-t", "1", "x")
        assert time.monotonic() - begin < 3
        assert stalled.stdout is not None
        stalled.stdout.close()
        stalled.wait(10)
    lab.removed()


@pytest.mark.parametrize("flags", [(), ("--pid", "host")])
def test_x14_what_a_process_leaves_behind_writes_on(lab: Lab, flags: tuple[str, ...]) -> None:
    """Whoever started it is told of its end at once, and does not wait for the others to fall silent."""
    flood = "while :; do dd if=/dev/zero bs=64k count=100000; done 2>/dev/null & exit 4"
    lab.start(*flags)
    done = lab.cli("exec", "x", "sh", "-c", flood, check=False, timeout_s=15)
    assert done.returncode == 4
    lab.cli("rm", "-fv", "x")
    lab.create(*flags, command=("sh", "-c", flood))
    lab.cli("start", "x")
    wait_until(lambda: lab.status().startswith("Exited (4)"), 10)
    lab.removed()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _cgroup_directories(lab: Lab) -> list[str]:
    from hutch.runtime.container import Container

    with Container.load(lab.engine.runtime_state, lab.record("x").id) as container:
        return sorted(set(container.record.cgroup_paths.values()))


@pytest.mark.parametrize("verb", [["kill"], ["stop", "-t", "0"], ["rm", "-fv"]], ids=lambda verb: verb[0])
def test_x22_somebody_else_froze_the_cgroup(lab: Lab, verb: list[str]) -> None:
    lab.start()
    lab.engine.containers.find("x")
    freezer = Path(lab.record("x").freezer)
    freezer.write_text("FROZEN" if freezer.name == "freezer.state" else "1")
    wait_until(lambda: lab.status().endswith("(Paused)"), 5)
    begin = time.monotonic()
    lab.cli(*verb, "x")
    wait_until(lambda: not lab.status().startswith("Up"), 5)
    assert time.monotonic() - begin < 5
    lab.removed()


def test_x22_somebody_else_emptied_and_removed_the_cgroups(lab: Lab) -> None:
    lab.start()
    for directory in _cgroup_directories(lab):
        for pid in Path(directory, "cgroup.procs").read_text().split():
            Path(os.path.dirname(directory), "cgroup.procs").write_text(pid)
        os.rmdir(directory)
    assert lab.status().startswith("Up ")
    lab.cli("exec", "x", "true", check=False)
    lab.cli("stop", "-t", "0", "x")
    assert lab.status().startswith("Exited")
    lab.cli("start", "x")
    lab.removed()


def test_x22_somebody_else_removed_what_a_container_is_made_of(lab: Lab) -> None:
    for gone in ("snapshots/{}", "containers/{}/rootfs", "containers/{}/config.json", "containers/{}"):
        lab.start()
        path = f"{lab.box.roots.data}/{gone.format(lab.record('x').id)}"
        run(["rm", "-rf", path])
        done = lab.cli("restart", "-t", "0", "x", check=False)
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr, (gone, done.stderr)
        lab.cli("ps", "-a")
        lab.removed()
