"""mount(2) of old, and the mount API by descriptor; one function per kernel operation.

*What* is mounted and in which order is decided elsewhere. A file system context keeps a log of why
it refused; those lines become part of the OSError's text, for "invalid argument" helps nobody.
Needs Linux 5.2 (fsopen), 5.12 (mount_setattr), 5.15 (MOVE_MOUNT_SET_GROUP).
"""

from __future__ import annotations

import errno
import os
from ctypes import byref, create_string_buffer, sizeof

from hutch.linux.abi import AT_EMPTY_PATH, AT_FDCWD, NR, MountAttr
from hutch.linux.libc import syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_POSIXACL = 1 << 16
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1

MOVE_MOUNT_F_SYMLINKS = 0x001
MOVE_MOUNT_F_AUTOMOUNTS = 0x002
MOVE_MOUNT_F_EMPTY_PATH = 0x004
MOVE_MOUNT_T_SYMLINKS = 0x010
MOVE_MOUNT_T_AUTOMOUNTS = 0x020
MOVE_MOUNT_T_EMPTY_PATH = 0x040
MOVE_MOUNT_SET_GROUP = 0x100
MOVE_MOUNT_BENEATH = 0x200

FSPICK_SYMLINK_NOFOLLOW = 2
FSPICK_NO_AUTOMOUNT = 4
_FSPICK_EMPTY_PATH = 8
_CLOEXEC = 1  # FSOPEN_, FSPICK_ and FSMOUNT_CLOEXEC

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70  # the mask: to change one of the three below, clear this
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_SET_FLAG, _SET_STRING, _SET_BINARY, _SET_PATH, _SET_PATH_EMPTY, _SET_FD = range(6)
_CMD_CREATE, _CMD_RECONFIGURE, _CMD_CREATE_EXCL = 6, 7, 8

_MAX_BINARY = 1 << 20  # the kernel's own bound
_MAX_MESSAGES = 16  # the kernel keeps eight


def mount(
    source: str | bytes | None,
    target: str | bytes,
    fstype: str | bytes | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """Mount, remount, bind or move in the old way. `target` is a path: it must be one that nobody else can change.

    Raises:
        OSError: mount(2)'s, with the target as filename.
    """
    syscall(NR.mount, source, target, fstype, flags, data, path=target)


def umount2(target: str | bytes, flags: int = 0) -> None:
    """Unmount what is mounted on `target`; MNT_* and UMOUNT_NOFOLLOW in `flags`."""
    syscall(NR.umount2, target, flags, path=target)


def pivot_root(new: str | bytes, old: str | bytes) -> None:
    """Make the mount at `new` the root and put the old root on `old`; both may be "."."""
    syscall(NR.pivot_root, new, old, path=new)


def context_log(fd: int) -> list[str]:
    """Drain the messages of a file system context: "e overlay: ...", with e, w or i for the level."""
    messages: list[str] = []
    while len(messages) < _MAX_MESSAGES:
        try:
            line = os.read(fd, 8192)
        except OSError:
            break  # ENODATA: no more
        if not line:
            break
        messages.append(os.fsdecode(line).rstrip("\n"))
    return messages


def _explained(problem: OSError, fd: int) -> OSError:
    reasons = [line[2:] for line in context_log(fd) if line[:2] in ("e ", "w ")]
    text = f"{problem.strerror} ({'; '.join(reasons)})" if reasons else problem.strerror
    return OSError(problem.errno, text, problem.filename)


def _fsconfig(
    fd: int, command: int, key: str | None = None, value: object = None, aux: int = 0, *, what: str | None = None
) -> None:
    try:
        syscall(NR.fsconfig, fd, command, key, value, aux, path=what)
    except OSError as problem:
        raise _explained(problem, fd) from None


def fsopen(fstype: str) -> int:
    """Open a context for a new mount of `fstype`. The descriptor is the caller's to close.

    Raises:
        OSError: ENODEV (no such file system), EPERM.
    """
    return syscall(NR.fsopen, fstype, _CLOEXEC, path=fstype)


def fspick(dirfd: int, path: str | bytes, flags: int = 0) -> int:
    """Open a context to reconfigure the file system mounted at `path`; "" is `dirfd` itself."""
    flags |= _CLOEXEC if path else _CLOEXEC | _FSPICK_EMPTY_PATH
    return syscall(NR.fspick, dirfd, path, flags, path=path or None)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set a parameter that has no value. Failures carry the context's log and `key` as filename."""
    _fsconfig(fd, _SET_FLAG, key, what=key)


def fsconfig_string(fd: int, key: str, value: str | bytes) -> None:
    """Set a parameter to a string; the kernel takes at most 255 bytes."""
    _fsconfig(fd, _SET_STRING, key, value, what=f"{key}={os.fsdecode(value)}")


def fsconfig_binary(fd: int, key: str, value: bytes) -> None:
    """Set a parameter to a blob of 1 byte to 1 MiB."""
    if not 0 < len(value) <= _MAX_BINARY:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), key)
    _fsconfig(fd, _SET_BINARY, key, create_string_buffer(value, len(value)), len(value), what=key)


