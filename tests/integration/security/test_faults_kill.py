"""Rows X1 to X7: whoever works for a container is killed at any moment, and nothing is left, lost or hit by mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.integration.security.lab import Lab, monitors
from tests.support import faults, leaks
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox", "program:strace")

EVERY = int(os.environ.get("HUTCH_FAULTS_EVERY", "0"))
"""1 kills each command in every call of those that change something, which takes half an hour; 2 in every other…"""


COMMANDS = {
    "create": ["create", "--name", "x", "-v", "/anonymous"],
    "run": ["run", "--rm", "--name", "x", "-v", "/anonymous"],
    "start": ["start", "x"],
    "stop": ["stop", "-t", "0", "x"],
    "restart": ["restart", "-t", "0", "x"],
    "kill": ["kill", "x"],
    "rm": ["rm", "-v", "x"],
    "rm -f": ["rm", "-fv", "x"],
    "exec": ["exec", "x", "true"],
    "commit": ["commit", "x", "committed"],
    "rename": ["rename", "x", "y"],
}
POINTS = {
    "create": [("mkdir", 4), ("symlink", 1), ("flock", 9), ("pwrite64", 20), ("pwrite64", 50), ("renameat", 2)],
    "run": [("mkdir", 6), ("fchown", 3), ("sendmsg", 1), ("recvmsg", 1), ("recvmsg", 2), ("pwrite64", 40)],
    "start": [("flock", 1), ("connect", 1), ("sendmsg", 1), ("recvmsg", 1), ("recvmsg", 2)],
    "stop": [("sendmsg", 1), ("recvmsg", 1), ("recvmsg", 2)],
    "restart": [("sendmsg", 1), ("recvmsg", 1), ("recvmsg", 2)],
    "kill": [("recvmsg", 1)],
    "rm": [("flock", 1), ("pwrite64", 5), ("rmdir", 1), ("unlink", 1), ("rmdir", 3), ("pwrite64", 12)],
    "rm -f": [("flock", 1), ("recvmsg", 1), ("pwrite64", 5), ("unlinkat", 20), ("rmdir", 1)],
    "exec": [("sendmsg", 1), ("recvmsg", 1), ("recvmsg", 2)],
    "commit": [("mkdir", 1), ("rename", 1), ("fsync", 2)],
    "rename": [("pwrite64", 2)],
}  # fmt: skip
FINE = ("no such container", "is not running", "is already in use", "same name")


def words_of(lab: Lab, verb: str) -> list[str]:
    words = [*lab.cli.words, *COMMANDS[verb]]
    return [*words, *lab.flags, lab.image, "true"] if verb in ("create", "run") else words


def points_of(lab: Lab, verb: str) -> list[tuple[str, int]]:
    if not EVERY:
        return POINTS[verb]
    prepared(lab, verb)
    counts = faults.calls(words_of(lab, verb), lab.cli.env)
    lab.removed()
    return [(call, when) for call, count in sorted(counts.items()) for when in range(1, count + 1)][::EVERY]


def prepared(lab: Lab, verb: str) -> None:
    if verb in ("start", "rm", "rename"):
        lab.create()
    elif verb not in ("create", "run"):
        lab.start()


@pytest.mark.parametrize("verbs", [["create", "run"], ["start", "stop", "restart", "kill", "rename"],
                                   ["rm", "rm -f", "exec", "commit"]], ids=" ".join)  # fmt: skip
def test_x01_a_command_that_is_killed_can_be_given_again_and_leaves_nothing(lab: Lab, verbs: list[str]) -> None:
    for verb in verbs:
        for call, when in points_of(lab, verb):
            prepared(lab, verb)
            words = words_of(lab, verb)
            done = faults.injected(words, lab.cli.env, call, "signal=KILL", when)
            assert done.returncode in (0, -signal.SIGKILL), (call, when, done.stderr)
            shown = lab.cli("ps", "-a")
            assert "Traceback" not in shown.stderr
            again = lab.cli(*words[len(lab.cli.words) :], check=False)
            assert again.returncode == 0 or any(text in again.stderr for text in FINE), (call, when, again.stderr)
            lab.removed()
            lab.cli("rmi", "-f", "committed", check=False)


MOMENTS_MS = (0, 5, 10, 15, 20, 30, 45, 70)


def killed(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def gone(pid: int) -> bool:
    """Whether a process has ended; as an orphan it is ours, and ours to wait for."""
    leaks.reap()
    return not os.path.exists(f"/proc/{pid}")


def test_x02_a_monitor_killed_while_it_creates(lab: Lab) -> None:
    for delay_ms in MOMENTS_MS:
        lab.create()
        with subprocess.Popen([*lab.cli.words, "start", "x"], env=lab.cli.env, stderr=subprocess.PIPE) as starting:
            wait_until(lambda: bool(monitors(lab)) or starting.poll() is not None, 10)
            time.sleep(delay_ms / 1000)
            killed(monitors(lab))
            starting.wait(20)
            assert starting.stderr is not None
            assert b"Traceback" not in starting.stderr.read()
        assert lab.status().split(" ")[0] in ("Created", "Exited")
        lab.cli("start", "x")
        lab.cli("exec", "x", "true")
        lab.removed()


@pytest.mark.parametrize(
    ("flags", "command", "moment"),
    [
        (("--rm",), "sleep 1000", "running"),
        (("--restart", "always"), "exit 3", "Restarting"),
        (("--restart", "always"), "sleep 0.05", "any"),
        (("--rm",), "sleep 0.2", "end"),
        (("--health-cmd", "sleep 100", "--health-interval", "10ms"), "sleep 1000", "running"),
        (("--pid", "host"), "sleep 1000 & sleep 1001 & wait", "running"),
    ],
    ids=["rm", "backoff", "loop", "end", "probe", "host-pid"],
)
def test_x02_a_killed_monitor_leaves_no_orphan(lab: Lab, flags: tuple[str, ...], command: str, moment: str) -> None:
    for delay_ms in (0, 20) if moment == "running" else (190, 200, 210, 220):
        lab.cli("run", "-d", "--name", "x", *lab.flags, *flags, lab.image, "sh", "-c", command)
        if moment == "Restarting":
            wait_until(lambda: lab.status().startswith("Restarting"), 10)
        else:
            time.sleep(delay_ms / 1000)
        killed(monitors(lab))
        status = lab.status()  # whoever looks first puts it right
        if "--rm" in flags:
            assert status == ""
        else:
            assert status.startswith("Exited")
            assert "its monitor was killed" in lab.record("x").error
        wait_until(lambda: not monitors(lab), 5)
        lab.removed()


def test_x03_init_killed_before_it_was_started(lab: Lab) -> None:
    """Between `create` and `start` of the runtime, which the monitor does both."""
    lab.create()
    hooked = lab.cli("start", "x")
    assert hooked.returncode == 0
    pid = lab.record("x").pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: lab.status().startswith("Exited (137)"), 5)
    lab.cli("start", "x")
    lab.removed()


def test_x04_everything_is_killed_at_once(lab: Lab) -> None:
    lab.start("--restart", "always")
    lab.cli("run", "-d", "--name", "y", "--rm", *lab.flags, lab.image, "sleep", "1000")
    lab.cli("exec", "-d", "x", "sleep", "1000")
    pids = [lab.record(name).pid for name in ("x", "y")]
    server = faults.server(lab.box.roots.state)
    killed([*monitors(lab), *pids, server])
    for pid in pids:
        wait_until(partial(gone, pid), 5)
    shown = lab.cli("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.splitlines()
    assert sorted(shown) == ["bystander running", "x exited"]
    lab.cli("start", "x")
    assert lab.status().startswith("Up ")
    lab.removed()


def test_x06_the_state_directory_is_removed_under_a_running_container(lab: Lab) -> None:
    """As a cleaner of /run does: stop, kill and rm work without the monitor's socket."""
    for verb in (["stop", "-t", "0"], ["kill"], ["rm", "-fv"], ["restart", "-t", "0"]):
        lab.start()
        before = lab.record("x").pid
        for name in ("monitors", "runtime"):
            directory = Path(lab.box.roots.state, name, lab.record("x").id)
            if directory.is_dir():
                for file in directory.iterdir():
                    file.unlink()
                directory.rmdir()
            else:
                directory.unlink()
        assert lab.status().startswith("Up ")
        lab.cli(*verb, "x")
        wait_until(partial(gone, before), 5)
        lab.removed()


