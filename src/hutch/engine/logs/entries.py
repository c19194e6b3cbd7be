"""`LogEntry`, and how one is read from each format of log file."""

from __future__ import annotations

import os

import msgspec

from hutch.engine.logs import localfile
from hutch.engine.moments import utc_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Format(Protocol):
        """One way of keeping entries in a file."""

        def decode(self, data: bytes) -> tuple[list[LogEntry], int]:
            """The whole entries at the beginning of `data`, and how many bytes they and what is damaged took."""

        def backwards(self, fd: int, end: int, count: int) -> tuple[int, int, int]:
            """Where the last `count` entries before `end` begin, how many there are, and how many more than wanted."""


LINE_LIMIT = 1 << 20
READ = 256 << 10
_SECOND = 1_000_000_000


class LogEntry(msgspec.Struct, frozen=True):
    """One line of output, or a piece of a long one.

    Attributes:
        time_nanos: since 1970.
        stream: 1 stdout, 2 stderr.
        data: with its newline if it had one.
        attributes: labels and variables that the log's options chose.
    """

    time_nanos: int
    stream: int
    data: bytes
    attributes: dict[str, str] = {}


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decode = msgspec.json.Decoder(_Line).decode


class Times:
    """Reads RFC 3339; the seconds of one line are mostly those of the one before."""

    def __init__(self) -> None:
        self._text, self._seconds = "", 0

    def nanos(self, text: str) -> int:
        """Nanoseconds since 1970.

        Raises:
            ValueError: no time in UTC.
        """
        if text[:19] != self._text:
            self._seconds = utc_seconds(text)
            self._text = text[:19]
        rest = text[19:]
        if not rest.endswith("Z"):
            raise ValueError(f"not a time in UTC: {text}")
        fraction = rest[1:-1]
        return self._seconds * _SECOND + (int(fraction[:9].ljust(9, "0")) if fraction else 0)


class JsonLines:
    """The json-file format."""

    def __init__(self) -> None:
        self._times = Times()

    def decode(self, data: bytes) -> tuple[list[LogEntry], int]:
        """Whole lines; one that is no entry (a power cut's) is left out."""
        end = data.rfind(b"\n") + 1
        if not end:
            return [], len(data) if len(data) >= LINE_LIMIT else 0
        found = []
        for line in data[: end - 1].split(b"\n"):
            try:
                parsed = _decode(line)
                found.append(
                    LogEntry(
                        time_nanos=self._times.nanos(parsed.time),
                        stream=2 if parsed.stream == "stderr" else 1,
                        data=parsed.log.encode("utf-8", "surrogatepass"),
                        attributes=parsed.attrs,
                    )
                )
            except (msgspec.MsgspecError, ValueError):
                continue
        return found, end

    def backwards(self, fd: int, end: int, count: int) -> tuple[int, int, int]:
        """Count newlines from the end."""
        found, block = 0, 64 << 10
        position = end
        unfinished = True  # what follows the last newline is no entry
        while position > 0:
            start = max(0, position - block)
            data = os.pread(fd, position - start, start)
            cut = len(data)
            while (newline := data.rfind(b"\n", 0, cut)) >= 0:
                if unfinished:
                    unfinished = False
                else:
                    found += 1
                    if found == count:
                        return start + newline + 1, found, 0
                cut = newline
            position = start
        return 0, found + (not unfinished), 0


class LocalRecords:
    """The local format; each line of a record is an entry."""

    def decode(self, data: bytes) -> tuple[list[LogEntry], int]:
        """Whole records; after a damaged one, what comes next that looks like one."""
        found: list[LogEntry] = []
        start = 0
        while True:
            end = localfile.follows(data, start)
            if end < 0:
                start += 1
                continue
            if end == 0:
                return found, start
            found += _unpacked(data, start, end)
            start = end

    def backwards(self, fd: int, end: int, count: int) -> tuple[int, int, int]:
        """Go from record to record by the length after each."""
        found = 0
        position = end
        while position >= localfile.AROUND and found < count:
            (length,) = localfile.TRAILER.unpack(
                os.pread(fd, localfile.TRAILER.size, position - localfile.TRAILER.size)
            )
            start = position - localfile.AROUND - length
            data = os.pread(fd, position - start, start) if start >= 0 and length <= localfile.DATA_LIMIT else b""
            if not data or localfile.follows(data, 0) != len(data):
                if position == end and end:
                    # A torn record at the end: the whole ones before it are found from the beginning.
                    whole = localfile.whole(fd)
                    if whole < end:
                        return self.backwards(fd, whole, count)
                break
            found += _count(data)
            position = start
        return position, min(found, count), max(0, found - count)


def _count(record: bytes) -> int:
    _, _, kind, _ = localfile.HEADER.unpack_from(record)
    return record.count(b"\n", localfile.HEADER.size, -localfile.TRAILER.size) if kind == localfile.LINES else 1


def _unpacked(data: bytes, start: int, end: int) -> Iterator[LogEntry]:
    _, stream, kind, time_nanos = localfile.HEADER.unpack_from(data, start)
    text = data[start + localfile.HEADER.size : end - localfile.TRAILER.size]
    for line in [line + b"\n" for line in text[:-1].split(b"\n")] if kind == localfile.LINES else [text]:
        yield LogEntry(time_nanos=time_nanos, stream=stream, data=line)
