"""The mounts that make the root file system itself: an engine's layers, given to create as `root_mounts`.

They are OCI mounts with destinations below the new root, "/" first. Nothing is ever attached in the host's namespace: a
privileged caller's are made detached before the container's namespaces are, an ordinary user's inside them.

    overlay   lowerdir=A:B:C (top first), upperdir=, workdir=, userxattr and what else overlayfs takes
              idmap: lower layers keep plain ids on disk, and the container's user namespace sees them as its own;
              upper and work are as they are, and belong to the container's root
    others    as any mount
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidConfig
from hutch.linux import mount as kernel
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE
from hutch.linux.namespaces import CLONE_NEWNS, unshare
from hutch.runtime import rootfs
from hutch.runtime.credentials import acting_as
from hutch.runtime.rootfs_mounts import Request, change, clone, finish, map_ids, new_mount
from hutch.runtime.rootfs_options import mount_data
from hutch.runtime.rootfs_targets import open_target
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import LinuxIDMapping, Mount

_LAYERS = ("lowerdir", "upperdir", "workdir")


class Layers:
    """The root mounts of one creation.

    Attributes:
        requests: they, understood; empty if the root file system is a directory that is there.
    """

    __slots__ = ("requests",)

    def __init__(self, root_mounts: Sequence[Mount], bundle: str, label: str = "") -> None:
        found = enumerate(root_mounts)
        self.requests = [Request(entry, f"root_mounts[{index}]", bundle, label) for index, entry in found]
        if self.requests and self.requests[0].destination != "/":
            raise InvalidConfig("root_mounts[0].destination: the first one must be /")

    def prepare(self) -> list[Step]:
        """The steps while the host's rights are at hand."""
        if not self.requests:
            return [rootfs.clone_root()]
        return [_make_step(request) for request in self.requests]

    def attach(self) -> list[Step]:
        """The steps in the container's mount namespace."""
        if not self.requests:
            return [rootfs.attach()]
        return [_attach_step(request) for request in self.requests]


def _make_step(request: Request) -> Step:
    def action(setup: Setup) -> None:
        setup.mounts[request.key] = make(setup, request)

    return Step(f"prepare {request.title} in rootfs", request.attach_text().rpartition("; ")[0], action)


def _attach_step(request: Request) -> Step:
    def action(setup: Setup) -> None:
        fd = setup.mounts.pop(request.key, -1)
        if fd < 0:
            fd = make(setup, request)
        if request.destination == "/":
            rootfs.attach_root(setup, fd)
            finish(setup, request, fd)
            return
        try:
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            target_fd = open_target(setup.inside, request.destination, directory=directory)
            try:
                kernel.move_mount(fd, "", target_fd, "")
            finally:
                os.close(target_fd)
            finish(setup, request, fd)
        finally:
            os.close(fd)

    title = f"{request.title} of rootfs"
    return Step(title, f"move_mount(rootfs:{request.destination})", action, command=request.shell_text())


def make(setup: Setup, request: Request) -> int:
    """The mount, detached; the caller's to close."""
    if request.options.bind:
        return clone(setup, request)
    if request.fstype == "overlay":
        return _make_overlay(setup, request)
    options = request.options
    return new_mount(
        request.fstype, request.source, [*options.super_flags, *options.data], options.attr_set | options.rec_set
    )


# --- overlay -----------------------------------------------------------------------------------------------------


def _make_overlay(setup: Setup, request: Request) -> int:
    lower, others, rest = _split(request)
    userns_fd = setup.fds.get(f"userns:{request.key}", -1)
    fds: list[int] = []
    try:
        lower_fds = [_layer(path, userns_fd, fds) for path in lower]
        try:
            upper_fds = _open_upper(others, userns_fd, _mappings(setup, request)[0], fds)
            mounter = _mounter(setup, request) if userns_fd >= 0 else (0, 0)
            with acting_as(*mounter):
                return _by_descriptors(request, lower_fds, upper_fds, rest)
        except OSError as error:
            # Layers by descriptor are of Linux 6.13; before that the kernel does not know the parameter, and before
            # 6.5 no parameter that is a descriptor.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or not _is_about_parameters(error):
                raise
            return _by_names(setup, request, lower, others, rest)
    finally:
        for fd in fds:
            os.close(fd)


