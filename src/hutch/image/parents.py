"""The directories of a layer that is being unpacked: resolved once, held open, finished at the end.

A directory is made 0700 and gets its mode, times and attributes when everything is in it: entries then neither
disturb its mtime nor inherit from its setgid bit or default ACL, and a read-only one can be filled by its owner.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidLayer
from hutch.linux.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from hutch.snapshot.tree import copy_node
from hutch.snapshot.whiteouts import Whiteouts, is_device_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.image.layer import Entry
    from hutch.image.limits import Quota
    from hutch.snapshot.whiteouts import LowerLayers

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOFOLLOW = _DIRECTORY | os.O_NOFOLLOW
_HELD_MAX = 128
_LINKS_MAX = 40
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class _Pending:
    """Metadata that a directory gets at the end; one that no layer lists is of the epoch, the same each time."""

    __slots__ = ("atime_nanos", "inode", "mode", "mtime_nanos", "xattrs")

    def __init__(self, inode: int, mode: int, mtime_nanos: int, atime_nanos: int | None) -> None:
        self.inode = inode
        self.mode = mode
        self.mtime_nanos = mtime_nanos
        self.atime_nanos = atime_nanos
        self.xattrs: dict[bytes, bytes] | None = None


class Parents:
    """Descriptors of directories by normalised path (bytes, b"" for the root). All are its own; do not close them.

    A descriptor it returns is good until the next call of `get`, `find` or `copy_up`.
    """

    def __init__(self, root_fd: int, whiteouts: Whiteouts, lower: LowerLayers, quota: Quota) -> None:
        self._root_fd = root_fd
        self._whiteouts = whiteouts
        self._lower = lower
        self._quota = quota
        self._held: dict[bytes, int] = {}
        self._lingering = -1
        self._pending: dict[bytes, _Pending] = {}

    def get(self, path: bytes) -> int:
        """The directory `path`, made if it is missing, symbolic links followed inside the root."""
        fd = self._held.get(path)
        if fd is not None:
            return fd
        try:
            fd = self._open(path)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make(path)
        return self._hold(path, fd)

    def find(self, path: bytes) -> int:
        """The directory `path`, or -1 if this layer has none there."""
        fd = self._held.get(path)
        if fd is not None:
            return fd
        try:
            return self._hold(path, self._open(path))
        except OSError as problem:
            if problem.errno in _LOST:
                return -1
            raise

    def keep(self, path: bytes, fd: int, entry: Entry) -> int:
        """Take over the descriptor of a directory that an entry describes; returns it."""
        pending = _Pending(os.fstat(fd).st_ino, entry.mode & 0o7777, entry.mtime_nanos, entry.atime_nanos)
        pending.xattrs = entry.xattrs
        self._pending.pop(path, None)
        self._pending[path] = pending
        old = self._held.pop(path, -1)
        if old >= 0:
            os.close(old)
        return self._hold(path, fd)

    def forget(self, in_use: int = -1) -> None:
        """Drop every descriptor: a link or a directory goes, and paths may mean something else from now on.

        Args:
            in_use: one that the caller still works with; it is closed at the next occasion.
        """
        if self._lingering >= 0:
            os.close(self._lingering)
            self._lingering = -1
        for fd in self._held.values():
            if fd == in_use:
                self._lingering = fd
            else:
                os.close(fd)
        self._held.clear()

    def close(self) -> None:
        """Close all descriptors."""
        self.forget()

    def finish(self, set_xattrs: Callable[[int, dict[bytes, bytes]], None]) -> None:
        """Give every directory its mode, attributes and times, in the order of the archive."""
        if b"" not in self._pending:
            self._finish_root()
        for path, pending in self._pending.items():
            held = self._held.get(path)
            try:
                fd = self._open(path) if held is None else held
            except OSError as problem:
                if problem.errno in _LOST:
                    continue  # replaced by a later entry
                raise
            try:
                if os.fstat(fd).st_ino != pending.inode:
                    continue
                if pending.xattrs:
                    set_xattrs(fd, pending.xattrs)
                os.fchmod(fd, pending.mode)
                atime = pending.mtime_nanos if pending.atime_nanos is None else pending.atime_nanos
                os.utime(fd, ns=(atime, pending.mtime_nanos))
            finally:
                if held is None:
                    os.close(fd)

    def _finish_root(self) -> None:
        """A layer that does not list its root leaves it as the layer below has it, else 0755."""
        below = self._lower.root()
        pending = _Pending(os.fstat(self._root_fd).st_ino, 0o755, 0, 0)
        if below is not None:
            os.fchown(self._root_fd, below.st_uid, below.st_gid)
            pending.mode = stat.S_IMODE(below.st_mode)
            pending.mtime_nanos, pending.atime_nanos = below.st_mtime_ns, below.st_atime_ns
        self._pending[b""] = pending

    def copy_up(self, path: bytes) -> bool:
        """Copy a file that is not a directory from the layers below to the same path here; False if there is none."""
        found = self._lower.find(path)
        if found is None:
            return False
        lower_fd, name, status = found
        try:
            if stat.S_ISDIR(status.st_mode):
                raise InvalidLayer("a hard link to a directory")
            self._quota.count(status.st_blocks * 512)
            copy_node(lower_fd, self.get(path.rpartition(b"/")[0]), name, status)
        finally:
            os.close(lower_fd)
        return True

    def _open(self, path: bytes) -> int:
        return openat2(self._root_fd, path or b"/", _DIRECTORY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    def _hold(self, path: bytes, fd: int) -> int:
        if len(self._held) >= _HELD_MAX:
            self.forget()
        self._held[path] = fd
        return fd

    def _make(self, path: bytes) -> int:
        """Walk to `path` component by component, making what is missing."""
        todo = path.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        current = self._open(b"")
        try:
            while todo:
                component = todo.pop()
                if component in (b"", b"."):
                    continue
                if component == b"..":
                    del done[-1:]
                    current = self._reopen(current, done)
                    continue
                try:
                    following = os.open(component, _NOFOLLOW, dir_fd=current)
                except OSError as problem:
                    if problem.errno not in _LOST:
                        raise
                    target = self._link_target(current, component)
                    if target is not None:
                        links += 1
                        if links > _LINKS_MAX:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                        if target[:1] == b"/":
                            done.clear()
                            current = self._reopen(current, done)
                        todo += target.split(b"/")[::-1]
                        continue
                    following = self._make_one(current, component, b"/".join((*done, component)))
                os.close(current)
                current = following
                done.append(component)
        except BaseException:
            os.close(current)
            raise
        return current

    def _reopen(self, current: int, done: list[bytes]) -> int:
        fd = self._open(b"/".join(done))
        os.close(current)
        return fd

    def _link_target(self, dir_fd: int, name: bytes) -> bytes | None:
        """Where a symbolic link points; None if there is nothing, or a whiteout. Anything else is ENOTDIR."""
        try:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=dir_fd)
        if is_device_zero(status):
            return None
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _make_one(self, dir_fd: int, name: bytes, path: bytes) -> int:
        """Make a directory that the archive does not list: as the layers below have it, else 0755."""
        self._quota.count(0)
        opaque = self._whiteouts.hides(dir_fd, name)
        if opaque and self._whiteouts.form != "plain":
            os.unlink(name, dir_fd=dir_fd)
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        fd = os.open(name, _NOFOLLOW, dir_fd=dir_fd)
        try:
            if opaque:
                self._whiteouts.make_opaque(fd)
            pending = _Pending(os.fstat(fd).st_ino, 0o755, 0, 0)
            found = None if opaque else self._lower.find(path)
            if found is not None:
                lower_fd, last, status = found
                try:
                    if stat.S_ISDIR(status.st_mode):
                        os.fchown(fd, status.st_uid, status.st_gid)
                        pending.mode = stat.S_IMODE(status.st_mode)
                        pending.mtime_nanos, pending.atime_nanos = status.st_mtime_ns, status.st_atime_ns
                        pending.xattrs = _xattrs_of(lower_fd, last)
                finally:
                    os.close(lower_fd)
            self._pending[path] = pending
        except BaseException:
            os.close(fd)
            raise
        return fd


def _xattrs_of(dir_fd: int, name: bytes) -> dict[bytes, bytes]:
    fd = os.open(name, _NOFOLLOW, dir_fd=dir_fd)
    try:
        return {os.fsencode(key): os.getxattr(fd, key) for key in os.listxattr(fd) if ".overlay." not in key}
    finally:
        os.close(fd)
