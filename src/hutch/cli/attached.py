"""This process's terminal or pipes as the far end of a container's: `run`, `start -a`, `attach` and `exec`.

    stdin ──▶ monitor ──▶ stdout, stderr      while our own terminal is raw, if both are terminals
    SIGWINCH  ──▶ window size
    other signals ──▶ the process

Nothing is ever waited for but in one poll: a process that does not read, a reader of our output that does not, and
the signals in between must not hold each other up.
"""

from __future__ import annotations

import errno
import os
import select

from hutch.cli.messages import warn
from hutch.cli.terminal import DetachKeys
from hutch.engine.monitor import protocol
from hutch.errors import Unavailable
from hutch.linux import pty
from hutch.runtime import signals
from hutch.runtime.relay import SignalPipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from hutch.linux.seqpacket import Channel

_AT_ONCE = 4096
"""PIPE_BUF: a pipe that is ready takes as much without making us wait."""


class Attached:
    """One attachment; a context manager that gives the terminal and the signals back.

    Enter it before the process is started, so that a signal meanwhile is passed on rather than obeyed.

    Args:
        tty: whether the process has a terminal.
        stdin: whether it gets our input.
        keys: the bytes that detach, empty for none.
        proxy: whether signals are passed on; else they are ours.
        private: nobody else reads what it writes, so that a reader of ours who leaves is its own affair. Without, we
            leave with him, and it goes on.
    """

    def __init__(self, *, tty: bool, stdin: bool, keys: bytes = b"", proxy: bool = True, private: bool = False) -> None:
        self._tty, self._private = tty, private
        self._stdin_fd = 0 if stdin else -1
        self._keys = DetachKeys(keys if tty else b"")
        self._signals = SignalPipe() if proxy else SignalPipe([signals.SIGWINCH])
        self._mode: list[Any] | None = None
        self._to_monitor: list[bytes] = []
        self._to_us: list[tuple[int, bytes]] = []
        self._closed: set[int] = set()
        self._ended: dict[str, Any] | None = None
        self._detached = self._over = False

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._mode is not None:
            pty.restore(0, self._mode)
        self._signals.__exit__()

    def until_end(self, channel: Channel) -> dict[str, Any] | None:
        """Relay until the process ends.

        Args:
            channel: to its monitor; closed.

        Returns:
            What the monitor says of the end (``exit_code`` …); None if the user detached.

        Raises:
            HutchError: it could not be started.
            Unavailable: its monitor was killed.
        """
        with channel:
            if self._tty and self._stdin_fd >= 0 and os.isatty(0):
                self._mode = pty.make_raw(0)
            if self._tty:
                self._resize()
            channel.setblocking(False)
            poll = select.poll()
            while not self._over or self._to_us:
                self._arrange(poll, channel)
                self._step(dict(poll.poll()), channel)
            if self._detached:
                return None
            if self._ended is None:
                raise Unavailable("the container's monitor has gone", hint="hutch ps -a shows what is left")
            return self._ended

    def _arrange(self, poll: select.poll, channel: Channel) -> None:
        poll.register(self._signals.fd, select.POLLIN)
        reading = select.POLLIN if not self._to_us and not self._over else 0
        writing = select.POLLOUT if self._to_monitor and not self._over else 0
        if reading or writing:
            poll.register(channel.fileno(), reading | writing)
        else:
            _unregister(poll, channel.fileno())
        if self._stdin_fd >= 0 and not self._to_monitor and not self._over:
            poll.register(self._stdin_fd, select.POLLIN)
        else:
            _unregister(poll, 0)
        for fd in (1, 2):
            if self._to_us and self._to_us[0][0] == fd:
                poll.register(fd, select.POLLOUT)
            else:
                _unregister(poll, fd)

    def _step(self, ready: dict[int, int], channel: Channel) -> None:
        if self._signals.fd in ready:
            self._pass_signals()
        if self._to_us and self._to_us[0][0] in ready:
            self._write()
        if 0 in ready and self._stdin_fd >= 0:
            self._read_input()
        if channel.fileno() in ready:
            if self._to_monitor:
                self._send(channel)
            if not self._to_us and not self._over:
                self._receive(channel)

    # -- to the process

    def _pass_signals(self) -> None:
        for number in self._signals.read():
            if number == signals.SIGWINCH:
                if self._tty:
                    self._resize()
            elif number != signals.SIGCHLD:
                self._to_monitor.append(protocol.SIGNAL + bytes([number]))

    def _resize(self) -> None:
        fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), -1)
        if fd >= 0:
            self._to_monitor.append(protocol.resize(*pty.get_window_size(fd)))

    def _read_input(self) -> None:
        try:
            data = os.read(0, protocol.CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that hung up
                raise
            data = b""
        if not data:
            self._stdin_fd = -1
            self._to_monitor.append(protocol.END_OF_INPUT)
            return
        data, self._detached = self._keys.feed(data)
        if data:
            self._to_monitor.append(protocol.STDIN + data)
        if self._detached:
            self._over = True

    def _send(self, channel: Channel) -> None:
        try:
            while self._to_monitor:
                channel.send(self._to_monitor[0])
                del self._to_monitor[0]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            self._to_monitor.clear()  # it has gone; what it said last is still to be read

    # -- from the process

    def _receive(self, channel: Channel) -> None:
        try:
            kind, content = protocol.receive(channel)
        except BlockingIOError:
            return
        if kind == protocol.STDOUT:
            self._show(1, content)
        elif kind in (protocol.STDERR, protocol.STEP):
            self._show(2, content)
        elif kind == protocol.WARNING:
            warn(content.decode("utf-8", "replace"))
        elif kind == protocol.FAILED:
            raise protocol.as_error(content)
        elif kind == protocol.ENDED:
            self._ended = protocol.parse(content)
            self._over = True
        elif not kind:
            self._over = True

    def _show(self, fd: int, data: bytes) -> None:
        if fd not in self._closed:
            self._to_us.append((fd, data))

    def _write(self) -> None:
        fd, data = self._to_us[0]
        try:
            written = os.write(fd, data[:_AT_ONCE] if self._over or not self._tty else data)
        except BlockingIOError:  # a caller made its end non-blocking, and it is full after all
            return
        except BrokenPipeError:
            if not self._private:
                raise
            self._closed.add(fd)
            self._to_us = [(other, rest) for other, rest in self._to_us if other != fd]
            self._to_monitor.append(protocol.HUNG_UP + (protocol.STDOUT if fd == 1 else protocol.STDERR))
            return
        if written < len(data):
            self._to_us[0] = (fd, data[written:])
        else:
            del self._to_us[0]


def _unregister(poll: select.poll, fd: int) -> None:
    try:
        poll.unregister(fd)
    except KeyError:
        return


def window_size() -> tuple[int, int] | None:
    """Rows and columns of our terminal, if there is one."""
    fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), -1)
    return pty.get_window_size(fd) if fd >= 0 else None
