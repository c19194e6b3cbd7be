"""The local format: records of bytes as they were written, compact and quick to write; only hutch reads it.

    length u32 · stream u8 · kind u8 · time u64 (ns since 1970) · data · length u32         (little-endian)

`length` counts the data and stands on both sides, so that a file can be read from its end. A record holds either all
the short lines of one chunk, newlines and all, or (kind 1) one piece of a long line without its end. The data is never
changed, whatever its encoding.
"""

from __future__ import annotations

import os
import struct

from hutch.engine.logs.rotation import FULL, RotatedFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.logs.lines import Part

HEADER = struct.Struct("<IBBQ")
TRAILER = struct.Struct("<I")
AROUND = HEADER.size + TRAILER.size
DATA_LIMIT = 1 << 20
LINES, PIECE = 0, 1
_BLOCK = 256 << 10


def record(stream: int, kind: int, time_nanos: int, data: bytes) -> bytes:
    """One record; `data` has at most DATA_LIMIT bytes."""
    return HEADER.pack(len(data), stream, kind, time_nanos) + data + TRAILER.pack(len(data))


def follows(data: bytes, start: int) -> int:
    """Where the record at `start` of `data` ends: 0 if `data` ends before it, -1 if there is none."""
    if len(data) - start < HEADER.size:
        return 0
    length, stream, kind, _ = HEADER.unpack_from(data, start)
    if length > DATA_LIMIT or stream not in (1, 2) or kind not in (LINES, PIECE):
        return -1
    end: int = start + AROUND + length
    if end > len(data):
        return 0
    return end if TRAILER.unpack_from(data, end - TRAILER.size)[0] == length else -1


def whole(fd: int) -> int:
    """How much of a file is whole records, in bytes; one that ends as it should is not read through."""
    size = os.fstat(fd).st_size
    trailer = os.pread(fd, TRAILER.size, size - TRAILER.size) if size >= AROUND else b""
    if trailer:
        start = size - AROUND - TRAILER.unpack(trailer)[0]
        if start >= 0 and size - start <= DATA_LIMIT + AROUND:
            last = os.pread(fd, size - start, start)
            if follows(last, 0) == len(last):
                return size
    offset = 0
    while True:
        data = os.pread(fd, max(_BLOCK, DATA_LIMIT + AROUND), offset)
        start = 0
        while (end := follows(data, start)) > 0:
            start = end
        if not start:
            return offset
        offset += start


class LocalFile:
    """A sink that writes the local format."""

    __slots__ = ("_file",)

    def __init__(self, file: RotatedFile) -> None:
        self._file = file

    def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
        """Write whole lines."""
        while len(block) > DATA_LIMIT:
            cut = block.rfind(b"\n", 0, DATA_LIMIT) + 1
            self._write(stream, LINES, time_nanos, block[:cut], block.count(b"\n", 0, cut))
            block = block[cut:]
        self._write(stream, LINES, time_nanos, block, block.count(b"\n"))

    def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
        """Write a piece of a long line."""
        if last:
            self._write(stream, LINES, part.time_nanos, data + b"\n", 1)
        else:
            self._write(stream, PIECE, part.time_nanos, data, 1)

    def _write(self, stream: int, kind: int, time_nanos: int, data: bytes, count: int) -> None:
        file = self._file
        # The note goes with a record that there is room for too, else it would have to be written again.
        note = record(2, LINES, time_nanos, file.losses.note()) if file.losses.count else b""
        try:
            if file.append(note + record(stream, kind, time_nanos, data)):
                file.losses.forget()
            else:
                file.losses.add(count, FULL)
        except OSError as error:
            file.losses.add(count, os.strerror(error.errno or 0).lower())

    def close(self) -> None:
        """Close the log."""
        self._file.close()
