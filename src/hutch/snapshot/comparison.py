"""What a container changed in its root: its own directory compared with the layers below it.

With overlay the directory is what the container wrote (and copied up); with copies it is the whole tree. A file is
changed if its type, mode, owner, device number or file capabilities differ, or, unless it is a directory, its size or
time. The order is that of names, parents first, as `docker diff` lists them.

Everything is read by descriptor and no link is followed: the container may be running. Imports only cheap modules.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux import xattr
from hutch.snapshot.whiteouts import PREFIX, Whiteouts, is_device_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hutch.snapshot.whiteouts import LowerLayers

    OwnerMap = Callable[[int, int], tuple[int, int]]

ADDED, CHANGED, DELETED, SAME = "A", "C", "D", ""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX = 400
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_NO_XATTRS = (errno.ENODATA, errno.EOPNOTSUPP)


class Difference:
    """One path that differs, or one that leads to it.

    Attributes:
        kind: ADDED, CHANGED or DELETED; SAME only with `Comparison.everything`.
        path: below the root, without a slash in front; b"" is the root itself.
        dir_fd, name: where the entry is; open while the loop is at it. Not for DELETED.
        opaque: a directory that hides what the layers below have in theirs.
    """

    __slots__ = ("dir_fd", "kind", "name", "opaque", "path")

    def __init__(self, kind: str, path: bytes, dir_fd: int, name: bytes, *, opaque: bool = False) -> None:
        self.kind, self.path, self.dir_fd, self.name, self.opaque = kind, path, dir_fd, name, opaque


class Comparison:
    """One comparison.

    Args:
        top_fd: the container's own directory, readable; stays the caller's.
        lower: the layers below.
        whiteouts: the form in which the directory says what is gone.
        whole: it is the whole tree: what it lacks is gone.
        owner: ids on disk there → ids as the layers have them.
        mount_points: paths that are the engine's to make, and no change of the container's as long as they are empty.

    Attributes:
        everything: also tell of files that seem the same but were copied up: their content may differ.
    """

    def __init__(
        self,
        top_fd: int,
        lower: LowerLayers,
        whiteouts: Whiteouts,
        *,
        whole: bool = False,
        owner: OwnerMap | None = None,
        mount_points: Sequence[bytes] = (),
    ) -> None:
        self._top_fd, self._lower, self._whiteouts, self._whole = top_fd, lower, whiteouts, whole
        self._owner = owner or (lambda uid, gid: (uid, gid))
        self.everything = False
        self._points = frozenset(mount_points)
        self._above = frozenset(
            path[:slash] for path in mount_points for slash in range(len(path)) if path[slash : slash + 1] == b"/"
        )
        self._pending: list[Difference] = []

    def root_differs(self) -> bool:
        """Whether mode or owner of the root directory itself were changed, which no list of changes tells."""
        below = self._lower.root()
        return below is not None and self._differs(os.fstat(self._top_fd), below)

    def __iter__(self) -> Iterator[Difference]:
        """The differences; each is to be dealt with before the next is asked for."""
        self._pending.clear()
        yield from self._directory(self._top_fd, b"", known=self._lower.root() is not None, depth=0)

    def _directory(self, dir_fd: int, path: bytes, *, known: bool, depth: int) -> Iterator[Difference]:
        if depth > _DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, "directories nested too deep", os.fsdecode(path[:100]))
        names = {os.fsencode(name) for name in os.listdir(dir_fd)}
        missing: set[bytes] = set()
        if self._whiteouts.form == "plain":
            names = {name for name in names if not name.startswith(PREFIX)} if not self._whole else names
        if known and (self._whole or self._whiteouts.is_opaque(dir_fd)):
            missing = self._lower.names(path) - names
        for name in sorted(names | missing):
            below = path + b"/" + name if path else name
            if name in missing:
                yield from self._found(Difference(DELETED, below, -1, name))
                continue
            try:
                yield from self._entry(dir_fd, name, below, depth)
            except OSError as problem:
                if problem.errno not in _GONE:
                    raise

    def _entry(self, dir_fd: int, name: bytes, path: bytes, depth: int) -> Iterator[Difference]:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        found = self._lower.find(path)
        try:
            if is_device_zero(status):
                if found is not None:
                    yield from self._found(Difference(DELETED, path, -1, name))
                return
            kind = ADDED
            if found is not None:
                kind = CHANGED if self._differs(status, found[2], (dir_fd, name), found[:2]) else SAME
            old_directory = found is not None and stat.S_ISDIR(found[2].st_mode)
        finally:
            if found is not None:
                os.close(found[0])
        if not stat.S_ISDIR(status.st_mode):
            made = path in self._points and kind == ADDED and status.st_size == 0
            if not made and (kind or (self.everything and not self._whole)):
                yield from self._found(Difference(kind, path, dir_fd, name))
            return
        child_fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
        try:
            yield from self._subdirectory(child_fd, Difference(kind, path, dir_fd, name), old_directory, depth)
        finally:
            os.close(child_fd)

    def _subdirectory(
        self,
        child_fd: int,
        here: Difference,
        old_directory: bool,
        depth: int,
    ) -> Iterator[Difference]:
        here.opaque = old_directory and not self._whole and self._whiteouts.is_opaque(child_fd)
        # A directory that is the same is told of only once something in it is not; one on the way to a mount point too.
        engines = here.path in self._points or here.path in self._above
        same = here.kind == SAME and (engines or self._whole or not self.everything)
        waits = same or (here.kind == ADDED and engines)
        if not waits or here.opaque:
            yield from self._found(here)
        else:
            self._pending.append(here)
        yield from self._directory(child_fd, here.path, known=old_directory, depth=depth + 1)
        if self._pending and self._pending[-1] is here:
            self._pending.pop()

    def _found(self, difference: Difference) -> Iterator[Difference]:
        pending, self._pending = self._pending, []
        for parent in pending:
            parent.kind = parent.kind or CHANGED
            yield parent
        yield difference

    def _differs(
        self,
        new: os.stat_result,
        old: os.stat_result,
        new_place: tuple[int, bytes] | None = None,
        old_place: tuple[int, bytes] | None = None,
    ) -> bool:
        if new.st_mode != old.st_mode or self._owner(new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            return True
        if stat.S_ISDIR(new.st_mode):
            return False
        if stat.S_ISCHR(new.st_mode) or stat.S_ISBLK(new.st_mode):
            if new.st_rdev != old.st_rdev:
                return True
        elif new.st_size != old.st_size:
            return True
        if not _same_time(new.st_mtime_ns, old.st_mtime_ns):
            return True
        if new_place is None or old_place is None or not stat.S_ISREG(new.st_mode):
            return False
        return _capability(*new_place) != _capability(*old_place)


def _same_time(one: int, other: int) -> bool:
    """Archives may have cut the fraction off."""
    if one // 1_000_000_000 != other // 1_000_000_000:
        return False
    return one == other or not one % 1_000_000_000 or not other % 1_000_000_000


def _capability(dir_fd: int, name: bytes) -> bytes:
    """The rights in a file's capabilities, whoever's root they are for."""
    try:
        return xattr.get_at(dir_fd, name, "security.capability")[4:20]
    except OSError as problem:
        if problem.errno in _NO_XATTRS:
            return b""
        raise