def _split(request: Request) -> tuple[list[str], dict[str, str], list[str]]:
    """(lower directories top first, upper and work, what else)."""
    lower: list[str] = []
    others: dict[str, str] = {}
    rest = list(request.options.super_flags)
    for entry in request.options.data:
        key, _, value = entry.partition("=")
        if key in ("lowerdir", "lowerdir+"):
            lower += _split_escaped(value)
        elif key in ("upperdir", "workdir"):
            others[key] = value.replace("\\,", ",").replace("\\\\", "\\")
        else:
            rest.append(entry)
    if not lower:
        raise InvalidConfig(f"{request.key}.options: an overlay needs lowerdir")
    if ("upperdir" in others) != ("workdir" in others):
        raise InvalidConfig(f"{request.key}.options: upperdir and workdir go together")
    return lower, others, rest


def _split_escaped(value: str) -> list[str]:
    r"""The paths of ``a:b\:c:d``, a backslash making the next character plain."""
    paths, current, plain = [], [], False
    for character in value:
        if plain or character not in "\\:":
            current.append(character)
            plain = False
        elif character == "\\":
            plain = True
        else:
            paths.append("".join(current))
            current = []
    return [path for path in [*paths, "".join(current)] if path]


def _layer(path: str, userns_fd: int, fds: list[int]) -> int:
    """A layer's directory; id-mapped, it is a mount of its own. Closed with `fds`."""
    if userns_fd < 0:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fds.append(fd)
        return fd
    fd = kernel.open_tree(AT_FDCWD, path, kernel.OPEN_TREE_CLONE)
    fds.append(fd)
    kernel.mount_setattr(fd, "", propagation=kernel.MS_PRIVATE)
    map_ids(fd, 0, userns_fd, path)
    return fd


def _open_upper(
    others: dict[str, str], userns_fd: int, uids: Sequence[LinuxIDMapping], fds: list[int]
) -> dict[str, int]:
    """Upper and work. Mapped, both are reached through one copy of their parent's mount: they must be on the same one.

    An upper directory that belongs to a range of the container's own is left unmapped: its ids are on disk already.
    """
    if not others or userns_fd < 0 or _has_private_ids(others["upperdir"], uids):
        return {name: _layer(path, -1, fds) for name, path in others.items()}
    parents = {os.path.dirname(path.rstrip("/")) for path in others.values()}
    if len(parents) != 1:
        raise InvalidConfig("root_mounts: with mapped ids, upperdir and workdir must stand in one directory")
    parent_fd = _layer(parents.pop(), userns_fd, fds)
    found = {}
    for name, path in others.items():
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        found[name] = os.open(os.path.basename(path.rstrip("/")), flags, dir_fd=parent_fd)
        fds.append(found[name])
    return found


def _mounter(setup: Setup, request: Request) -> tuple[int, int]:
    """The host's ids of the container's root.

    Overlayfs does its own work in upper and work as who mounted it: through a map that has no id for the host's root,
    it could create nothing there, and would mount read-only.
    """
    uids, gids = _mappings(setup, request)
    return _host_id(uids), _host_id(gids)


def _mappings(setup: Setup, request: Request) -> tuple[Sequence[LinuxIDMapping], Sequence[LinuxIDMapping]]:
    linux = setup.spec.get("linux") or {}
    uids = request.mount.get("uidMappings") or linux.get("uidMappings") or []
    return uids, request.mount.get("gidMappings") or linux.get("gidMappings") or []


def _has_private_ids(path: str, uids: Sequence[LinuxIDMapping]) -> bool:
    """Whether a directory belongs to one of the container's own ids on disk."""
    owner = os.stat(path).st_uid
    return any(entry["hostID"] <= owner < entry["hostID"] + entry["size"] for entry in uids)


def _host_id(mappings: Sequence[LinuxIDMapping]) -> int:
    return next((entry["hostID"] for entry in mappings if entry["containerID"] == 0), 0)


def _by_descriptors(request: Request, lower_fds: list[int], upper_fds: dict[str, int], rest: list[str]) -> int:
    options = request.options
    context_fd = kernel.fsopen("overlay")
    try:
        kernel.fsconfig_string(context_fd, "source", request.source or "overlay")
        for fd in lower_fds:
            kernel.fsconfig_fd(context_fd, "lowerdir+", fd)
        for name, fd in upper_fds.items():
            kernel.fsconfig_fd(context_fd, name, fd)
        for entry in rest:
            key, equals, value = entry.partition("=")
            if equals:
                kernel.fsconfig_string(context_fd, key, value)
            else:
                kernel.fsconfig_flag(context_fd, key)
        kernel.fsconfig_create(context_fd)
        return kernel.fsmount(context_fd, options.attr_set | options.rec_set)
    finally:
        os.close(context_fd)


