"""When creation fails, at whatever step, nothing is left; and what the hooks see of it all."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hutch.errors import ContainerSetupFailed, HutchError
from hutch.runtime import create as create_module
from hutch.runtime import init
from hutch.runtime.steps import Step
from tests.integration.runtime.conftest import Box
from tests.support.cgroups import _tops
from tests.support.host import requires

pytestmark = requires("root")

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], **more}


def cgroups_of(box: Box) -> list[str]:
    return [path for top in _tops() for path in [f"{top}{box.cgroup}0"] if os.path.exists(path)]


@pytest.mark.parametrize("actor", ["child", "init"])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("how", ["error", "kill", "exit"])
def test_a_failure_at_any_step_leaves_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch, actor: str, position: float, how: str
) -> None:
    real = create_module.make_plan

    def broken(*args: Any, **kwargs: Any) -> Any:
        plan = real(*args, **kwargs)
        steps = plan.child if actor == "child" else plan.init

        def fail(_: object) -> None:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL) if actor == "child" else os._exit(3)
            if how == "exit":
                os._exit(3)
            raise PermissionError(13, os.strerror(13), "/the/path")

        steps.insert(int(len(steps) * position), Step("break things", "none", fail))
        return plan

    monkeypatch.setattr(create_module, "make_plan", broken)
    marker = f"{box.base}/poststop"
    box.spec["hooks"] = {"poststop": [hook(f"cat > {marker}")]}
    text = box.fails("true")
    if how == "error":
        assert text == "break things: /the/path: permission denied"
    else:
        assert "its init" in text
    assert cgroups_of(box) == []
    assert json.loads(Path(marker).read_text())["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_ends_the_creation_with_what_it_said(box: Box, kind: str) -> None:
    box.spec["hooks"] = {kind: [hook("true"), hook("echo because >&2; exit 5"), hook(f"touch {box.base}/never")]}
    text = box.fails("true")
    assert text == f"run {kind} hook #1: /bin/sh: exit status 5: because"
    assert not os.path.exists(f"{box.base}/never")
    assert cgroups_of(box) == []


def test_a_hook_that_hangs_is_killed_in_time(box: Box) -> None:
    box.spec["hooks"] = {"createRuntime": [hook("sleep 100", timeout=1)]}
    before = time.monotonic()
    assert "createRuntime hook #0: /bin/sh: timed out after 1 s" in box.fails("true")
    assert time.monotonic() - before < 5


def test_a_hook_that_is_not_there(box: Box) -> None:
    box.spec["hooks"] = {"prestart": [{"path": "/no/such/hook"}]}
    assert "run prestart hook #0: /no/such/hook: exit status 127: no such file or directory" in box.fails("true")


def test_hooks_run_in_order_with_the_state_on_stdin(box: Box) -> None:
    log = f"{box.base}/log"
    Path(log).touch(0o666)
    os.mkdir(f"{box.rootfs}/log")
    box.mount("/log", "bind", "rbind", source=box.base)
    for kind in HOOKS:
        place = "/log/log" if kind == "startContainer" else log
        box.spec.setdefault("hooks", {})[kind] = [hook(f"printf '{kind} ' >> {place}; cat >> {place}; echo >> {place}")]
    box.spec["annotations"] = {"key": "value"}
    box.run("true")
    box.living.pop().delete()
    seen = [line.split(" ", 1) for line in Path(log).read_text().splitlines()]
    assert [kind for kind, _ in seen] == list(HOOKS)
    states = {kind: json.loads(text) for kind, text in seen}
    assert [states[kind]["status"] for kind in HOOKS] == ["creating"] * 4 + ["running", "stopped"]
    assert all(state["annotations"] == {"key": "value"} for state in states.values())
    assert all(state["bundle"] == box.bundle.path for state in states.values())
    assert states["prestart"]["pid"] == states["poststart"]["pid"] > 1
    assert states["createContainer"]["pid"] == 1


def test_start_container_hooks_wait_for_start(box: Box) -> None:
    marker = f"{box.base}/marker"
    os.mkdir(f"{box.rootfs}/log")
    box.mount("/log", "bind", "rbind", source=box.base)
    box.spec["hooks"] = {"startContainer": [hook("touch /log/marker")]}
    container = box.create("true")
    assert not os.path.exists(marker)
    container.start()
    assert container.wait() == 0
    assert os.path.exists(marker)


def test_an_init_killed_before_start_is_seen(box: Box) -> None:
    container = box.create("true")
    os.kill(container.pid, signal.SIGKILL)
    container.wait()
    with pytest.raises(HutchError, match="stopped"):
        container.start()


def test_a_cgroup_that_others_live_in_is_refused_and_they_live_on(box: Box) -> None:
    first = box.create("sleep", "1000")
    box.cgroup, box.living = f"{box.cgroup}0", []
    box.linux["cgroupsPath"] = box.cgroup
    spec = {**box.spec, "linux": box.linux}
    with pytest.raises(HutchError, match="cgroup is not empty: 1 process"):
        create_module.create(spec, container_id="second", bundle=box.bundle.path, state_dir=box.state_dir)
    box.living = [first]
    assert os.listdir(box.state_dir) == [first.id]
    assert first.status() == "created"


def test_arguments_that_do_not_fit_fail_in_create(box: Box) -> None:
    box.process["args"] = ["true", *["x" * 100_000] * 100]
    with pytest.raises(ContainerSetupFailed, match="argument list too long"):
        box.create()
    assert os.listdir(box.state_dir) == []


def test_b02_nobody_inside_can_trace_who_enters(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """While init is still Python, in the container, before its program, its /proc entries are root's alone."""
    first = box.create("sh", "-c", "while :; do for i in /proc/[0-9]*; do ls -l $i/exe $i/root $i/fd; done; done 2>&1")
    del first
    seen: list[int] = []
    real = init.final_steps

    def with_probe(setup: Any, options: Any) -> list[Step]:
        def probe(_: object) -> None:
            with open("/proc/self/status") as file:
                text = file.read()
            os.write(2, text.encode())
            raise OSError(13, "dumpable" if _dumpable() else "not dumpable")

        return [Step("probe", "none", probe), *real(setup, options)]

    def _dumpable() -> bool:
        from hutch.linux.process import dumpable

        return dumpable()

    import hutch.linux.process  # noqa: F401 (nothing can be imported in init)

    monkeypatch.setattr(init, "final_steps", with_probe)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        with pytest.raises(ContainerSetupFailed, match="probe: not dumpable"):
            box.create("true", stdio=(null, null, null))
    finally:
        os.close(null)
    assert seen == []


