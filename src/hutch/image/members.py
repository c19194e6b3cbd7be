"""The files of an image archive, by name: of a tar stream, or of a directory.

Nothing of an archive becomes a path: members of a tar are spooled into numbered files of a private directory, and a
directory is read below its descriptor, no link followed (security.md D10: `index.json` or a blob that is a link to a
file of the host). Links between members of a tar, with which old versions of docker saved shared layers, are followed
by name.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import Protocol, Self

from hutch.errors import InvalidArgument, InvalidLayer
from hutch.image.apply import normalised, shown
from hutch.image.decompress import reader
from hutch.image.layer import DIRECTORY, LINK, REGULAR, SYMLINK, TarReader
from hutch.image.limits import Limits, Meter, Quota
from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

MEMBERS_MAX = 10_000
_LINKS_MAX = 8
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


class Members(Protocol):
    """Files by name. A context manager: afterwards nothing of them is left."""

    def open(self, name: str, *, follow: bool = False) -> int:
        """Open a member for reading; the caller closes the descriptor.

        Args:
            name: relative, untrusted.
            follow: through a link to another member.

        Raises:
            InvalidLayer: there is no such regular file.
        """

    def has(self, name: str) -> bool:
        """True if there is something of that name."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def members_of(source: str | int, spool: str, limits: Limits | None = None) -> Members:
    """The members of an archive.

    Args:
        source: path of an archive or a directory, or descriptor of a stream (which stays the caller's).
        spool: directory for what a stream holds; on the data root's file system, private.
        limits: against bombs.
    """
    if isinstance(source, int):
        return SpooledMembers(source, spool, limits or Limits())
    if os.path.isdir(source):
        return DirectoryMembers(source)
    try:
        archive_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise InvalidArgument(f"{source}: {(problem.strerror or '').lower()}") from None
    try:
        return SpooledMembers(archive_fd, spool, limits or Limits())
    finally:
        os.close(archive_fd)


def read_member(members: Members, name: str, limit: int) -> bytes:
    """A small member, whole; InvalidLayer if it has more than `limit` bytes."""
    with open(members.open(name), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InvalidLayer(f"archive: {shown(name.encode())}: {size} bytes, more than {limit}")
        return file.read(limit)


class DirectoryMembers:
    """The files of a directory."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def has(self, name: str) -> bool:
        """True if there is something of that name."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def open(self, name: str, *, follow: bool = False) -> int:  # noqa: ARG002
        """Open a regular file; `follow` changes nothing, no link is followed here."""
        try:
            fd = openat2(self._fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, 0, _RESOLVE)
        except OSError as problem:
            raise InvalidLayer(f"archive: {shown(name.encode())}: {(problem.strerror or '').lower()}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidLayer(f"archive: {shown(name.encode())}: not a regular file")
        return fd


class SpooledMembers:
    """The regular files of a tar stream, each in a file of its own."""

    def __init__(self, archive_fd: int, spool: str, limits: Limits) -> None:
        self._directory = f"{spool}/load-{os.urandom(8).hex()}"
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}
        os.makedirs(self._directory, mode=0o700)
        try:
            self._read(archive_fd, limits)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in os.listdir(self._directory):
            os.unlink(f"{self._directory}/{name}")
        os.rmdir(self._directory)

    def has(self, name: str) -> bool:
        """True if there is something of that name."""
        return name in self._files or name in self._links

    def open(self, name: str, *, follow: bool = False) -> int:
        """Open a member."""
        for _ in range(_LINKS_MAX if follow else 1):
            if name in self._files:
                return os.open(self._files[name], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            if not follow or name not in self._links:
                break
            name = self._links[name]
        what = "a link" if name in self._links else "no such file in it"
        raise InvalidLayer(f"archive: {shown(name.encode('utf-8', 'surrogateescape'))}: {what}")

    def _read(self, archive_fd: int, limits: Limits) -> None:
        tar = TarReader(reader(archive_fd, "auto", limits, Meter(limits)))
        quota = Quota(limits)
        for count, entry in enumerate(tar):
            if count >= MEMBERS_MAX:
                raise InvalidLayer(f"archive: more than {MEMBERS_MAX} members")
            quota.count(entry.size)
            name = os.fsdecode(normalised(entry.name))
            if entry.type == REGULAR and entry.sparse is None:
                path = f"{self._directory}/{count}"
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    tar.copy(fd, entry.size)
                finally:
                    os.close(fd)
                self._links.pop(name, None)
                self._files[name] = path
            elif entry.type in (SYMLINK, LINK):
                base = posixpath.dirname(name) if entry.type == SYMLINK else ""
                self._files.pop(name, None)
                self._links[name] = posixpath.normpath(posixpath.join(base, os.fsdecode(entry.linkname)))
            elif entry.type != DIRECTORY:
                raise InvalidLayer(f"archive: {shown(entry.name)}: neither a file nor a directory")
