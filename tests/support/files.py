"""Private directories for tests, and removing a tree without ever entering a mount."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hutch-tests")


def remove_tree(path: str) -> None:
    """Remove everything below `path` and `path` itself, by descriptors, on one file system only.

    Raises:
        OSError: EBUSY where something is mounted below: that is a leak, and what is mounted stays whole.
    """
    if points := mounts_below(path):
        raise OSError(errno.EBUSY, "something is still mounted here", points[0])
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
    if status.st_dev != device:
        raise OSError(errno.EBUSY, "another file system is mounted here", path)
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


def mounts_below(path: str) -> list[str]:
    """The mount points at and below `path` in this mount namespace, the innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return [point for point in reversed(points) if point == path or point.startswith(f"{path}/")]


def unmount_below(path: str) -> None:
    """Unmount what daemons of others leave mounted below their directories (not what a test is to find)."""
    for point in mounts_below(path):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


@contextlib.contextmanager
def private_directory(prefix: str, mode: int = 0o700) -> Iterator[str]:
    """A new directory in /var/tmp (a real file system: overlay works on it), removed at the end."""
    path = tempfile.mkdtemp(prefix=f"hutch-{prefix}-", dir="/var/tmp")
    try:
        os.chmod(path, mode)
        yield path
    finally:
        remove_tree(path)