def test_b01_what_runs_inside_cannot_write_the_interpreter(box: Box) -> None:
    """A created container's /proc/1/exe, opened for writing with all capabilities: the sealed image refuses."""
    container = box.create("true")
    for path in (f"/proc/{container.pid}/exe",):
        fd = -1
        with pytest.raises(OSError):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"overwritten")
        if fd >= 0:
            os.close(fd)
    container.start()
    assert container.wait() == 0


def test_b01_a_program_that_is_proc_self_exe(box: Box) -> None:
    Path(box.rootfs, "bin/script").write_text("#!/proc/self/exe -c 'import os'\n")
    os.chmod(f"{box.rootfs}/bin/script", 0o755)
    done = box.run("/bin/script")
    assert (done.status, done.out) == (126, "")


def test_preserved_descriptors_reach_the_program(box: Box) -> None:
    reader, writer = os.pipe()
    saved = [os.dup(fd) if _is_open(fd) else -1 for fd in (3,)]
    try:
        os.dup2(writer, 3)
        container = box.create("sh", "-c", "echo through >&3", preserve_fds=1)
        container.start()
        assert container.wait() == 0
        assert os.read(reader, 100) == b"through\n"
    finally:
        if saved[0] >= 0:
            os.dup2(saved[0], 3)
            os.close(saved[0])
        else:
            os.close(3)
        if reader != 3:
            os.close(reader)
        if writer != 3:
            os.close(writer)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_seccomp_filter_holds_in_the_program(box: Box) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33}],
    }
    box.linux["seccomp"] = profile
    for no_new_privs in (True, False):
        box.process["noNewPrivileges"] = no_new_privs
        done = box.sh("mkdir /tmp/x; grep ^Seccomp: /proc/self/status")
        assert "Numerical argument out of domain" in done.err or "Math" in done.err or "mkdir" in done.err
        assert done.out == "Seccomp:\t2\n"


def test_a_seccomp_listener_reaches_its_agent(box: Box) -> None:
    import socket

    path = f"{box.base}/agent"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(1)
        server.settimeout(10)
        box.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "of mine",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }
        container = box.create("sleep", "1000")
        connection, _ = server.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
    document = json.loads(data)
    assert (document["fds"], document["pid"], document["metadata"]) == (["seccompFd"], container.pid, "of mine")
    assert document["state"]["id"] == container.id
    assert len(fds) == 1
    assert "seccomp" in os.readlink(f"/proc/self/fd/{fds[0]}")
    os.close(fds[0])


def test_no_descriptor_left_for_a_procfs_leaves_no_directory(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(create_module.Proc, "new", fail)
    with pytest.raises(OSError, match="Too many open files"):
        box.create("true")
    assert os.listdir(box.state_dir) == []
