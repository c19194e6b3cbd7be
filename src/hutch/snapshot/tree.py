"""Walk trees that others have written: what they take on disk, and a copy of merged layers.

Imports only cheap modules: the helper for ordinary users uses it.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from hutch.snapshot.removal import empty_directory, remove_tree
from hutch.snapshot.whiteouts import OPAQUE_NAME, PREFIX, Whiteouts, is_device_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_COPY_BYTES = 1 << 30
_DEPTH_MAX = 400
"""Descriptors are held for every level."""


def usage_of(path: str) -> tuple[int, int]:
    """(bytes allocated, inodes) of a tree, a file with several links counted once.

    Other mounts are left out, and so is what lies very deep.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        return _usage(fd, set(), 0)
    finally:
        os.close(fd)


def _usage(dir_fd: int, linked: set[tuple[int, int]], depth: int) -> tuple[int, int]:
    size = inodes = 0
    below: list[bytes] = []
    with os.scandir(dir_fd) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                below.append(os.fsencode(entry.name))
            elif status.st_nlink > 1:
                key = (status.st_dev, status.st_ino)
                if key in linked:
                    continue
                linked.add(key)
            size += status.st_blocks * 512
            inodes += 1
    for name in below if depth < _DEPTH_MAX else ():
        try:
            child_fd = openat2(dir_fd, name, _DIRECTORY, 0, _RESOLVE)
        except OSError:
            continue  # gone, or a mount
        try:
            more, count = _usage(child_fd, linked, depth + 1)
        finally:
            os.close(child_fd)
        size, inodes = size + more, inodes + count
    return size, inodes


def copy_merged(layer_fds: Sequence[int], forms: Sequence[str], target_fd: int) -> None:
    """Copy layers (base first) over one another into an empty directory, as overlay would show them merged.

    Args:
        layer_fds: readable descriptors of the layers' directories.
        forms: the form of each one's whiteouts.
        target_fd: readable descriptor of the directory to fill.
    """
    for layer_fd, form in zip(layer_fds, forms, strict=True):
        _Merge(Whiteouts(form), target_fd).directory(layer_fd, target_fd, b"", 0)


class _Merge:
    """One layer onto what the layers below it have left. Nobody else can reach the target."""

    def __init__(self, whiteouts: Whiteouts, top_fd: int) -> None:
        self._whiteouts = whiteouts
        self._top_fd = top_fd
        self._linked: dict[tuple[int, int], bytes] = {}

    def directory(self, source_fd: int, target_fd: int, path: bytes, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, "directories nested too deep", os.fsdecode(path))
        if self._whiteouts.is_opaque(source_fd):
            empty_directory(target_fd)
        plain = self._whiteouts.form == "plain"
        names = [os.fsencode(name) for name in os.listdir(source_fd)]
        if plain:
            for name in names:
                if name.startswith(PREFIX) and name != OPAQUE_NAME:
                    remove_tree(target_fd, name[len(PREFIX) :])
            names = [name for name in names if not name.startswith(PREFIX)]
        for name in names:
            status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source_fd, target_fd, name, path, depth)
            else:
                self._file(source_fd, target_fd, name, status, path)
        self._metadata(source_fd, target_fd)

    def _subdirectory(self, source_fd: int, target_fd: int, name: bytes, path: bytes, depth: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=target_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=target_fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=target_fd)
                os.mkdir(name, 0o700, dir_fd=target_fd)
        child_fd = openat2(source_fd, name, _DIRECTORY, 0, _RESOLVE)
        try:
            made_fd = openat2(target_fd, name, _DIRECTORY, 0, _RESOLVE)
            try:
                self.directory(child_fd, made_fd, path + name + b"/", depth + 1)
            finally:
                os.close(made_fd)
        finally:
            os.close(child_fd)

    def _file(self, source_fd: int, target_fd: int, name: bytes, status: os.stat_result, path: bytes) -> None:
        remove_tree(target_fd, name)
        if is_device_zero(status):
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._linked:
            first = self._linked[key]
            os.link(first, name, src_dir_fd=self._top_fd, dst_dir_fd=target_fd, follow_symlinks=False)
            return
        copy_node(source_fd, target_fd, name, status)
        if status.st_nlink > 1:
            self._linked[key] = path + name

    def _metadata(self, source_fd: int, target_fd: int) -> None:
        status = os.fstat(source_fd)
        os.fchown(target_fd, status.st_uid, status.st_gid)
        os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(target_fd):
            os.removexattr(target_fd, name)
        for name in os.listxattr(source_fd):
            if ".overlay." not in name:
                os.setxattr(target_fd, name, os.getxattr(source_fd, name))
        os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_node(from_fd: int, to_fd: int, name: bytes, status: os.stat_result) -> None:
    """Copy one file that is not a directory, with its metadata, into another directory under the same name.

    Args:
        from_fd: the directory it is in.
        to_fd: the directory it goes to.
        name: single component; must be free in the second directory.
        status: lstat of the original.
    """
    if stat.S_ISREG(status.st_mode):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=from_fd)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(name, flags, 0o600, dir_fd=to_fd)
            try:
                _copy_file(source, target, status)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=from_fd), name, dir_fd=to_fd)
    else:
        os.mknod(name, stat.S_IFMT(status.st_mode) | status.st_mode & 0o777, status.st_rdev, dir_fd=to_fd)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=to_fd, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=to_fd, follow_symlinks=False)


def _copy_some(source: int, target: int, size: int) -> int:
    """Copy from one file's position to another's, shared on disk where the file system can; the bytes copied."""
    try:
        return os.copy_file_range(source, target, size)
    except OSError as problem:
        if problem.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return os.sendfile(target, source, None, size)  # two kinds of file systems


def _copy_file(source: int, target: int, status: os.stat_result) -> None:
    """Content (holes stay holes), owner, mode, attributes and times."""
    offset, size = 0, status.st_size
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno != errno.ENXIO:
                raise
            break  # a hole up to the end
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            count = _copy_some(source, target, min(end - start, _COPY_BYTES))
            if not count:
                break
            start += count
        offset = max(end, offset + 1)
    os.ftruncate(target, size)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
