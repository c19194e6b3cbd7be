"""Extract an archive into a tree that is in use: `cp`, into a container or onto the host.

What unpacks layers is used here with other rules, those of docker: what is in the way is replaced unless one of the
two is a directory, and then that is an error; directories keep what they hold; nothing is a whiteout.

    container   names are below `prefix`, and links on the way there are followed inside the container's root
    host        no link is followed, and nothing lands outside the directory (security.md E4)

Imports only cheap modules. Expects one thread that works in the tree.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidArgument, InvalidLayer
from hutch.image.apply import Applier, Owners, normalised, shown
from hutch.image.layer import DIRECTORY, LINK
from hutch.image.limits import Limits
from hutch.image.parents import Parents
from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from hutch.snapshot.whiteouts import LowerLayers, Whiteouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from hutch.image.layer import Entry, TarReader

_NO_LIMITS = Limits(bytes_max=1 << 60, inodes_max=1 << 60, ratio_from=1 << 60)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOFOLLOW = _DIRECTORY | os.O_NOFOLLOW
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_SET_ID = stat.S_ISUID | stat.S_ISGID


class Extractor(Applier):
    """Extracts one archive.

    Args:
        root_fd: the container's root, or the host's directory to extract into, readable; stays the caller's.
        prefix: where in the root entries go: a path without links; b"" for the root itself.
        owner: (uid, gid) that everything gets, instead of what the archive says.
        host: extract onto the host, where what a container made must not become more than plain files: device nodes
            are left out, and unless `keep_ids`, so are set-id bits and file capabilities.
        keep_ids: keep the owners of the archive.
        devices: whether device nodes can be made.
        base: what every name must begin with; b"" for anything.
    """

    exact_modes = True

    def __init__(
        self,
        root_fd: int,
        prefix: bytes = b"",
        *,
        owner: tuple[int, int] | None = None,
        host: bool = False,
        keep_ids: bool = False,
        devices: bool = True,
        base: bytes = b"",
    ) -> None:
        whiteouts = Whiteouts("trusted")
        super().__init__(root_fd, whiteouts, _NO_LIMITS, Owners(devices=devices))
        self._parents = _Places(root_fd, whiteouts, self.quota, strict=host)
        self._prefix, self._owner, self._base = prefix, owner, base
        self._host, self._plain = host, host and not keep_ids
        self._archive: TarReader | None = None

    def consume(self, archive: TarReader) -> None:
        """Extract it all, and read the stream to its end.

        Raises:
            InvalidArgument: a directory is in the way of something else, or the reverse.
            InvalidLayer: the archive is malformed or climbs out.
            OSError: the machine failed.
        """
        self._archive = archive
        self.run(self)  # type: ignore[arg-type]
        archive.drain()

    # What `run` reads from, with each entry as this extraction wants it

    def __iter__(self) -> Iterator[Entry]:
        if self._archive is None:
            return
        for entry in self._archive:
            name = normalised(entry.name)
            if self._base and name.partition(b"/")[0] != self._base:
                raise InvalidLayer(f"{shown(name)}: outside of what was asked for")
            if not name:
                continue  # the directory that everything goes into is there, and stays as it is
            entry.name = self._placed(name)
            if entry.type == LINK:
                entry.linkname = self._placed(normalised(entry.linkname))
            self._own(entry)
            self._current = entry
            yield entry

    def copy(self, fd: int, count: int) -> None:
        """Write bytes of the current entry to a file."""
        if self._archive is not None:
            self._archive.copy(fd, count)

    def _placed(self, name: bytes) -> bytes:
        return self._prefix + b"/" + name if self._prefix else name

    def _own(self, entry: Entry) -> None:
        if self._plain:
            entry.uid, entry.gid = self._owners.uid, self._owners.gid
            entry.mode &= ~_SET_ID
            if entry.xattrs:
                entry.xattrs.pop(b"security.capability", None)
        elif self._owner is not None:
            entry.uid, entry.gid = self._owner

    # Other rules than for layers

    def _whiteout(self, entry: Entry, head: bytes, name: bytes) -> bool:  # noqa: ARG002
        return False

    def _device(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:
        if self._host:
            self._note("device nodes are not copied to the host")
            return
        super()._device(entry, dir_fd, name, path)

    def _make_way(self, dir_fd: int, name: bytes) -> None:
        place = shown(self._current.name)
        if stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise InvalidArgument(f'cannot overwrite directory "{place}" with non-directory')
        if self._current.type == DIRECTORY:
            raise InvalidArgument(f'cannot overwrite non-directory "{place}" with directory')
        os.unlink(name, dir_fd=dir_fd)


class _Places(Parents):
    """The directories of a tree that has been there before: nothing is known of layers below."""

    def __init__(self, root_fd: int, whiteouts: Whiteouts, quota: object, *, strict: bool) -> None:
        super().__init__(root_fd, whiteouts, LowerLayers((), whiteouts), quota)  # type: ignore[arg-type]
        self._strict = strict

    def _open(self, path: bytes) -> int:
        if not self._strict:
            return super()._open(path)
        return openat2(self._root_fd, path or b".", _DIRECTORY, 0, _STRICT)

    def _finish_root(self) -> None:
        """The root was there."""

    def _link_target(self, dir_fd: int, name: bytes) -> bytes | None:
        target = super()._link_target(dir_fd, name)
        if target is not None and self._strict:
            raise OSError(errno.ELOOP, "a symbolic link leads on")
        return target

    def _make_one(self, dir_fd: int, name: bytes, path: bytes) -> int:  # noqa: ARG002
        os.mkdir(name, 0o755, dir_fd=dir_fd)
        return os.open(name, _NOFOLLOW, dir_fd=dir_fd)
