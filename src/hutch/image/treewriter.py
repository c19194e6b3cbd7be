"""Turn files into tar entries, by descriptors alone: layers for `commit` and `build`, archives for `cp` and `export`.

The tree may be that of a running container, whose processes exchange files while it is read (security.md E1, E5). No
name is walked twice: each entry is opened without following links, looked at, and reopened through its descriptor.
A file that grows is cut at the size in its header, one that shrinks is padded with zeros. FIFOs and devices are never
opened. Sockets are left out: tar has none.

Imports only cheap modules.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.image.tarwriter import BLOCKDEV, CHAR, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK
from hutch.snapshot.whiteouts import OPAQUE_NAME, PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from hutch.image.tarwriter import TarWriter

    OwnerMap = Callable[[int, int], tuple[int, int]]
    """Ids as the kernel shows them → ids as they shall stand in the archive."""

_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX = 400
"""Descriptors are held for every level."""

_SPARSE_FROM = 1 << 20
"""Bytes of holes that make the sparse format worth its while: not every reader of tar knows it."""

_SEGMENTS_MAX = 10_000
_XATTRS_MAX = 256 << 10
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_NO_XATTRS = (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES)


class Opened:
    """One file or directory held by descriptor; a context manager that closes it.

    Attributes:
        fd: O_PATH, not a followed link.
        status: of exactly this file.
    """

    __slots__ = ("fd", "status")

    def __init__(self, dir_fd: int, name: bytes, *, own: bool = False) -> None:
        """Open `name`, a single component of a directory, which is closed if it is our `own`; OSError as open(2)."""
        try:
            self.fd = os.open(name, _ENTRY, dir_fd=dir_fd)
        finally:
            if own:
                os.close(dir_fd)
        self.status = os.fstat(self.fd)

    @property
    def is_directory(self) -> bool:
        """Whether there may be entries below it."""
        return stat.S_ISDIR(self.status.st_mode)

    def directory(self) -> int:
        """A readable descriptor of the directory, the caller's to close."""
        return os.open(".", _DIRECTORY, dir_fd=self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class TreeWriter:
    """Writes files of trees into one archive; a context manager.

    Args:
        tar: where entries go.
        owner: how owners are written; None as they are.
        files_fd: a descriptor of the caller's own /proc/self/fd, for one whose root is elsewhere by now.

    Attributes:
        notes: what was left out, and how often.
    """

    def __init__(self, tar: TarWriter, owner: OwnerMap | None = None, *, files_fd: int = -1) -> None:
        self.notes: dict[str, int] = {}
        self._tar = tar
        self._owner = owner or (lambda uid, gid: (uid, gid))
        self._links: dict[tuple[int, int], bytes] = {}
        self._files_fd = open_own_files() if files_fd < 0 else os.dup(files_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._files_fd)

    def tree(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Write an entry and everything below it, in the order of names.

        Args:
            dir_fd: the directory that holds it; O_PATH will do.
            name: a single component, or b"." for the directory itself.
            path: what the archive calls it.

        Raises:
            OSError: the entry itself cannot be read. What goes away below it meanwhile is left out.
        """
        self._tree(dir_fd, name, path, 0)

    def entry(self, opened: Opened, path: bytes) -> bool:
        """Write one entry without what is below it; False if tar cannot have it."""
        status = opened.status
        mode = status.st_mode
        if stat.S_ISSOCK(mode):
            return self._left_out("sockets")
        uid, gid = self._owner(status.st_uid, status.st_gid)
        if not stat.S_ISDIR(mode) and status.st_nlink > 1:
            first = self._links.get((status.st_dev, status.st_ino))
            if first is not None:
                self._tar.entry(path, LINK, mode=mode, uid=uid, gid=gid, mtime_nanos=status.st_mtime_ns, linkname=first)
                return True
        if stat.S_ISREG(mode):
            self._regular(opened, path, uid, gid)
        elif stat.S_ISDIR(mode):
            fd = opened.directory()
            try:
                xattrs = self._xattrs(fd)
            finally:
                os.close(fd)
            name = path + b"/" if not path.endswith(b"/") else path
            self._tar.entry(name, DIRECTORY, mode=mode, uid=uid, gid=gid, mtime_nanos=status.st_mtime_ns, xattrs=xattrs)
        else:
            self._node(opened, path, uid, gid)
        if not stat.S_ISDIR(mode) and status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = path
        return True

    def whiteout(self, path: bytes) -> None:
        """Say that `path` of the layers below is gone. OCI image-spec layer.md#whiteouts."""
        head, _, name = path.rpartition(b"/")
        self._tar.entry(head + b"/" + PREFIX + name if head else PREFIX + name, REGULAR, mode=0o600)

    def opaque(self, path: bytes) -> None:
        """Say that everything the layers below have in the directory `path` is gone."""
        self._tar.entry(path + b"/" + OPAQUE_NAME if path else OPAQUE_NAME, REGULAR, mode=0o600)

    def _tree(self, dir_fd: int, name: bytes, path: bytes, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, "directories nested too deep", os.fsdecode(path[:100]))
        with Opened(dir_fd, name) as opened:
            if not self.entry(opened, path) or not opened.is_directory:
                return
            below_fd = opened.directory()
            try:
                for child in sorted(os.fsencode(child) for child in os.listdir(below_fd)):
                    try:
                        self._tree(below_fd, child, path.rstrip(b"/") + b"/" + child, depth + 1)
                    except PermissionError:
                        self._left_out("files that the container's root may not read")
                    except OSError as problem:
                        if problem.errno not in _GONE:
                            raise
            finally:
                os.close(below_fd)

    def _regular(self, opened: Opened, path: bytes, uid: int, gid: int) -> None:
        fd = os.open(str(opened.fd), _FILE, dir_fd=self._files_fd)  # the very file that was looked at
        try:
            status = opened.status
            xattrs = self._xattrs(fd)
            size, mode, mtime = status.st_size, status.st_mode, status.st_mtime_ns
            segments = _segments(fd, status)
            if segments is None:
                self._tar.entry(path, REGULAR, mode=mode, uid=uid, gid=gid, mtime_nanos=mtime, size=size, xattrs=xattrs)
                self._tar.copy(fd, size)
                self._tar.pad(size)
                return
            self._tar.sparse(
                path, segments, real_size=size, mode=mode, uid=uid, gid=gid, mtime_nanos=mtime, xattrs=xattrs
            )
            for offset, length in segments:
                os.lseek(fd, offset, os.SEEK_SET)
                self._tar.copy(fd, length)
            self._tar.pad(sum(length for _, length in segments))
        finally:
            os.close(fd)

    def _node(self, opened: Opened, path: bytes, uid: int, gid: int) -> None:
        status = opened.status
        mode, linkname, device = status.st_mode, b"", (0, 0)
        if stat.S_ISLNK(mode):
            kind, linkname, mode = SYMLINK, os.readlink(b"", dir_fd=opened.fd), 0o777
        elif stat.S_ISFIFO(mode):
            kind = FIFO
        else:
            kind = CHAR if stat.S_ISCHR(mode) else BLOCKDEV
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._tar.entry(
            path, kind, mode=mode, uid=uid, gid=gid, mtime_nanos=status.st_mtime_ns, linkname=linkname, device=device
        )

    def _xattrs(self, fd: int) -> dict[bytes, bytes]:
        """The attributes that belong to the file: capabilities and the user's, never overlay's or the host's own."""
        found: dict[bytes, bytes] = {}
        try:
            names = os.listxattr(fd)
        except OSError as problem:
            if problem.errno in _NO_XATTRS:
                return found
            raise
        size = 0
        for text in names:
            name = os.fsencode(text)
            if name != b"security.capability" and (not name.startswith(b"user.") or name.startswith(b"user.overlay.")):
                continue
            try:
                value = os.getxattr(fd, name)
            except OSError as problem:
                if problem.errno in _NO_XATTRS:
                    continue
                raise
            if name == b"security.capability":
                value = self._capability(value)
            size += len(value)
            if size > _XATTRS_MAX:
                self._left_out("extended attributes of more than 256 KiB")
                break
            found[name] = value
        return found

    def _capability(self, value: bytes) -> bytes:
        """File capabilities that count for a namespace's root only, as that root sees them: for everybody."""
        if len(value) == 24 and value[3] == 3 and self._owner(int.from_bytes(value[20:], "little"), 0)[0] == 0:
            return value[:3] + b"\2" + value[4:20]
        return value

    def _left_out(self, what: str) -> bool:
        self.notes[what] = self.notes.get(what, 0) + 1
        return False


def open_own_files() -> int:
    """A descriptor of the directory with our own open files, through which one of them is reopened; to be closed."""
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _segments(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """(offset, size) of what is no hole; None if the file is better written whole."""
    size = status.st_size
    if size - status.st_blocks * 512 < _SPARSE_FROM:
        return None
    found: list[tuple[int, int]] = []
    position = 0
    while position < size and len(found) <= _SEGMENTS_MAX:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as problem:
            if problem.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        if start >= size:
            break
        found.append((start, position - start))
    os.lseek(fd, 0, os.SEEK_SET)
    return found if len(found) <= _SEGMENTS_MAX else None
