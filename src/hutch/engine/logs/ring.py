"""A sink that never makes its writer wait: a bounded queue, and a thread that hands on what is in it.

For ``mode=non-blocking``, and for sinks on a network, where one call may take seconds. What does not fit is dropped and
counted; the log says how much, at the place where it would have been.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from hutch.engine.logs.lines import Losses, Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.logs.lines import Sink

DEFAULT_LIMIT = 1 << 20
CLOSING_S = 2.0
_FULL = "the log's buffer was full"


class Ring:
    """A queue before `sink`.

    Args:
        sink: what the thread writes to; used by nobody else from now on.
        limit: bytes of output that may wait.
        interrupt: makes a call of the sink that is under way end soon, for good.
    """

    def __init__(self, sink: Sink, limit: int, interrupt: Callable[[], None] | None = None) -> None:
        self._sink, self._limit, self._interrupt = sink, limit, interrupt
        # (stream, data, time, part, last): `part` is None for a block of whole lines
        self._queue: deque[tuple[int, bytes, int, Part | None, bool]] = deque()
        self._waiting = 0
        self._losses = Losses()
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._drain, name="hutch-log", daemon=True)
        self._thread.start()

    def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
        """Queue whole lines; of a block that does not fit, the first ones."""
        with self._changed:
            room = self._room()
            if len(block) > room and not self._losses.count:
                cut = block.rfind(b"\n", 0, max(room, 0)) + 1
                if cut:
                    self._put(stream, block[:cut], time_nanos, None, last=True)
                    block = block[cut:]
            if len(block) > room:
                self._losses.add(block.count(b"\n"), _FULL)
            else:
                self._put(stream, block, time_nanos, None, last=True)

    def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
        """Queue a piece of a long line."""
        with self._changed:
            if len(data) > self._room():
                self._losses.add(1, _FULL)
                return
            now = Part(part.time_nanos)  # the writer goes on counting in its own
            now.id, now.ordinal = part.id, part.ordinal
            self._put(stream, data, part.time_nanos, now, last=last)

    def _room(self) -> int:
        """Bytes that may come; after a loss none before half of the queue is free, so that losses are told in one."""
        if self._losses.count and self._waiting > self._limit // 2:
            return 0
        return self._limit - self._waiting

    def _put(self, stream: int, data: bytes, time_nanos: int, part: Part | None, *, last: bool) -> None:
        if self._losses.count:
            self._queue.append((2, self._losses.note(), time_nanos, None, True))
            self._losses.forget()
        self._queue.append((stream, data, time_nanos, part, last))
        self._waiting += len(data)
        self._changed.notify()

    def _drain(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._closing:
                        return
                    self._changed.wait()
                stream, data, time_nanos, part, last = self._queue.popleft()
            if part is None:
                self._sink.lines(stream, data, time_nanos)
            else:
                self._sink.piece(stream, data, part, last=last)
            with self._changed:
                self._waiting = max(0, self._waiting - len(data))

    def close(self) -> None:
        """Hand on what waits, for two seconds at most, then close the sink; what is left then is lost."""
        with self._changed:
            if self._losses.count:
                self._queue.append((2, self._losses.note(), time.time_ns(), None, True))
                self._losses.forget()
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            with self._changed:
                self._queue.clear()
            if self._interrupt is not None:
                self._interrupt()
            self._thread.join(CLOSING_S)
        if not self._thread.is_alive():  # else it still uses the sink's descriptors, and ends with the process
            self._sink.close()
