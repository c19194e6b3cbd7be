"""Rows X1 to X7: whoever works for a container is killed at any moment, and nothing is left, lost or hit by mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.engine.engine import Engine
from tests.integration.security.conftest import Host
from tests.support import faults
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox", "program:strace")

EVERY = int(os.environ.get("HUTCH_FAULTS_EVERY", "0"))
"""1 kills each command in every call of those that change something, which takes half an hour; 2 in every other…"""


class Lab:
    """A bystander that nothing may happen to, and a container `x` to be made, run and removed.

    Args:
        box: where.
    """

    def __init__(self, box: Host) -> None:
        self.box, self.cli = box, box.cli
        self.image = box.image("lab")
        self.flags = ["--cgroup-parent", box.cgroup, "-v", "named:/named"]
        command = ["run", "-d", "--name", "bystander", *self.flags, self.image, "sleep", "1000"]
        self.bystander = self.cli(*command).stdout.strip()
        self.bystander_pid = self.record("bystander").pid
        self.cli("exec", "bystander", "sh", "-c", "echo kept > /named/file")

    @property
    def engine(self) -> Engine:
        return Engine(self.box.roots.data, self.box.roots.state)

    def record(self, name: str):
        """A container's record."""
        return self.engine.containers.find(name).record

    def create(self, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
        self.cli("create", "--name", "x", "-v", "/anonymous", *self.flags, *flags, self.image, *command)

    def start(self, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
        self.create(*flags, command=command)
        self.cli("start", "x")

    def status(self, name: str = "x") -> str:
        return self.cli("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").stdout.strip()

    def removed(self) -> None:
        """Remove whatever there is of `x`; nothing of it is left, and the bystander is as it was."""
        self.cli("rm", "-fv", "x", "y")
        assert self.cli("ps", "-aq", "--no-trunc").stdout.split() == [self.bystander]
        left = lambda: faults.left(  # noqa: E731
            self.box.roots.data, self.box.roots.state, self.box.cgroup, but=(self.bystander, "named")
        )
        wait_until(lambda: not left(), 5, explain=lambda: str(left()))
        assert self.record("bystander").pid == self.bystander_pid
        assert self.cli("exec", "bystander", "cat", "/named/file").stdout == "kept\n"
        assert self.mishaps() == ""

    def mishaps(self) -> str:
        """What the fork server's log says, which has a line for whatever nobody expected."""
        try:
            return Path(self.box.roots.state, "fork-server.log").read_text()
        except FileNotFoundError:
            return ""


@pytest.fixture
def lab(own_box: Host) -> Iterator[Lab]:
    found = Lab(own_box)
    yield found
    found.cli("rm", "-fv", "x", "y", "bystander")
    found.cli("volume", "rm", "named")


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
    "create": [("mkdir", 4), ("symlink", 1), ("flock", 9), ("pwrite64", 20), ("pwrite64", 50), ("renameat", 2), ("fsync", 3)],
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


def _words(lab: Lab, verb: str) -> list[str]:
    words = [*lab.cli.words, *COMMANDS[verb]]
    return [*words, *lab.flags, lab.image, "true"] if verb in ("create", "run") else words


def _points(lab: Lab, verb: str) -> list[tuple[str, int]]:
    if not EVERY:
        return POINTS[verb]
    _prepared(lab, verb)
    counts = faults.calls(_words(lab, verb), lab.cli.env)
    lab.removed()
    return [(call, when) for call, count in sorted(counts.items()) for when in range(1, count + 1)][::EVERY]


def _prepared(lab: Lab, verb: str) -> None:
    if verb in ("start", "rm", "rename"):
        lab.create()
    elif verb not in ("create", "run"):
        lab.start()


@pytest.mark.parametrize("verb", COMMANDS)
def test_x01_a_command_that_is_killed_can_be_given_again_and_leaves_nothing(lab: Lab, verb: str) -> None:
    for call, when in _points(lab, verb):
        _prepared(lab, verb)
        words = _words(lab, verb)
        done = faults.injected(words, lab.cli.env, call, "signal=KILL", when)
        assert done.returncode in (0, -signal.SIGKILL), (call, when, done.stderr)
        shown = lab.cli("ps", "-a")
        assert "Traceback" not in shown.stderr
        again = lab.cli(*words[len(lab.cli.words) :], check=False)
        assert again.returncode == 0 or any(text in again.stderr for text in FINE), (call, when, again.stderr)
        lab.removed()
        lab.cli("rmi", "-f", "committed", check=False)
