"""podman with storage and cgroups of its own, adapted to the host where podman itself does not."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from collections.abc import Iterator

from tests.support import cgroups
from tests.support.files import unmount_below
from tests.support.host import is_cgroup2, missing
from tests.support.programs import run


@dataclasses.dataclass(frozen=True)
class Podman:
    """A podman whose storage is below `directory` and whose containers are below `cgroup_parent`.

    Attributes:
        directory: private to it.
        cgroup_parent: a cgroup, from `cgroups.parent`.
        runtime: name or path of the OCI runtime, "" for podman's choice.
    """

    directory: str
    cgroup_parent: str
    runtime: str = ""

    def command(self, *argv: str) -> list[str]:
        """The command line for `podman …`."""
        base = self.directory
        places = [f"--root={base}/data", f"--runroot={base}/run", f"--tmpdir={base}/tmp", "--storage-driver=overlay"]
        runtime = [f"--runtime={self.runtime}"] if self.runtime else []
        return ["podman", *places, "--cgroup-manager=cgroupfs", "--events-backend=file", *runtime, *argv]

    def run_command(self, *argv: str) -> list[str]:
        """The command line for `podman run …`."""
        return self.command("run", f"--cgroup-parent={self.cgroup_parent}", *self._limits(), *argv)

    def __call__(self, *argv: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `podman …` to its end, in its own directory: conmon leaves a file "oom" where it is started."""
        return run(self.command(*argv), check=check, timeout_s=timeout_s, cwd=self.directory)

    @staticmethod
    def _limits() -> list[str]:
        """podman raises these limits, which a machine without CAP_SYS_RESOURCE forbids: low ones do."""
        if not missing(("cap:SYS_RESOURCE",)):
            return []
        return ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]


@contextlib.contextmanager
def podman(directory: str, runtime: str = "") -> Iterator[Podman]:
    """A podman for one block: its mounts and cgroups are gone afterwards; the caller removes `directory`.

    crun does not run on hybrid cgroups, so there the choice is runc unless `runtime` says another.
    """
    if not runtime and not is_cgroup2():
        runtime = "runc"
    with cgroups.parent(sweep=True) as path:
        try:
            yield Podman(directory, path, runtime)
        finally:
            unmount_below(directory)  # its storage, mounted on itself
