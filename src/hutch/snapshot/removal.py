"""Delete a directory tree that others have written: never across a mount, never through a link, in bounded memory.

`shutil.rmtree` walks into a file system or a bind mount that is still mounted below, and deletes the user's data
(security.md E6). Here every directory is opened by openat2 with RESOLVE_NO_XDEV; what is mounted stays,
and is an error.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DEPTH_MAX = 64
"""Directories held open at once; deeper ones are moved up to the top first."""

_BATCH = 4096
"""Names held in memory at once."""


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Delete `name` in `dir_fd`, whatever it is. Nothing there is not an error.

    Args:
        dir_fd: a trusted directory.
        name: a single component, not followed if it is a symbolic link.

    Raises:
        OSError: EBUSY (something is mounted on it or below it; what is not has been deleted), and those
            of unlink(2) and rmdir(2). The filename says where.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except OSError as problem:
        if problem.errno not in (errno.EISDIR, errno.EPERM):
            raise
    else:
        return
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=dir_fd)  # EPERM, and the reason is not that it is a directory
        return
    top_fd = _open(dir_fd, name)
    try:
        _Emptier(top_fd, os.fstat(top_fd)).run()
    finally:
        os.close(top_fd)
    os.rmdir(name, dir_fd=dir_fd)


def empty_directory(dir_fd: int) -> None:
    """Delete everything in the directory `dir_fd` (not O_PATH), as remove_tree does."""
    _Emptier(dir_fd, os.fstat(dir_fd)).run()


class _Emptier:
    """Deletes what is below one directory, depth first, with a stack of descriptors of bounded height."""

    def __init__(self, top_fd: int, status: os.stat_result) -> None:
        self._top_fd = top_fd
        self._uid = status.st_uid
        self._moved = 0
        self._kept: OSError | None = None

    def run(self) -> None:
        self._empty(self._top_fd, 0)
        if self._kept is not None:
            raise self._kept

    def _empty(self, dir_fd: int, depth: int) -> None:
        kept: set[bytes] = set()
        while names := _some_names(dir_fd, kept):
            for name in names:
                try:
                    self._remove(dir_fd, name, depth)
                except FileNotFoundError:
                    continue
                except OSError as problem:
                    # Go on: as much as can be deleted is; a tree emptied but for a mount is easier to look at.
                    if len(kept) >= _BATCH:
                        raise
                    kept.add(name)
                    self._kept = self._kept or problem

    def _remove(self, dir_fd: int, name: bytes, depth: int) -> None:
        try:
            os.unlink(name, dir_fd=dir_fd)
            return
        except OSError as problem:
            if problem.errno == errno.EACCES and _make_writable(dir_fd):
                self._remove(dir_fd, name, depth)
                return
            if problem.errno not in (errno.EISDIR, errno.EPERM):
                raise
            if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                raise
        try:
            os.rmdir(name, dir_fd=dir_fd)
            return
        except OSError as problem:
            if problem.errno != errno.ENOTEMPTY:
                raise
        if depth >= _DEPTH_MAX:
            self._lift(dir_fd, name)
            return
        child_fd = _open(dir_fd, name)
        try:
            self._empty(child_fd, depth + 1)
        finally:
            os.close(child_fd)
        os.rmdir(name, dir_fd=dir_fd)

    def _lift(self, dir_fd: int, name: bytes) -> None:
        """Move a directory that is too deep to the top, whose loop will come to it."""
        os.close(_open(dir_fd, name))  # EBUSY if it is a mount
        while True:
            self._moved += 1
            try:
                os.stat(b".deep.%d" % self._moved, dir_fd=self._top_fd, follow_symlinks=False)
            except FileNotFoundError:
                break
        os.rename(name, b".deep.%d" % self._moved, src_dir_fd=dir_fd, dst_dir_fd=self._top_fd)


def _open(dir_fd: int, name: bytes) -> int:
    for attempt in (1, 2):
        try:
            return openat2(dir_fd, name, _DIRECTORY, 0, _RESOLVE)
        except OSError as problem:
            if problem.errno == errno.EXDEV:
                raise OSError(errno.EBUSY, "something is mounted there", os.fsdecode(name)) from None
            if problem.errno != errno.EACCES or attempt == 2:
                raise
            fd = openat2(dir_fd, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, _RESOLVE)
            try:
                os.chmod(f"/proc/self/fd/{fd}", 0o700)
            finally:
                os.close(fd)
    raise AssertionError("unreachable")


def _make_writable(dir_fd: int) -> bool:
    """Let the owner of a directory delete in it; False if it was not the mode that forbade it."""
    mode = stat.S_IMODE(os.fstat(dir_fd).st_mode)
    if mode & 0o700 == 0o700:
        return False
    os.fchmod(dir_fd, 0o700)
    return True


def _some_names(dir_fd: int, without: set[bytes]) -> list[bytes]:
    """Up to _BATCH names of a directory, read from its start."""
    names: list[bytes] = []
    with os.scandir(dir_fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if name not in without:
                names.append(name)
                if len(names) == _BATCH:
                    break
    return names