def fsconfig_path(fd: int, key: str, path: str | bytes, dirfd: int = AT_FDCWD) -> None:
    """Set a parameter to the object at `path` below `dirfd`; "" is `dirfd` itself."""
    command = _SET_PATH if path else _SET_PATH_EMPTY
    _fsconfig(fd, command, key, path, dirfd, what=f"{key}={os.fsdecode(path)}")


def fsconfig_fd(fd: int, key: str, value_fd: int) -> None:
    """Set a parameter to an open descriptor (overlay's layers since Linux 6.13)."""
    _fsconfig(fd, _SET_FD, key, None, value_fd, what=key)


def fsconfig_create(fd: int, *, exclusive: bool = False) -> None:
    """Create the superblock that the parameters describe.

    Args:
        fd: from fsopen.
        exclusive: fail with EBUSY instead of sharing an existing superblock (Linux 6.6).
    """
    _fsconfig(fd, _CMD_CREATE_EXCL if exclusive else _CMD_CREATE)


def fsconfig_reconfigure(fd: int) -> None:
    """Apply the parameters to the superblock that fspick picked."""
    _fsconfig(fd, _CMD_RECONFIGURE)


def fsmount(fd: int, attrs: int = 0) -> int:
    """Make a detached mount of the created superblock, with MOUNT_ATTR_*.

    Returns:
        An O_PATH descriptor, the caller's to close: with it goes a mount that was never attached.
    """
    try:
        return syscall(NR.fsmount, fd, _CLOEXEC, attrs)
    except OSError as problem:
        raise _explained(problem, fd) from None


def open_tree(dirfd: int, path: str | bytes, flags: int = 0) -> int:
    """Open the mount or directory at `path`; "" is `dirfd` itself. O_PATH, the caller's to close.

    Args:
        dirfd: a descriptor, or abi.AT_FDCWD with a path the caller trusts.
        path: relative to `dirfd`; followed unless AT_SYMLINK_NOFOLLOW.
        flags: OPEN_TREE_CLONE makes a detached copy (a bind mount to be), with AT_RECURSIVE of the
            whole tree; AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT.
    """
    flags |= os.O_CLOEXEC if path else os.O_CLOEXEC | AT_EMPTY_PATH
    return syscall(NR.open_tree, dirfd, path, flags, path=path or None)


def move_mount(from_fd: int, from_path: str | bytes, to_fd: int, to_path: str | bytes, flags: int = 0) -> None:
    """Attach or move a mount. An empty path means the descriptor itself, which no race can redirect."""
    if not from_path:
        flags |= MOVE_MOUNT_F_EMPTY_PATH
    if not to_path:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    syscall(NR.move_mount, from_fd, from_path, to_fd, to_path, flags, path=to_path or None)


def set_group(from_fd: int, to_fd: int) -> None:
    """Make the private mount `to_fd` a peer or slave exactly as `from_fd` is (Linux 5.15)."""
    move_mount(from_fd, "", to_fd, "", MOVE_MOUNT_SET_GROUP)


def mount_setattr(
    fd: int,
    path: str | bytes,
    flags: int = 0,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = -1,
) -> None:
    """Change a mount, or with AT_RECURSIVE the whole tree: all of it or nothing.

    Args:
        fd: where `path` starts, or the mount itself.
        path: "" means `fd` itself.
        flags: AT_RECURSIVE, AT_SYMLINK_NOFOLLOW.
        attr_set: MOUNT_ATTR_* to set.
        attr_clr: those to clear; MOUNT_ATTR__ATIME to set another access time rule.
        propagation: MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE.
        userns_fd: map ids through this user namespace; only on a detached mount.

    Raises:
        OSError: EPERM (a locked flag), EINVAL (not a mount point, or already id-mapped).
    """
    if not path:
        flags |= AT_EMPTY_PATH
    if userns_fd >= 0:
        attr_set |= MOUNT_ATTR_IDMAP
    attr = MountAttr(attr_set=attr_set, attr_clr=attr_clr, propagation=propagation, userns_fd=max(userns_fd, 0))
    syscall(NR.mount_setattr, fd, path, flags, byref(attr), sizeof(attr), path=path or None)
