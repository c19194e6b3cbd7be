"""One client's connection: what it wants to see, what it sends, and what it has not yet taken."""

from __future__ import annotations

import errno
import os
from collections import deque

from hutch.engine.monitor import protocol
from hutch.engine.monitor.loop import READ, WRITE
from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.monitor.loop import Loop
    from hutch.linux.seqpacket import Channel

BEHIND = 1 << 20
"""Bytes after which one that must miss nothing holds the output up."""
_LOST = 8 << 20
"""Bytes after which any other is dropped."""
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)


class Client:
    """A connection.

    Args:
        loop: to wait in.
        channel: closed by close().
        wants: which of protocol.STDOUT, STDERR and STDIN it is attached to.
        patient: the output waits for it, rather than that it is dropped for being slow.
        on_message: gets each message.
        on_close: called once, when it has gone.
        on_drained: called when it has caught up.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        *,
        wants: bytes,
        patient: bool,
        on_message: Callable[[Client, bytes, bytes], None],
        on_close: Callable[[Client], None],
        on_drained: Callable[[Client], None],
    ) -> None:
        self._loop, self._channel = loop, channel
        self.wants, self.patient = wants, patient
        self._on_message, self._on_close, self._on_drained = on_message, on_close, on_drained
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._reading, self._last = True, False
        self.open = True
        channel.setblocking(False)
        self._watch()

    @property
    def behind(self) -> bool:
        """Whether it should be waited for."""
        return self.open and self._queued > BEHIND

    def send(self, message: bytes) -> None:
        """Send a message, now or when there is room."""
        if not self.open or self._last:
            return
        if (not self._queue and self._try(message)) or not self.open:
            return
        self._queue.append(message)
        self._queued += len(message)
        if not self.patient and self._queued > _LOST:
            self.close()
            return
        self._watch()

    def finish(self, message: bytes) -> None:
        """Send a last message; the connection closes when it has been taken."""
        self.send(message)
        self._last = True
        if not self._queue:
            self.close()

    def pause(self) -> None:
        """Read nothing more from it for now."""
        self._reading = False
        self._watch()

    def resume(self) -> None:
        """Read again."""
        if self.open:
            self._reading = True
            self._watch()

    def close(self) -> None:
        """Close the connection."""
        if not self.open:
            return
        self.open = False
        self._queue.clear()
        self._queued = 0
        self._loop.forget(self._channel.fileno())
        self._channel.close()
        self._on_close(self)

    def _watch(self) -> None:
        events = (READ if self._reading else 0) | (WRITE if self._queue else 0)
        self._loop.watch(self._channel.fileno(), events, self._ready)

    def _try(self, message: bytes) -> bool:
        try:
            self._channel.send(message)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.close()
            return False
        return True

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._receive()

    def _flush(self) -> None:
        while self._queue and self._try(self._queue[0]):
            self._queued -= len(self._queue.popleft())
        if not self.open:
            return
        if not self._queue and self._last:
            self.close()
            return
        self._watch()
        if not self.behind:
            self._on_drained(self)

    def _receive(self) -> None:
        try:
            message, fds = self._channel.recv(protocol.REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (*_GONE, errno.EMSGSIZE, errno.EBADMSG):
                raise
            self.close()
            return
        for fd in fds:
            os.close(fd)
        if not message:
            self.close()
            return
        try:
            self._on_message(self, message[:1], message[1:])
        except HutchError as error:
            self.finish(protocol.failure(error))
