"""Where other processes reach a monitor: its socket, and those who have not yet said what they want."""

from __future__ import annotations

import os

from hutch.engine.monitor import protocol
from hutch.engine.monitor.loop import READ
from hutch.engine.monitor.mishaps import as_told
from hutch.engine.monitor.starting import socket_place
from hutch.linux import seqpacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.engine.engine import Engine
    from hutch.engine.monitor.loop import Loop
    from hutch.linux.seqpacket import Channel

    Answer = Callable[[Channel, dict[str, Any]], None]

_REQUEST_PATIENCE_S = 10.0
_BREATH_S = 1.0
"""How long no connection is accepted when there are no descriptors left for one."""


class Reception:
    """The socket of a container.

    Args:
        loop: to wait in.
        engine: where the container is.
        container_id: of it.
        answer: gets a connection and its request, and may take the connection over; what it raises is told the client.
    """

    def __init__(self, loop: Loop, engine: Engine, container_id: str, answer: Answer) -> None:
        self._loop, self._engine, self._id, self._answer = loop, engine, container_id, answer
        self._fd = -1

    def open(self) -> None:
        """Listen; the socket of a monitor that was killed is replaced."""
        self._unlink()
        dir_fd, name = socket_place(self._engine, self._id)
        try:
            self._fd = seqpacket.listen(dir_fd, name)
        finally:
            os.close(dir_fd)
        os.set_blocking(self._fd, False)
        self._loop.watch(self._fd, READ, self._accept)

    def close(self) -> None:
        """Listen no more."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._unlink()

    def _unlink(self) -> None:
        dir_fd, name = socket_place(self._engine, self._id)
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            pass
        finally:
            os.close(dir_fd)

    def _accept(self, _events: int) -> None:
        try:
            channel = seqpacket.accept(self._fd)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptors, or no memory; whoever waits to be accepted goes on doing so
            self._loop.forget(self._fd)
            self._loop.after(_BREATH_S, self._accept_again)
            return
        if channel.peer()[1] not in (0, os.geteuid()):
            channel.close()
            return
        _Visitor(self._loop, channel, self._answer)

    def _accept_again(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, READ, self._accept)


class _Visitor:
    """A connection whose request has not come yet."""

    def __init__(self, loop: Loop, channel: Channel, answer: Answer) -> None:
        self._loop, self._channel, self._answer = loop, channel, answer
        channel.setblocking(False)
        loop.watch(channel.fileno(), READ, self._readable)
        self._timer = loop.after(_REQUEST_PATIENCE_S, self._close)

    def _close(self) -> None:
        self._leave()
        self._channel.close()

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.forget(self._channel.fileno())

    def _readable(self, _events: int) -> None:
        try:
            message, fds = self._channel.recv(protocol.REQUEST_LIMIT)
        except OSError:
            self._close()
            return
        for fd in fds:
            os.close(fd)
        if not message:
            self._close()
            return
        self._leave()
        try:
            self._answer(self._channel, protocol.parse(message))
        except Exception as error:
            try:
                self._channel.send(protocol.failure(as_told(error)))
            except OSError:
                pass  # it has gone already
            self._channel.close()
