"""Turn a compressed stream into chunks of the uncompressed one, bounded in memory and size.

gzip (several members, as pigz and estargz write them) by isal or, without it, zlib; zstd (several frames) by
zstandard; plain. Imports what a stream needs, no more, and all of it when the stream is opened: the unpacking child
has no file system afterwards.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidLayer, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.image.limits import Limits, Meter

CHUNK = 1 << 20
_READ = 256 << 10
_GZIP_WINDOW = 16 + 15

MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))
"""First bytes of what archives are compressed with."""


def guess(head: bytes) -> str:
    """The compression that a stream beginning with `head` has: gzip, zstd, bzip2, xz or none."""
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"  # a skippable frame first
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    return "none"


def reader(source: int | Callable[[], bytes], compression: str, limits: Limits, meter: Meter) -> Callable[[], bytes]:
    """A function that returns the next uncompressed bytes, at most a few MiB, and b"" at the end.

    Args:
        source: the compressed stream: a descriptor, read from where it is, which stays the caller's; or a function
            that returns the next bytes, b"" at the end.
        compression: gzip, zstd, bzip2, xz, none, or auto: by the first bytes.
        limits: for the zstd window.
        meter: counts both sides and stops a bomb.

    Raises:
        NotSupported: another compression. The function raises InvalidLayer for a broken stream.
    """
    counted = _Source(source, meter)
    if compression == "auto":
        compression = guess(counted.peek())
    if compression == "none":
        return _metered(counted.read, meter)
    if compression in ("gzip", "bzip2", "xz"):
        return _metered(_Members(counted, _member_factory(compression, limits), compression).read, meter)
    if compression == "zstd":
        return _metered(_zstd(counted, limits), meter)
    raise NotSupported(f"layer: compression {compression!r} is not supported")


class _Source:
    """Reads the compressed stream, counting."""

    def __init__(self, source: int | Callable[[], bytes], meter: Meter) -> None:
        self._source = source
        self._meter = meter
        self._head = b""

    def peek(self) -> bytes:
        self._head = self.read()
        return self._head

    def read(self, _size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        data = os.read(self._source, _READ) if isinstance(self._source, int) else self._source()
        self._meter.read += len(data)
        return data


def _metered(read: Callable[[], bytes], meter: Meter) -> Callable[[], bytes]:
    def metered() -> bytes:
        chunk = read()
        meter.written += len(chunk)
        meter.check()
        return chunk

    return metered


class _Members:
    """Concatenated members of a format whose decompressor ends with each."""

    def __init__(self, source: _Source, factory: Callable[[], Any], what: str) -> None:
        self._source = source
        self._factory = factory
        self._what = what
        self._inner = factory()
        self._pending = b""
        self._begun = False

    def read(self) -> bytes:
        while True:
            inner = self._inner
            if inner.eof:
                rest = inner.unused_data or self._source.read()
                # GNU gzip ignores zeros after the last member; anything else must be another member.
                while rest and not rest.strip(b"\0"):
                    rest = self._source.read()
                if not rest:
                    return b""
                self._pending = rest.lstrip(b"\0")
                self._inner = inner = self._factory()
            data = self._pending
            if not data and inner.needs_input:
                data = self._source.read()
                if not data:
                    raise InvalidLayer(f"layer: unexpected end of {self._what} data")
            self._pending = b""
            try:
                chunk: bytes = inner.decompress(data, CHUNK)
            except MemoryError:
                raise
            except Exception as problem:
                # isal, zlib, bz2 and lzma each have an error class of their own.
                raise InvalidLayer(f"layer: broken {self._what} data: {problem}") from problem
            if chunk:
                return chunk


def _member_factory(compression: str, limits: Limits) -> Callable[[], Any]:
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor
    if compression == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=limits.zstd_window_max)
    try:
        from isal import igzip_lib
    except ImportError:
        return _Zlib
    return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class _Zlib:
    """zlib with the interface of bz2's decompressor."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, limit)


def _zstd(source: _Source, limits: Limits) -> Callable[[], bytes]:
    try:
        import zstandard
    except ImportError:
        raise NotSupported("layer: zstd is not supported without the zstandard library") from None
    file: Any = source  # it has the one method that is called
    context = zstandard.ZstdDecompressor(max_window_size=limits.zstd_window_max)
    stream = context.stream_reader(file, read_size=_READ, read_across_frames=True, closefd=False)

    def read() -> bytes:
        try:
            return stream.read(CHUNK)
        except zstandard.ZstdError as problem:
            raise InvalidLayer(f"layer: broken zstd data: {problem}") from problem

    return read
