"""Files of a container: in, out, what has changed, all of them, and an image of them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hutch.engine import copying
from hutch.engine.containers import ContainerDirectory
from hutch.engine.engine import Engine
from hutch.engine.inside import Inside
from hutch.errors import InvalidArgument, OutputTooLarge
from hutch.image.layer import REGULAR, TarReader
from hutch.image.tarwriter import TarWriter
from hutch.library.handle import Handle
from hutch.library.images import Image
from hutch.library.streams import warn

FILE_LIMIT = 1 << 30
"""Bytes of a file that `get` keeps in memory, unless it is told otherwise."""


class Files(Handle):
    """The part of `Container` that is about files."""

    def put(
        self, path: str, data: bytes | bytearray | memoryview | str | os.PathLike[str], *, mode: int = 0o644
    ) -> None:
        """Write a file into the container, running or not.

        Args:
            path: in the container; its directory is there. A directory, with a path of the host's: into it.
            data: the content; or, as str or Path, a file or directory of the host to copy, as `hutch cp` does.
            mode: permission bits of a file from bytes, which is root's in the container.

        Raises:
            NotFound: no such directory.
            InvalidArgument: a directory is in the way, or it is read-only there.
        """
        with self._directory() as directory:
            if isinstance(data, (str, os.PathLike)):
                from hutch.engine.transfer import to_container

                to_container(self._engine, directory, os.fspath(data), path, follow=False, keep_ids=False)
                return
            if path.endswith("/"):
                raise InvalidArgument(f"put {path}: give the file's name")
            _put_bytes(self._engine, directory, path, bytes(data), mode)

    def get(self, path: str, to: str | os.PathLike[str] | None = None, *, limit: int = FILE_LIMIT) -> bytes:
        """Read a file of the container, running or not; or copy a file or directory to the host.

        Args:
            path: in the container; links are followed inside it.
            to: where to copy it on the host, as `hutch cp` does; then what comes back is empty.
            limit: most bytes to keep in memory.

        Raises:
            NotFound: no such file.
            InvalidArgument: not a regular file.
            OutputTooLarge: it is larger than `limit`.
        """
        with self._directory() as directory:
            if to is not None:
                from hutch.engine.transfer import to_host

                to_host(self._engine, directory, path, os.fspath(to), follow=True, keep_ids=False)
                return b""
            return _content(self._engine, directory, path, limit)

    def put_archive(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Extract a tar, compressed or not, into a directory of the container that is there.

        Raises:
            NotFound: no such directory.
            InvalidLayer: the archive is malformed.
        """
        chunks = [bytes(data)] if isinstance(data, (bytes, bytearray, memoryview)) else data
        with self._directory() as directory:
            copying.copy_in(self._engine, directory, path, chunks)

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        """A tar of a path and all below it, in chunks, and what the path is: name, size, mode, mtime, linkTarget.

        Raises:
            NotFound: no such file.
        """
        directory = self._directory()
        try:
            stream = copying.copy_out(self._engine, directory, path)
        except BaseException:
            directory.close()
            raise
        found = stream.stat
        assert found is not None
        described = {
            "name": os.fsdecode(found.name),
            "size": found.size,
            "mode": found.mode,
            "mtime": found.mtime_nanos / 1e9,
            "linkTarget": os.fsdecode(found.link),
        }
        return _Chunks(directory, stream), described

    def export(self) -> Iterator[bytes]:
        """A tar of its file system without volumes, in chunks."""
        directory = self._directory()
        try:
            return _Chunks(directory, copying.export(self._engine, directory))
        except BaseException:
            directory.close()
            raise

    def diff(self) -> list[dict[str, Any]]:
        """What it changed: ``Path``, and ``Kind`` 0 for changed, 1 for added, 2 for deleted."""
        from hutch.engine.changes import diff

        with self._directory() as directory:
            changes = diff(self._engine, directory)
        return [{"Path": os.fsdecode(change.path), "Kind": "CAD".index(change.kind)} for change in changes]

    def commit(
        self,
        repository: str | None = None,
        tag: str | None = None,
        *,
        message: str = "",
        author: str = "",
        pause: bool | None = None,
        changes: Sequence[str] = (),
    ) -> Image:
        """Make an image of what it changed.

        Args:
            repository: name of the image; None for none.
            tag: of that name.
            message: for the image's history.
            author: the same.
            pause: let it stand still meanwhile; None does so where the host can.
            changes: Dockerfile instructions, such as ``CMD ["sh"]``.
        """
        from hutch.engine.commit import commit
        from hutch.image.reference import Reference

        reference = None
        if repository:
            text = f"{repository}:{tag}" if tag else repository
            reference = Reference.parse(text, default_domain=self._engine.registries.default).with_default_tag()
        with self._directory() as directory:
            image, notes = commit(
                self._engine, directory, reference, author=author, message=message, changes=changes, pause=pause
            )
        for text in notes:
            warn(f"left out: {text}")
        return Image(self._engine, image)


class _Chunks(Iterator[bytes]):
    """A stream's chunks; it and the container's directory are closed at the end, or when nobody wants them."""

    def __init__(self, directory: ContainerDirectory, stream: Any) -> None:
        self._directory, self._stream = directory, stream

    def __next__(self) -> bytes:
        try:
            chunk: bytes = self._stream.read()
        except BaseException:
            self.close()
            raise
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Let go."""
        self._stream.close()
        self._directory.close()

    def __del__(self) -> None:
        self.close()


def _put_bytes(engine: Engine, directory: ContainerDirectory, path: str, data: bytes, mode: int) -> None:
    head, name = os.path.split("/" + path.lstrip("/"))
    source_fd = os.memfd_create("hutch-put", os.MFD_CLOEXEC)
    try:
        archive_fd = os.memfd_create("hutch-put", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(source_fd, view) :]
            os.lseek(source_fd, 0, os.SEEK_SET)
            tar = TarWriter(archive_fd)
            size = len(data)
            tar.entry(os.fsencode(name), REGULAR, mode=mode & 0o7777, mtime_nanos=time.time_ns(), size=size)
            tar.copy(source_fd, size)
            tar.pad(size)
            tar.finish()
            os.lseek(archive_fd, 0, os.SEEK_SET)
            copying.copy_in(engine, directory, head, archive_fd)
        finally:
            os.close(archive_fd)
    finally:
        os.close(source_fd)


def _content(engine: Engine, directory: ContainerDirectory, path: str, limit: int) -> bytes:
    wanted = copying.clean(path)
    with Inside(engine, directory) as files:
        found = copying.stat_in(files, directory, wanted)
        if stat.S_ISLNK(found.mode):
            wanted = found.link
            found = copying.stat_in(files, directory, wanted)
        if not stat.S_ISREG(found.mode):
            raise InvalidArgument(f"get {path}: not a regular file", hint="get_archive reads directories")
        archive = TarReader(files.read(wanted, b"file").read)
        entry = next(archive)
        if entry.size > limit:
            raise OutputTooLarge(f"{path}: larger than {limit} bytes")
        data = archive.read(limit)
    if entry.sparse is None:
        return data
    whole, position = bytearray(entry.size), 0
    for offset, size in entry.sparse:
        whole[offset : offset + size] = data[position : position + size]
        position += size
    return bytes(whole)
