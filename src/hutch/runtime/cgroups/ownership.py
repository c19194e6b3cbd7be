"""A cgroup given to the container: its root may make cgroups below it and move its own processes between them.

That is so where the configuration mounts the cgroup read-write, in a cgroup namespace of the container's own. Only the
files that the kernel lists for it change hands: limits stay the host's. Of cgroup v1 nothing is given but a hierarchy
without controllers (``name=systemd``), which only groups processes.

OCI runtime-spec config-linux.md#cgroup-ownership.
"""

from __future__ import annotations

import os

from hutch.runtime.namespaces import host_id
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.runtime.rootfs_mounts import Request
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Spec

_LIST = "/sys/kernel/cgroup/delegate"
_KNOWN = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_NAMED = ("cgroup.procs", "tasks")


def steps(spec: Spec, requests: Iterable[Request]) -> list[Step]:
    """The step of the parent that gives away what `requests` mount read-write; none if nothing is."""
    linux = spec.get("linux") or {}
    new = {entry["type"] for entry in linux.get("namespaces") or [] if not entry.get("path")}
    uid = (spec["process"].get("user") or {}).get("uid", 0)
    owner = host_id(linux.get("uidMappings") or [], uid)
    writable = [
        request
        for request in requests
        if request.fstype in ("cgroup", "cgroup2") and not (request.options.bind or request.options.read_only)
    ]
    if not {"cgroup", "user"} <= new or owner <= 0 or not writable:
        return []
    names = {name for request in writable for name in hierarchy_names(request) or ("",)}

    def give(setup: Setup) -> None:
        if setup.cgroup is None or not setup.privileged:
            return  # an ordinary user's own cgroups are his already
        paths = setup.cgroup.paths()
        for name in sorted(names & set(paths)):
            _give(paths[name], owner, _NAMED if name else _delegated())

    return [Step("give cgroup away", f"fchownat(cgroup.procs …, {owner})", give, command=f"chown {owner} cgroup.procs")]


def hierarchy_names(request: Request) -> tuple[str, ...]:
    """The hierarchies without controllers that a mount of cgroups is for: ``name=…`` among its options."""
    return tuple(entry for entry in request.options.data if entry.startswith("name="))


def _delegated() -> tuple[str, ...]:
    try:
        with open(_LIST, "rb") as file:
            return tuple(file.read(4096).decode("ascii", "replace").split())
    except FileNotFoundError:  # older than Linux 4.15
        return _KNOWN


def _give(directory: str, owner: int, names: tuple[str, ...]) -> None:
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(directory_fd, owner, -1)
        for name in names:
            try:
                os.chown(name, owner, -1, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:  # its controller is not enabled here
                continue
    finally:
        os.close(directory_fd)
