"""What `os` lacks for files and the file systems they lie on."""

from __future__ import annotations

from hutch.linux.libc import error, libc


def syncfs(fd: int) -> None:
    """Write the file system that `fd` lies on to its disk, and wait.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT: something was lost since `fd` was opened (Linux 5.8).
    """
    if libc.syncfs(fd):
        raise error()