def _is_about_parameters(error: OSError) -> bool:
    return error.filename in _LAYERS or error.filename == "lowerdir+"


def _by_names(setup: Setup, request: Request, lower: list[str], others: dict[str, str], rest: list[str]) -> int:
    """For older kernels: mount(2), whose one page of options holds 500 layers if they are named by their descriptors.

    Done in a mount namespace of the child's own, which is gone when the child goes on; what leaves it is a copy.
    """
    if setup.fds.get(f"userns:{request.key}", -1) >= 0:
        return _mapped_by_names(setup, request, lower, others, rest)
    if setup.privileged:
        _enter_staging()
    fds: list[int] = []
    try:
        for path in (*lower, *others.values()):
            _layer(path, -1, fds)  # of this namespace: overlayfs takes no other's
        data = [f"lowerdir={':'.join(map(str, fds[: len(lower)]))}"]
        data += [f"{name}={fd}" for name, fd in zip(others, fds[len(lower) :], strict=True)]
        os.chdir("/proc/self/fd")
        kernel.mount(request.source or "overlay", setup.rootfs, "overlay", 0, mount_data([*data, *rest]))
        os.chdir("/")
    finally:
        for fd in fds:
            os.close(fd)
    fd = kernel.open_tree(AT_FDCWD, setup.rootfs, kernel.OPEN_TREE_CLONE)
    kernel.umount2(setup.rootfs, kernel.MNT_DETACH)
    return _with_attributes(fd, request)


def _mapped_by_names(setup: Setup, request: Request, lower: list[str], others: dict[str, str], rest: list[str]) -> int:
    """Layers as attached id-mapped mounts: before Linux 6.13 overlayfs takes only those that stand somewhere."""
    userns_fd = setup.fds[f"userns:{request.key}"]
    _enter_staging()
    stage_fd = new_mount("tmpfs", "tmpfs", ["mode=700"], 0)
    fds: list[int] = []
    try:
        place_fd = os.open(setup.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        kernel.move_mount(stage_fd, "", place_fd, "")
        os.close(place_fd)
        names = []
        for index, path in enumerate(lower):
            names.append(_stage(stage_fd, f"l{index}", _layer(path, userns_fd, fds)))
        data = [f"lowerdir={':'.join(names)}"]
        if others and not _has_private_ids(others["upperdir"], _mappings(setup, request)[0]):
            parent = os.path.dirname(others["upperdir"].rstrip("/"))
            _stage(stage_fd, "u", _layer(parent, userns_fd, fds))
            others = {name: f"u/{os.path.basename(path.rstrip('/'))}" for name, path in others.items()}
        data += [f"{name}={_escaped(path)}" for name, path in others.items()]
        os.mkdir("m", dir_fd=stage_fd)
        os.fchdir(stage_fd)
        with acting_as(*_mounter(setup, request)):
            kernel.mount(request.source or "overlay", "m", "overlay", 0, mount_data([*data, *rest]))
        fd = kernel.open_tree(AT_FDCWD, "m", kernel.OPEN_TREE_CLONE)
        os.chdir("/")
    finally:
        os.close(stage_fd)
        for layer_fd in fds:
            os.close(layer_fd)
    return _with_attributes(fd, request)


def _escaped(path: str) -> str:
    """A path in mount(2)'s comma-separated options."""
    return path.replace("\\", "\\\\").replace(",", "\\,")


def _stage(stage_fd: int, name: str, layer_fd: int) -> str:
    os.mkdir(name, dir_fd=stage_fd)
    place_fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=stage_fd)
    try:
        kernel.move_mount(layer_fd, "", place_fd, "")
    finally:
        os.close(place_fd)
    return name


def _enter_staging() -> None:
    unshare(CLONE_NEWNS)
    kernel.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=kernel.MS_SLAVE)


def _with_attributes(fd: int, request: Request) -> int:
    try:
        change(fd, request.options)
    except BaseException:
        os.close(fd)
        raise
    return fd
