"""The cgroup of a container, whatever the host has: one protocol, chosen once.

The order of a container's life is ``create``, ``apply``, ``add`` (so limits hold from the first instruction), then
``stats``, ``freeze`` and the rest, ``kill`` and ``destroy``. `paths` is what a state file keeps; `manager_for` with
it finds the same cgroup again without looking at the host's mounts.
"""

from __future__ import annotations

from hutch.runtime.cgroups import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from hutch.runtime.cgroups.files import Explain
    from hutch.spec.runtime import LinuxResources

    class CgroupManager(Protocol):
        """What the runtime does with a container's cgroup."""

        explain: Explain
        """Told of every directory made and file written: ``manager.explain.step = print``."""

        def create(self) -> None:
            """Make the cgroup; what is there already is used."""

        def add(self, pid: int) -> None:
            """Move a process in; children it forks from now on follow."""

        def preload(self) -> None:
            """Import what `apply` needs: for a moment in which there is nothing else to do."""

        def apply(self, resources: LinuxResources) -> None:
            """Set what `resources` names, at creation or as an update; unset values change nothing.

            Call it once after `create` even when there is nothing to limit: it closes the devices.
            """

        def freeze(self) -> None:
            """Stop every process; returns when they are stopped."""

        def thaw(self) -> None:
            """Let every process run again."""

        def frozen(self) -> bool:
            """Whether this cgroup itself is, or is being, frozen."""

        def stats(self) -> dict[str, Any]:
            """Return usage in the shape of runc's ``events --stats`` data."""

        def pids(self, recursive: bool = True) -> list[int]:
            """Return the processes in it, in this process's pid namespace."""

        def kill(self, signal: int) -> None:
            """Signal every process, safely against forks; SIGKILL also reaches frozen ones."""

        def oom_kills(self) -> int:
            """Return how many processes were killed for want of memory."""

        def destroy(self) -> None:
            """Remove it with everything below; idempotent, waits up to 10 s for the last process."""

        def paths(self) -> dict[str, str]:
            """Return controller → directory; "" is the unified hierarchy's."""


def manager_for(
    cgroups_path: str,
    container_id: str,
    *,
    systemd: bool = False,
    rootless: bool = False,
    root: str = hierarchy.DEFAULT_ROOT,
    stored: dict[str, str] | None = None,
) -> CgroupManager:
    """Choose how this host's cgroups are managed; makes nothing yet.

    Args:
        cgroups_path: the spec's ``linux.cgroupsPath``: absolute (below the hierarchy's top), relative (below this
            process's own cgroup) or empty (``hutch/ID``); ``slice:prefix:name`` with `systemd`. Untrusted.
        container_id: names the cgroup when the path does not.
        systemd: ask systemd for a scope instead of making directories.
        rootless: expect to own only a part of the tree; without a limit asked for, missing rights are no error.
        root: where hierarchies are mounted; for tests.
        stored: what `paths` returned when the cgroup was made.

    Raises:
        InvalidArgument: a path with ``..`` or control characters, or not of systemd's form.
        NotSupported: no cgroup hierarchy is mounted.

    OCI runtime-spec config-linux.md#cgroups-path.
    """
    if stored is not None and not systemd:
        if set(stored) == {""}:
            from hutch.runtime.cgroups.v2 import V2Manager

            return V2Manager(stored[""], rootless=rootless)
        from hutch.runtime.cgroups.v1 import V1Manager

        return V1Manager(stored, rootless=rootless)
    found = hierarchy.find(root)
    if systemd:
        from hutch.runtime.cgroups.systemd import SystemdManager

        return SystemdManager.locate(cgroups_path, container_id, found, rootless=rootless, stored=stored)
    if found.is_v2:
        from hutch.runtime.cgroups.v2 import V2Manager

        return V2Manager.locate(cgroups_path, container_id, found, rootless=rootless)
    from hutch.runtime.cgroups.v1 import V1Manager

    return V1Manager.locate(cgroups_path, container_id, found, rootless=rootless)
