"""What `os` lacks for files and the file systems they lie on."""

from __future__ import annotations

import errno
import os

from hutch.linux.abi import NR, RENAME_EXCHANGE, RENAME_NOREPLACE
from hutch.linux.libc import error, libc, syscall


def syncfs(fd: int) -> None:
    """Write the file system that `fd` lies on to its disk, and wait.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT: something was lost since `fd` was opened (Linux 5.8).
    """
    if libc.syncfs(fd):
        raise error()


def rename_new(from_fd: int, name: str | bytes, to_fd: int, new_name: str | bytes) -> None:
    """Rename without ever replacing: renameat2(RENAME_NOREPLACE).

    Args:
        from_fd: directory that `name` is in.
        name: single component, like `new_name`.
        to_fd: directory that it goes to.
        new_name: what it is called there.

    Raises:
        OSError: EEXIST (there is one already), EINVAL (the file system cannot), and those of rename(2).
    """
    syscall(NR.renameat2, from_fd, name, to_fd, new_name, RENAME_NOREPLACE, path=name)


def private_directory(path: str) -> None:
    """Make a directory of mode 0700 unless it is there, with its parents.

    On a read-only file system it stays missing: who only reads does without it, and who writes is told soon enough.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as problem:
        if problem.errno != errno.EROFS:
            raise


def exchange(from_fd: int, name: str | bytes, to_fd: int, other: str | bytes) -> None:
    """Let two names change places, in one step: renameat2(RENAME_EXCHANGE).

    Args:
        from_fd: the directory of the one.
        name: its last component.
        to_fd: the directory of the other, on the same file system.
        other: its last component.

    Raises:
        OSError: ENOENT, EXDEV, EINVAL (the file system cannot).
    """
    syscall(NR.renameat2, from_fd, name, to_fd, other, RENAME_EXCHANGE, path=name)
