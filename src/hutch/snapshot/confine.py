"""What a helper process does to itself before it touches what others have written.

It gets mount and network namespaces of its own (and, for an ordinary user, a user namespace), keeps descriptors of
the directories it works on as detached copies of their mounts, and moves its root to an empty read-only tmpfs: then no
path leads anywhere, and `..` from a directory it holds ends at that directory. Every module must be imported by then.

Imports only cheap modules. Needs Linux 5.12 (mount_setattr).
"""

from __future__ import annotations

import os

from hutch.linux import caps, mount, process, rlimits
from hutch.linux.abi import AT_FDCWD
from hutch.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, unshare
from hutch.snapshot import idmap

_NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC
_HARMLESS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SYS_ADMIN",  # trusted.* attributes; every way to use it otherwise needs a path or a namespace
)
_SIGKILL = 9  # the module `signal` would cost more to import than all else here
_DATA_BYTES_MAX = 1 << 30
_FILES_MAX = 1024


def enter_namespaces(ids: idmap.IdMap | None) -> None:
    """Leave the caller's namespaces; `ids` for an ordinary user, None for root."""
    if ids is None:
        unshare(_NAMESPACES)
    else:
        idmap.enter(ids, _NAMESPACES)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)


def hold(path: str, *, writable: bool) -> int:
    """A readable descriptor of a detached copy of the mount at a trusted path, whose root is that directory."""
    tree_fd = mount.open_tree(AT_FDCWD, path, mount.OPEN_TREE_CLONE)  # stays open: closing it would end the mount
    attributes = _HARMLESS if writable else _HARMLESS | mount.MOUNT_ATTR_RDONLY
    mount.mount_setattr(tree_fd, "", attr_set=attributes)
    return os.open(".", _DIRECTORY, dir_fd=tree_fd)


def give_up_paths() -> None:
    """Make an empty read-only tmpfs the root, and let go of the file systems of the host."""
    context_fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_create(context_fd)
        root_fd = mount.fsmount(context_fd, mount.MOUNT_ATTR_RDONLY | _HARMLESS)
    finally:
        os.close(context_fd)
    try:
        mount.move_mount(root_fd, "", AT_FDCWD, "/proc")
        os.fchdir(root_fd)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")
    finally:
        os.close(root_fd)


def give_up_powers() -> None:
    """Drop every capability but those that make files, bound memory and descriptors, and never gain anything again."""
    process.set_pdeathsig(_SIGKILL)  # of the thread that waits for us
    process.set_no_new_privs()
    process.set_dumpable(False)
    rlimits.set("RLIMIT_CORE", 0, 0)
    rlimits.set("RLIMIT_DATA", _DATA_BYTES_MAX, _DATA_BYTES_MAX)
    rlimits.set("RLIMIT_NOFILE", _FILES_MAX, _FILES_MAX)
    keep = caps.get().permitted & caps.mask(_CAPABILITIES)
    caps.set(keep, keep, 0)
