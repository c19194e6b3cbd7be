"""Docker's rules for `cp`: what the trailing slash, `/.` and what is already there mean for where files go.

    source a file       to a directory: into it · to a file: over it · to nothing: made under that name
    source a directory  to a directory: into it, or with `/.` its content · to nothing: made under that name
                        to a file: an error

Links at the end of a source are copied as links unless `follow`; a destination's are followed, in a container inside
it. Nothing is expanded: `*` is a name (security.md E3).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from hutch.engine.copying import clean, stat_in, uncompressed, write_into
from hutch.engine.inside import Inside
from hutch.errors import InvalidArgument, NotFound
from hutch.image.extract import Extractor
from hutch.image.layer import TarReader
from hutch.image.tarwriter import TarWriter
from hutch.image.treewriter import Opened, TreeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_LINKS_MAX = 40
_CHUNK = 256 << 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Copied:
    """What a copy came to.

    Attributes:
        size: bytes of the archive that carried it.
        notes: what was left out, and how often.
        target: where it went, for a container with links followed.
    """

    __slots__ = ("notes", "size", "target")

    def __init__(self, size: int, notes: dict[str, int], target: bytes) -> None:
        self.size, self.notes, self.target = size, notes, target


class _Target:
    """A destination: its path, with links followed, whether it is there, and whether it is a directory."""

    __slots__ = ("directory", "exists", "path")

    def __init__(self, path: bytes, *, exists: bool, directory: bool = False) -> None:
        self.path, self.exists, self.directory = path, exists, directory

    def place(self, name: bytes, *, directory: bool) -> tuple[bytes, bytes]:
        """The directory to extract into, and the name that the copy gets there.

        Args:
            name: of the source; b"." for a directory's content.
            directory: whether the source is one.
        """
        if self.exists and self.directory:
            return self.path, name
        if self.exists and directory:
            raise InvalidArgument("cannot copy directory")
        if not self.exists and not directory and self.path.endswith((b"/", b"/.")):
            raise NotFound("no such directory")
        head, last = _split(self.path)
        return head, last


def to_host(
    engine: Engine, directory: ContainerDirectory, source: str, target: str | int, *, follow: bool, keep_ids: bool
) -> Copied:
    """Copy out of a container.

    Args:
        engine: whose container.
        directory: the container.
        source: path in it.
        target: path on the host, which the caller trusts; or a descriptor that gets a tar.
        follow: follow `source` if it is a symbolic link.
        keep_ids: keep owners, set-id bits and file capabilities; otherwise files are the caller's own.

    Raises:
        NotFound: no source, or no directory to put it in.
        InvalidArgument: a directory would go over a file, or the reverse.
        OSError: as the host has it.
    """
    wanted = clean(source)
    goal = None if isinstance(target, int) else _host_target(target)
    with Inside(engine, directory) as files:
        found = stat_in(files, directory, wanted)
        name = b"." if found.name == b"/" else found.name
        if follow and stat.S_ISLNK(found.mode):
            wanted = found.link
            found = stat_in(files, directory, wanted)
        if goal is None:
            stream = files.read(wanted, name)
            for chunk in stream:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(int(target), view) :]
            return Copied(stream.size, dict(stream.answer["notes"]), b"-")
        head, last = goal.place(name, directory=stat.S_ISDIR(found.mode))
        place_fd = os.open(head, _DIRECTORY)
        try:
            stream = files.read(wanted, last)
            base = b"" if last == b"." else last
            extractor = Extractor(place_fd, host=True, keep_ids=keep_ids and os.geteuid() == 0, base=base)
            extractor.consume(TarReader(stream.read))
        finally:
            os.close(place_fd)
        return Copied(stream.size, {**stream.answer["notes"], **extractor.notes}, os.fsencode(str(target)))


def to_container(
    engine: Engine, directory: ContainerDirectory, source: str | int, target: str, *, follow: bool, keep_ids: bool
) -> Copied:
    """Copy into a container.

    Args:
        engine: whose container.
        directory: the container.
        source: path on the host, which the caller trusts; or descriptor of a tar, compressed or not, whose owners stay.
        target: path in the container; its links are followed there.
        follow: follow `source` if it is a symbolic link.
        keep_ids: keep owners; otherwise files are root's in the container.

    Raises:
        NotFound: no source, or no directory to put it in.
        InvalidArgument: a directory would go over a file or the reverse, or what is there is read-only.
        InvalidLayer: the tar is malformed.
        OSError: as the host has it.
    """
    with Inside(engine, directory) as files:
        goal = _container_target(files, directory, target)
        if isinstance(source, int):
            if not goal.directory:
                raise InvalidArgument(f'destination "{directory.record.name}:{target}" must be a directory')
            read = _Counted(uncompressed(source))
            notes = _written(files, directory, goal.path, read)
            return Copied(read.size, notes, goal.path)
        owner = None if keep_ids else (0, 0)
        with _Source(source, follow=follow) as local:
            head, last = goal.place(local.name, directory=local.opened.is_directory)
            size, notes = _send(files, directory, local, head, last, owner)
        return Copied(size, notes, goal.path)


class _Counted:
    """A reader that counts."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read, self.size = read, 0

    def __call__(self) -> bytes:
        chunk = self._read()
        self.size += len(chunk)
        return chunk


