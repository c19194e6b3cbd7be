"""From chunks of output to lines: what a container wrote, cut where docker cuts it.

A line of 16 KiB or more is handed on in pieces of 16 KiB, the last of which may be empty. The beginning of a line
that is not finished is held until the rest of it comes.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class LogWriter(Protocol):
        """Where a container's output goes; not thread-safe, and no method raises for what the log's sink did."""

        def write(self, stream: int, data: bytes, time_nanos: int) -> None:
            """Take a chunk: stream 1 is stdout (and a terminal's), 2 stderr; the time in ns since 1970."""

        def flush(self) -> None:
            """The stream ended: write what is held of an unfinished line."""

        def close(self) -> None:
            """Flush and let go of everything, in bounded time."""

    class Sink(Protocol):
        """Where lines go."""

        def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
            """Take whole lines of less than PIECE bytes each; `block` ends with a newline."""

        def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
            """Take a piece of a long line, at most PIECE bytes, without newline; `last` has the line's end."""

        def close(self) -> None:
            """Let go of everything, in bounded time."""


PIECE = 16 << 10
STREAMS = {1: "stdout", 2: "stderr"}
_SECOND = 1_000_000_000


class Part:
    """Which piece of which line; all pieces of one have its first one's time.

    Attributes:
        ordinal: from 1.
    """

    __slots__ = ("id", "ordinal", "time_nanos")

    def __init__(self, time_nanos: int) -> None:
        self.id = os.urandom(32).hex()
        self.ordinal = 1
        self.time_nanos = time_nanos


class _Stream:
    __slots__ = ("held", "part", "time_nanos")

    def __init__(self) -> None:
        self.held = b""
        self.part: Part | None = None
        self.time_nanos = 0


class LineWriter:
    """Cuts what comes into lines for a sink; see `LogWriter`."""

    __slots__ = ("_sink", "_streams")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._streams = {number: _Stream() for number in STREAMS}

    def write(self, stream: int, data: bytes, time_nanos: int) -> None:
        """Take a chunk of output."""
        state = self._streams[stream]
        state.time_nanos = time_nanos
        if state.held:
            data = state.held + data
        start = block = 0  # from `block` to `start`: whole short lines, not yet handed on
        while True:
            if state.part is None:
                # The furthest newline in reach: every line before it is short, and none is looked at alone.
                newline = data.rfind(b"\n", start, start + PIECE)
                if newline >= 0:
                    start = newline + 1
                    continue
                if len(data) - start < PIECE:
                    break
            if block < start:
                self._sink.lines(stream, data[block:start], time_nanos)
            start = block = self._long(stream, state, data, start)
            if state.part is not None:
                break
        if block < start:
            self._sink.lines(stream, data[block:start], time_nanos)
        state.held = data[start:]

    def _long(self, stream: int, state: _Stream, data: bytes, start: int) -> int:
        """Hand on pieces of the long line at `start`; where what was not handed on begins."""
        newline = data.find(b"\n", start)
        stop = newline if newline >= 0 else len(data)
        part = state.part or Part(state.time_nanos)
        while stop - start >= PIECE:
            self._sink.piece(stream, data[start : start + PIECE], part, last=False)
            part.ordinal += 1
            start += PIECE
        if newline < 0:
            state.part = part
            return start
        self._sink.piece(stream, data[start:stop], part, last=True)
        state.part = None
        return newline + 1

    def flush(self) -> None:
        """Write the beginning of a line that will have no end, without a newline, as docker does."""
        for stream, state in self._streams.items():
            if state.held:
                self._sink.piece(stream, state.held, state.part or Part(state.time_nanos), last=False)
            state.held, state.part = b"", None

    def close(self) -> None:
        """Flush and close the sink."""
        self.flush()
        self._sink.close()


class Clock:
    """Times in RFC 3339 as Go prints them: UTC, and a fraction without trailing zeros."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, b""

    def text(self, time_nanos: int) -> bytes:
        """`time_nanos` since 1970 as text; one second is formatted once."""
        second, nanos = divmod(time_nanos, _SECOND)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%bZ" % (self._text, (b"%09d" % nanos).rstrip(b"0")) if nanos else self._text + b"Z"


class Losses:
    """Counts lines that could not be written, and words what is said of it once writing works again."""

    __slots__ = ("count", "reason")

    def __init__(self) -> None:
        self.count, self.reason = 0, ""

    def add(self, count: int, reason: str) -> None:
        """`count` lines were lost; the latest reason is the one that is told."""
        self.count += count
        self.reason = reason

    def note(self) -> bytes:
        """One line for the log, with a newline."""
        lines = "line of output was" if self.count == 1 else "lines of output were"
        return f"hutch: {self.count} {lines} not logged: {self.reason}\n".encode()

    def forget(self) -> None:
        """They were told."""
        self.count, self.reason = 0, ""
