"""Extended attributes by descriptor, and of what cannot be opened through its directory's descriptor.

The `*_at` calls never follow the last name: they serve symbolic links, devices and FIFOs. They are
the system calls of Linux 6.13, or before that the l* calls on /proc/self/fd/<dirfd>/<name>. The
kernel bounds a value to 64 KiB and the list of names likewise.
"""

from __future__ import annotations

import errno
import os
from ctypes import addressof, byref, create_string_buffer, sizeof

from hutch.linux.abi import AT_SYMLINK_NOFOLLOW, NR, PROC_SUPER_MAGIC, XattrArgs
from hutch.linux.libc import syscall
from hutch.linux.paths import filesystem_type

CREATE, REPLACE = 1, 2
_MAX = 65536  # XATTR_SIZE_MAX and XATTR_LIST_MAX


def fget(fd: int, name: str | bytes) -> bytes:
    """A value; ENODATA if there is none. `fd` is not O_PATH."""
    return os.getxattr(fd, name)


def fset(fd: int, name: str | bytes, value: bytes, flags: int = 0) -> None:
    """Set a value; CREATE and REPLACE insist on the name being new or not. `fd` is not O_PATH."""
    os.setxattr(fd, name, value, flags)


def flist(fd: int) -> list[bytes]:
    """The names, those the caller may see. `fd` is not O_PATH."""
    return [os.fsencode(name) for name in os.listxattr(fd)]


def fremove(fd: int, name: str | bytes) -> None:
    """Remove a value; ENODATA if there is none. `fd` is not O_PATH."""
    os.removexattr(fd, name)


def get_at(dirfd: int, filename: str | bytes, name: str | bytes) -> bytes:
    """A value of the entry `filename` of a directory.

    Args:
        dirfd: of the directory; O_PATH will do.
        filename: one component, not followed.
        name: of the attribute, with its namespace ("user.x").

    Raises:
        OSError: ENODATA, EOPNOTSUPP, EINVAL (`filename` holds a slash), with `filename`.
    """
    buffer = create_string_buffer(_MAX)
    args = XattrArgs(addressof(buffer), _MAX, 0)
    try:
        size = _at(NR.getxattrat, dirfd, filename, name, byref(args), sizeof(args))
    except NotImplementedError:
        return os.getxattr(_through_proc(dirfd, filename), name, follow_symlinks=False)
    return buffer.raw[:size]


def set_at(dirfd: int, filename: str | bytes, name: str | bytes, value: bytes, flags: int = 0) -> None:
    """Set a value of the entry `filename` of a directory, as get_at."""
    if len(value) > _MAX:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), filename)
    buffer = create_string_buffer(value, len(value) or 1)
    args = XattrArgs(addressof(buffer), len(value), flags)
    try:
        _at(NR.setxattrat, dirfd, filename, name, byref(args), sizeof(args))
    except NotImplementedError:
        os.setxattr(_through_proc(dirfd, filename), name, value, flags, follow_symlinks=False)


def list_at(dirfd: int, filename: str | bytes) -> list[bytes]:
    """The names that the entry `filename` of a directory has, as get_at."""
    buffer = create_string_buffer(_MAX)
    try:
        size = _at(NR.listxattrat, dirfd, filename, buffer, _MAX)
    except NotImplementedError:
        found = os.listxattr(_through_proc(dirfd, filename), follow_symlinks=False)
        return [os.fsencode(name) for name in found]
    return buffer.raw[:size].split(b"\0")[:-1]


def remove_at(dirfd: int, filename: str | bytes, name: str | bytes) -> None:
    """Remove a value of the entry `filename` of a directory, as get_at."""
    try:
        _at(NR.removexattrat, dirfd, filename, name)
    except NotImplementedError:
        os.removexattr(_through_proc(dirfd, filename), name, follow_symlinks=False)


def _at(number: int, dirfd: int, filename: str | bytes, *args: object) -> int:
    """One of the *xattrat calls; NotImplementedError where the kernel lacks them."""
    if not filename or b"/" in os.fsencode(filename):
        raise OSError(errno.EINVAL, "not a single name", filename)
    try:
        return syscall(number, dirfd, filename, AT_SYMLINK_NOFOLLOW, *args, path=filename)
    except OSError as problem:
        if problem.errno != errno.ENOSYS:
            raise
    raise NotImplementedError


def _through_proc(dirfd: int, filename: str | bytes) -> bytes:
    fds_fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if filesystem_type(fds_fd) != PROC_SUPER_MAGIC:
            raise OSError(errno.EXDEV, "not on procfs", "/proc/self/fd")
    finally:
        os.close(fds_fd)
    return b"/proc/self/fd/%d/%s" % (dirfd, os.fsencode(filename))