class _Source:
    """A path of the host's, opened; a context manager.

    Attributes:
        name: what the copy is called.
        opened: the file or directory.
    """

    def __init__(self, source: str, *, follow: bool) -> None:
        path = _absolute(os.fsencode(source))
        self.name = _split(path)[1]
        try:
            path = _followed(path) if follow else path
            if path.endswith((b"/", b"/.")):
                self.opened = Opened(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), b".", own=True)
            else:
                head_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                self.opened = Opened(head_fd, os.path.basename(path), own=True)
        except OSError as problem:
            reason = (problem.strerror or "").lower()
            kind = NotFound if isinstance(problem, FileNotFoundError) else InvalidArgument
            raise kind(f"{source}: {reason}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.__exit__()


def _send(
    files: Inside,
    directory: ContainerDirectory,
    local: _Source,
    head: bytes,
    last: bytes,
    owner: tuple[int, int] | None,
) -> tuple[int, dict[str, int]]:
    tar = TarWriter(files.begin_write(head, owner))
    notes: dict[str, int] = {}
    with TreeWriter(tar) as writer:
        try:
            if local.opened.is_directory:
                writer.tree(local.opened.fd, b".", last)
            else:
                writer.entry(local.opened, last)
            tar.finish()
        except BrokenPipeError:
            pass  # it has ended, and says why
        notes |= writer.notes
    try:
        return tar.size, {**notes, **files.end_write()}
    except (FileNotFoundError, NotADirectoryError):
        raise _no_place(directory, head) from None


def _written(files: Inside, directory: ContainerDirectory, path: bytes, read: _Counted) -> dict[str, int]:
    try:
        return write_into(files, path, read, None)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_place(directory, path) from None


def _no_place(directory: ContainerDirectory, path: bytes) -> NotFound:
    return NotFound(f"could not find the file {os.fsdecode(path)} in container {directory.record.name}")


def _container_target(files: Inside, directory: ContainerDirectory, target: str) -> _Target:
    path = clean(target)
    try:
        found = stat_in(files, directory, path)
        if stat.S_ISLNK(found.mode):
            path = found.link
            found = stat_in(files, directory, path)
    except NotFound:
        return _Target(path, exists=False)
    _check_kind(found.mode, f"{directory.record.name}:{target}")
    return _Target(path, exists=True, directory=stat.S_ISDIR(found.mode))


def _host_target(target: str) -> _Target:
    """The destination on the host; its last links are followed, also one that leads to nothing yet."""
    path = _absolute(os.fsencode(target))
    for _ in range(_LINKS_MAX):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            head = _split(path)[0]
            if not os.path.isdir(head):
                raise NotFound(f'invalid output path: directory "{os.fsdecode(head)}" does not exist') from None
            return _Target(path, exists=False)
        if not stat.S_ISLNK(status.st_mode):
            _check_kind(status.st_mode, target)
            return _Target(path, exists=True, directory=stat.S_ISDIR(status.st_mode))
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise InvalidArgument(f"too many symlinks in {target}")


def _followed(path: bytes) -> bytes:
    """Where a chain of symbolic links ends."""
    for _ in range(_LINKS_MAX):
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _check_kind(mode: int, what: str) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise InvalidArgument(f'destination "{what}" must be a directory or a regular file')


def _absolute(path: bytes) -> bytes:
    """An absolute path without `..`; a slash or `/.` at its end stays."""
    found = os.path.abspath(path)
    if path == b"." or path.endswith(b"/."):
        return found.rstrip(b"/") + b"/."
    return found + b"/" if path.endswith(b"/") and found != b"/" else found


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Directory and last name; of a path that ends in `/.` the name is b"."."""
    if path.endswith(b"/."):
        return path[:-2] or b"/", b"."
    head, name = posixpath.split(path.rstrip(b"/"))
    return head or b"/", name or b"."
