"""A bystander that nothing may happen to, and a container `x` to which it does."""

from __future__ import annotations

from pathlib import Path

from hutch.engine.containers import ContainerRecord
from hutch.engine.engine import Engine
from tests.support import faults
from tests.support.programs import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.integration.security.conftest import Host


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

    def record(self, name: str) -> ContainerRecord:
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
        left = lambda: faults.left(
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


def monitors(lab: Lab) -> list[int]:
    """Monitors and sessions of this engine, but the bystander's."""
    own = parent(lab.bystander_pid)
    return [pid for pid in faults.processes(lab.box.roots.state) if pid != own and faults.session(pid) == pid]


def parent(pid: int) -> int:
    """The parent of a process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])
