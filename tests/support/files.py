"""Private directories for tests, and removing a tree without ever entering a mount."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hutch-tests")


def remove_tree(path: str) -> None:
    """Remove everything below `path` and `path` itself, by descriptors, on one file system only.

    Raises:
        OSError: EXDEV where something is mounted below: that is a leak, and what is mounted stays whole.
    """
    parent_fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove(parent_fd, os.path.basename(path), os.fstat(parent_fd).st_dev, path)
    finally:
        os.close(parent_fd)


def _remove(parent_fd: int, name: str, device: int, path: str) -> None:
    status = os.lstat(name, dir_fd=parent_fd)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent_fd)
        return
    if status.st_dev != device or os.path.ismount(path):
        raise OSError(18, "something is still mounted here", path)
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, directory, dir_fd=parent_fd)
    except PermissionError:  # an ordinary user's own directory of mode 0
        os.chmod(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, directory, dir_fd=parent_fd)
    try:
        if os.geteuid() != 0 and status.st_mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
        for entry in os.listdir(fd):
            _remove(fd, entry, device, f"{path}/{entry}")
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


@contextlib.contextmanager
def private_directory(prefix: str, mode: int = 0o700) -> Iterator[str]:
    """A new directory in /var/tmp (a real file system: overlay works on it), removed at the end."""
    path = tempfile.mkdtemp(prefix=f"hutch-{prefix}-", dir="/var/tmp")
    try:
        os.chmod(path, mode)
        yield path
    finally:
        remove_tree(path)
