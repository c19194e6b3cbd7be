"""Filling a new tmpfs with the directory it hides (mount option tmpcopyup), by descriptor."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.proc import Proc

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MAX_DEPTH = 256
_CHUNK = 1 << 20


def copy_up(proc: Proc, source_fd: int, target_fd: int) -> None:
    """Copy the content of one directory into another, empty one; times, owners, modes and attributes with it.

    Args:
        proc: to reopen O_PATH descriptors.
        source_fd: the directory; its content is untrusted and may change.
        target_fd: root of a mount of our own, not attached yet.

    Raises:
        OSError: ENOSPC (the tmpfs is full), ELOOP (nested too deeply), and those of the calls.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY
    source, target = proc.reopen(source_fd, flags), proc.reopen(target_fd, flags)
    try:
        _copy_directory(source, target, 0)
    finally:
        os.close(source)
        os.close(target)


def _copy_directory(source: int, target: int, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise OSError(40, "nested too deeply")
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=source)
            copy = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=target)
            try:
                _copy_directory(inner, copy, depth + 1)
                _finish(inner, copy)
            finally:
                os.close(inner)
                os.close(copy)
        elif stat.S_ISREG(found.st_mode):
            _copy_file(source, target, name)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        elif not stat.S_ISSOCK(found.st_mode):
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    inner = os.open(name, _OPEN, dir_fd=source)
    try:
        if not stat.S_ISREG(os.fstat(inner).st_mode):
            raise OSError(116, "changed while it was copied", name)
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(copy, inner, None, _CHUNK):
                pass
            _finish(inner, copy)
        finally:
            os.close(copy)
    finally:
        os.close(inner)


def _finish(source: int, target: int) -> None:
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if name.startswith(("user.", "security.capability")):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (95, 1):  # EOPNOTSUPP, EPERM: tmpfs or the user namespace has no such attribute
                    raise
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
