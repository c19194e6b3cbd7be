"""Mounts of type "cgroup" and "cgroup2": the container's own cgroups, on whatever hierarchies the host has.

With a cgroup namespace each hierarchy is mounted anew and shows the container's cgroup as its root; without one, the
directory of the container's cgroup is bound. On v1 and hybrid hosts the hierarchies stand in a tmpfs; an option
``name=…`` asks for that one alone.
"""

from __future__ import annotations

import errno
import os

from hutch.errors import NotSupported
from hutch.linux import mount as kernel
from hutch.linux.abi import AT_FDCWD
from hutch.linux.mountinfo import mountinfo
from hutch.runtime.cgroups.ownership import hierarchy_names
from hutch.runtime.rootfs_mounts import Request, finish, new_mount
from hutch.runtime.rootfs_targets import check_target, open_target
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.mountinfo import MountInfo
    from hutch.runtime.steps import Setup

_RO = kernel.MOUNT_ATTR_RDONLY


class Hierarchy:
    """One cgroup hierarchy of the host.

    Attributes:
        controllers: what it is mounted with, such as ["cpu", "cpuacct"] or ["name=systemd"]; [] is v2.
        path: our cgroup in it.
        source: the host's directory of that cgroup.
        name: the last component of the host's mount point.
    """

    __slots__ = ("controllers", "name", "path", "source")

    def __init__(self, controllers: list[str], path: str, mounted: MountInfo) -> None:
        self.controllers = controllers
        self.path = path
        inner = path[len(mounted.root) :] if mounted.root != "/" and path.startswith(mounted.root) else path
        self.source = mounted.mount_point + inner.rstrip("/")
        self.name = mounted.mount_point.rpartition("/")[2]


def hierarchies(setup: Setup) -> list[Hierarchy]:
    """The mounted hierarchies that we are in, v2 last."""
    mounts: list[MountInfo] = [entry for entry in mountinfo() if entry.fstype in ("cgroup", "cgroup2")]
    found = []
    for line in setup.proc.read("self/cgroup").decode("utf-8", "surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        controllers = names.split(",") if names else []
        for entry in mounts:
            options = set(entry.super_options.split(","))
            if (entry.fstype == "cgroup2") if not controllers else options.issuperset(controllers):
                found.append(Hierarchy(controllers, path, entry))
                break
    return found


def mount_step(request: Request, *, namespaced: bool) -> Step:
    """The step for one mount of this type."""

    def action(setup: Setup) -> None:
        found = hierarchies(setup)
        if not found:
            raise NotSupported("the host has no cgroup hierarchy mounted")
        target_fd = open_target(setup.inside, request.destination, directory=True)
        try:
            names = hierarchy_names(request)
            if names and request.fstype == "cgroup":
                _mount_named(setup, request, target_fd, found, names, namespaced=namespaced)
            elif any(entry.controllers for entry in found) and request.fstype == "cgroup":
                _mount_all(setup, request, target_fd, found, namespaced=namespaced)
            else:
                unified = [entry for entry in found if not entry.controllers]
                if not unified:
                    raise NotSupported("the host has no cgroup2 hierarchy mounted")
                attributes = request.options.attr_set | request.options.rec_set
                fd = _open(unified[0], attributes, namespaced=namespaced)
                _attach(setup, request, fd, target_fd)
        finally:
            os.close(target_fd)

    if namespaced:
        call = f'fsopen("cgroup") for each hierarchy; fsmount; move_mount(rootfs:{request.destination}/…)'
    else:
        call = f"open_tree(own cgroup, OPEN_TREE_CLONE) for each hierarchy; move_mount(rootfs:{request.destination}/…)"
    return Step(request.title, call, action, command=request.shell_text())


def _mount_named(
    setup: Setup,
    request: Request,
    target_fd: int,
    found: list[Hierarchy],
    names: tuple[str, ...],
    *,
    namespaced: bool,
) -> None:
    """One hierarchy of v1 by its name, as ``mount -t cgroup -o none,name=systemd`` would."""
    chosen = [entry for entry in found if entry.controllers == list(names)]
    if not chosen:
        raise NotSupported(f"the host has no cgroup hierarchy {names[0]}")
    attributes = request.options.attr_set | request.options.rec_set
    _attach(setup, request, _open(chosen[0], attributes, namespaced=namespaced), target_fd)


def _attach(setup: Setup, request: Request, fd: int, target_fd: int) -> None:
    try:
        check_target(setup.proc, setup.inside, target_fd, fd, request.destination)
        kernel.move_mount(fd, "", target_fd, "")
        finish(setup, request, fd)
    finally:
        os.close(fd)


def _mount_all(setup: Setup, request: Request, target_fd: int, found: list[Hierarchy], *, namespaced: bool) -> None:
    attributes = request.options.attr_set | request.options.rec_set
    tmpfs_fd = new_mount("tmpfs", "tmpfs", ["mode=755", "size=1m", "nr_inodes=1k"], attributes & ~_RO)
    try:
        check_target(setup.proc, setup.inside, target_fd, tmpfs_fd, request.destination)
        kernel.move_mount(tmpfs_fd, "", target_fd, "")
        for entry in found:
            os.mkdir(entry.name, 0o755, dir_fd=tmpfs_fd)
            fd = _open(entry, attributes, namespaced=namespaced)
            place_fd = os.open(entry.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tmpfs_fd)
            try:
                kernel.move_mount(fd, "", place_fd, "")
            finally:
                os.close(place_fd)
                os.close(fd)
            for controller in entry.controllers:
                if len(entry.controllers) > 1 and controller != entry.name:
                    os.symlink(entry.name, controller, dir_fd=tmpfs_fd)
        if attributes & _RO:
            kernel.mount_setattr(tmpfs_fd, "", attr_set=_RO)
        for propagation, _ in request.options.propagation:
            kernel.mount_setattr(tmpfs_fd, "", propagation=propagation)
    finally:
        os.close(tmpfs_fd)


def _open(entry: Hierarchy, attributes: int, *, namespaced: bool) -> int:
    """One hierarchy, detached; the caller's to close."""
    if namespaced:
        try:
            if not entry.controllers:
                return new_mount("cgroup2", "cgroup", [], attributes)
            named = entry.controllers[0].startswith("name=")
            return new_mount("cgroup", "cgroup", (["none"] if named else []) + entry.controllers, attributes)
        except OSError as error:
            # The namespace is not ours to mount with (joined, or of another user namespace): its directory, then.
            if error.errno not in (errno.EPERM, errno.EBUSY):
                raise
    fd = kernel.open_tree(AT_FDCWD, entry.source, kernel.OPEN_TREE_CLONE)
    try:
        kernel.mount_setattr(fd, "", attr_set=attributes & ~kernel.MOUNT_ATTR__ATIME)
    except BaseException:
        os.close(fd)
        raise
    return fd
