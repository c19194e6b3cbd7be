"""Files out of and into containers, as archives: what `hutch cp`, `hutch export` and the API stand on.

    copy_out    an archive of a path, whose names begin with the path's last component
    copy_in     an archive, extracted into a directory that is there
    export      an archive of the root, without volumes

On running containers the files are what its processes see, volumes and mounts included; on others the mounts are made
for the purpose, where nobody else sees them. Compression is undone here, never in the container (security.md B5).
"""

from __future__ import annotations

import os
import posixpath

from hutch.engine.inside import Inside, PathStat, Stream
from hutch.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_GONE = (FileNotFoundError, NotADirectoryError)


def stat_path(engine: Engine, directory: ContainerDirectory, path: str | bytes) -> PathStat:
    """What a path in the container is.

    Args:
        engine: whose container.
        directory: the container.
        path: from the root on, whether or not it begins with a slash; its last name is not followed, unless a slash
            or `/.` comes after it.

    Raises:
        NotFound: there is no such file.
    """
    wanted = clean(path)
    with Inside(engine, directory) as files:
        return stat_in(files, directory, wanted)


def copy_out(engine: Engine, directory: ContainerDirectory, path: str | bytes) -> Stream:
    """An uncompressed tar of a path and all below it; a context manager that ends the helper behind it.

    Its `stat` says what the path is.

    Args:
        engine: whose container.
        directory: the container.
        path: as in `stat_path`. Names in the archive begin with its last component; with `.` for `/` and `DIR/.`.

    Raises:
        NotFound: there is no such file.
    """
    wanted = clean(path)
    files = Inside(engine, directory)
    try:
        found = stat_in(files, directory, wanted)
        stream = files.read(wanted, b"." if found.name == b"/" else found.name, owner=files.close)
    except BaseException:
        files.close()
        raise
    stream.stat = found
    return stream


def copy_in(
    engine: Engine,
    directory: ContainerDirectory,
    path: str | bytes,
    archive: int | Iterable[bytes],
    *,
    owner: tuple[int, int] | None = None,
) -> dict[str, int]:
    """Extract a tar into a directory of the container.

    Args:
        engine: whose container.
        directory: the container.
        path: of a directory that is there; links are followed inside the container.
        archive: descriptor or chunks of a tar; compressed by gzip, zstd, bzip2, xz or not at all; untrusted. A
            descriptor stays the caller's.
        owner: uid and gid in the container that everything gets; None keeps the archive's.

    Returns:
        What was left out, and how often.

    Raises:
        NotFound: there is no such directory.
        InvalidArgument: it is no directory or is read-only, or a directory is in the way of a file, or the reverse.
        InvalidLayer: the archive is malformed.
    """
    wanted = clean(path)
    with Inside(engine, directory) as files:
        try:
            return write_into(files, wanted, uncompressed(archive), owner)
        except _GONE:
            raise _missing(directory, wanted) from None


def export(engine: Engine, directory: ContainerDirectory) -> Stream:
    """An uncompressed tar of the container's root, without what is mounted below it; a context manager."""
    files = Inside(engine, directory, alone=True)
    return files.read(b"/", b"./", owner=files.close)


def clean(path: str | bytes) -> bytes:
    """A path from the root on, without `..`; a slash or `/.` at its end stays, for it says something."""
    text = os.fsencode(path)
    found = posixpath.normpath(b"/" + text.lstrip(b"/"))
    if text.endswith(b"/.") or text == b".":
        return found.rstrip(b"/") + b"/."
    return found + b"/" if text.endswith(b"/") and found != b"/" else found


def stat_in(files: Inside, directory: ContainerDirectory, path: bytes) -> PathStat:
    """`Inside.stat`, with the error in docker's words."""
    try:
        return files.stat(path)
    except _GONE:
        raise _missing(directory, path) from None


def write_into(files: Inside, path: bytes, read: Callable[[], bytes], owner: tuple[int, int] | None) -> dict[str, int]:
    """Send an archive to where `Inside` extracts it.

    Args:
        files: of the container.
        path: the directory.
        read: returns the next bytes of the uncompressed tar, b"" at its end.
        owner: as in `copy_in`.
    """
    fd = files.begin_write(path, owner)
    try:
        while chunk := read():
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    except BrokenPipeError:
        pass  # it has ended, and says why
    return files.end_write()


def uncompressed(archive: int | Iterable[bytes]) -> Callable[[], bytes]:
    """The chunks of the uncompressed archive."""
    from hutch.image.decompress import reader
    from hutch.image.limits import Limits, Meter

    limits = Limits(bytes_max=1 << 60)
    if isinstance(archive, int):
        return reader(archive, "auto", limits, Meter(limits))
    chunks = iter(archive)
    return reader(lambda: next(chunks, b""), "auto", limits, Meter(limits))


def _missing(directory: ContainerDirectory, path: bytes) -> NotFound:
    shown = os.fsdecode(path)
    return NotFound(f"could not find the file {shown} in container {directory.record.name}")
