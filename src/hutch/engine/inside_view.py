"""A container's root as a descriptor, for a process that works in it and lives nowhere: `hutch.engine.inside_child`.

    live      the root of a running container's mount namespace, with everything mounted below it; or, for `export`,
              a detached copy of the root's own mount, with nothing below it. Nothing is attached in the container's
              namespace (security.md E2)
    mounted   the mounts of a container that does not run, made in a private namespace by the runtime's own steps

Either way the process then becomes root of the container's user namespace, so that owners are those that the container
sees, and its root an empty read-only file system: no path leads anywhere any more. What it needs is imported before
(security.md B4). Needs Linux 5.12.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidArgument
from hutch.linux import caps, mount, process, rlimits
from hutch.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare
from hutch.linux.paths import Root
from hutch.linux.proc import Proc
from hutch.runtime import rootfs_mounts
from hutch.runtime.namespaces import UserNamespaces
from hutch.runtime.rootfs_layers import Layers
from hutch.runtime.steps import Setup
from hutch.snapshot import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.spec.runtime import LinuxIDMapping, Mount, Spec, State

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_HARMLESS = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_KERNEL_PLACES = ("/proc", "/sys", "/dev")
_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP",
)  # fmt: skip


def live(pidfd: int, *, own_users: bool, alone: bool) -> Root:
    """The root of a running container.

    Args:
        pidfd: of its init.
        own_users: whether it has a user namespace of its own.
        alone: without what is mounted below it.
    """
    process.set_dumpable(False)
    if own_users and os.geteuid() == 0:
        os.setgroups(())
    setns(pidfd, CLONE_NEWNS | (CLONE_NEWUSER if own_users else 0))
    # Not /proc/<pid>/root: that is wherever init has changed its root to.
    root_fd = os.open("/", _DIRECTORY)
    if alone:
        whole_fd, root_fd = root_fd, mount.open_tree(root_fd, "", mount.OPEN_TREE_CLONE)
        os.close(whole_fd)
    hide()
    _settle(own_users=own_users)
    return Root(root_fd)


def mounted(spec: Spec, bundle: str, rootfs: str, root_mounts: Sequence[Mount], *, alone: bool) -> Root:
    """The root of a container that does not run.

    Args:
        spec: its config.json.
        bundle: its directory.
        rootfs: where the root is attached, or with no `root_mounts` the root itself.
        root_mounts: what makes the root.
        alone: without the volumes and the files that the engine mounts into it.
    """
    linux = spec.get("linux") or {}
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    ordinary = idmap.needs_user_namespace()
    if ordinary:
        idmap.enter(_id_map(uids, gids), CLONE_NEWNS)
    else:
        unshare(CLONE_NEWNS)
    process.set_dumpable(False)  # not before an ordinary user has written its own id maps
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    state: State = {}  # type: ignore[typeddict-item]
    setup = Setup(spec, container_id="", bundle=bundle, rootfs=rootfs, proc=Proc.new(), state=state)
    setup.privileged = not ordinary and not idmap.in_user_namespace()
    spaces = UserNamespaces()
    users_fd = -1
    try:
        if uids and not ordinary:
            spaces.begin(uids, gids)
            users_fd = spaces.open(uids, gids)
        _attach(setup, root_mounts, users_fd, alone=alone)
    finally:
        spaces.close()
        setup.proc.close()
    hide()  # before the user namespace is entered: it may mount nothing here
    if users_fd >= 0:
        os.setgroups(())
        setns(users_fd, CLONE_NEWUSER)
        os.close(users_fd)
    root, setup.root = setup.inside, None
    _settle(own_users=users_fd >= 0)
    return root


def hide() -> None:
    """Make an empty read-only file system, mounted nowhere, this process's root and working directory."""
    context_fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_create(context_fd)
        nowhere_fd = mount.fsmount(context_fd, _HARMLESS)
    finally:
        os.close(context_fd)
    os.fchdir(nowhere_fd)
    os.chroot(".")
    os.close(nowhere_fd)


def give_up_powers() -> None:
    """Keep the capabilities that files need, and never gain anything again."""
    process.set_no_new_privs()
    process.set_dumpable(False)
    rlimits.set("RLIMIT_CORE", 0, 0)
    keep = caps.get().permitted & caps.mask(_CAPABILITIES)
    caps.set(keep, keep, 0)


def more_files(wanted: int) -> None:
    """Let this process have up to `wanted` open files, as far as it may."""
    soft, hard = rlimits.get("RLIMIT_NOFILE")
    rlimits.set("RLIMIT_NOFILE", max(soft, min(wanted, hard)), hard)


def _settle(*, own_users: bool) -> None:
    if own_users:
        process.setresgid(0, 0, 0)
        process.setresuid(0, 0, 0)
    give_up_powers()


def _attach(setup: Setup, root_mounts: Sequence[Mount], users_fd: int, *, alone: bool) -> None:
    layers = Layers(root_mounts, setup.bundle)
    binds = [] if alone else _binds(setup)
    for request in (*layers.requests, *binds):
        if request.options.idmap or request.options.recursive_idmap:
            setup.fds[f"userns:{request.key}"] = users_fd
    if setup.privileged:
        for step in layers.prepare():
            step.run(setup)
    for step in layers.attach():
        step.run(setup)
    for request in binds:
        try:
            rootfs_mounts.perform(setup, request)
        except OSError as problem:
            reason = os.strerror(problem.errno or 0).lower()
            raise InvalidArgument(f"{request.title}: {reason}") from None
    if setup.spec["root"].get("readonly"):
        mount.mount_setattr(setup.inside.fd, "", attr_set=mount.MOUNT_ATTR_RDONLY)


def _binds(setup: Setup) -> list[rootfs_mounts.Request]:
    """Volumes, directories of the host and the engine's files; what the kernel shows is there only while it runs."""
    found = []
    for index, entry in enumerate(setup.spec.get("mounts") or []):
        request = rootfs_mounts.Request(entry, f"mounts[{index}]", setup.bundle)
        place = request.destination
        kernels = any(place == one or place.startswith(f"{one}/") for one in _KERNEL_PLACES)
        if request.options.bind and not request.options.remount and not kernels:
            found.append(request)
    return found


def _id_map(uids: Sequence[LinuxIDMapping], gids: Sequence[LinuxIDMapping]) -> idmap.IdMap:
    tools = idmap.id_map().tools if len(uids) > 1 or uids[0]["size"] > 1 else ()
    return idmap.IdMap(_ranges(uids), _ranges(gids), tools)


def _ranges(mappings: Sequence[LinuxIDMapping]) -> tuple[tuple[int, int, int], ...]:
    return tuple((entry["containerID"], entry["hostID"], entry["size"]) for entry in mappings)