def test_x07_a_pid_that_is_anothers_by_now_is_left_alone(lab: Lab) -> None:
    lab.start()
    pid = lab.record("x").pid
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        killed(monitors(lab))
        killed([pid])
        wait_until(partial(gone, pid), 5)
        with lab.engine.containers.find("x") as directory:
            directory.record.pid = innocent.pid  # its start time stays the first one's
            directory.save()
        state = Path(lab.box.roots.state, "runtime", lab.record("x").id, "state.json")
        state.write_text(state.read_text().replace(f'"pid":{pid}', f'"pid":{innocent.pid}'))
        assert str(innocent.pid) in state.read_text()
        assert lab.status().startswith("Exited (137)")
        lab.cli("rm", "-fv", "x")
        assert innocent.poll() is None
        innocent.kill()
    lab.removed()


def test_a22_a_state_file_that_names_the_hosts_cgroup_kills_nobody(lab: Lab) -> None:
    lab.start()
    state = Path(lab.box.roots.state, "runtime", lab.record("x").id, "state.json")
    pid = lab.record("x").pid
    killed(monitors(lab))
    container_id = lab.record("x").id
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        foreign = f"{lab.box.cgroup}/foreign"
        for top in ("pids", "freezer", ""):
            if os.path.isdir(f"/sys/fs/cgroup/{top}{lab.box.cgroup}"):
                os.mkdir(f"/sys/fs/cgroup/{top}{foreign}")
                Path(f"/sys/fs/cgroup/{top}{foreign}/cgroup.procs").write_text(str(innocent.pid))
        state.write_text(state.read_text().replace(f"{lab.box.cgroup}/{container_id}", foreign))
        assert foreign in state.read_text()
        lab.cli("rm", "-fv", "x")
        assert innocent.poll() is None
        wait_until(partial(gone, pid), 5)
        innocent.kill()
        innocent.wait()
        for top in ("pids", "freezer", ""):
            if os.path.isdir(f"/sys/fs/cgroup/{top}{foreign}"):
                os.rmdir(f"/sys/fs/cgroup/{top}{foreign}")
    lab.removed()


@pytest.mark.parametrize("text", ["", "{", '{"pid": "1"}'])
def test_x09_a_torn_state_file_of_the_runtime(lab: Lab, text: str) -> None:
    for name in ("state.json", "config.json"):
        lab.start()
        pid = lab.record("x").pid
        Path(lab.box.roots.state, "runtime", lab.record("x").id, name).write_text(text)
        killed(monitors(lab))
        lab.cli("rm", "-fv", "x")
        wait_until(partial(gone, pid), 5)
        lab.removed()
