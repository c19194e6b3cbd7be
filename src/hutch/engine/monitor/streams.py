"""A process's standard streams: pipes or a pseudo-terminal on this side, its log and clients on the other.

    process ──▶ Output ──▶ log
                       └─▶ every client
    clients ──▶ Input ──▶ process

Nothing here waits. When a client that must miss nothing is behind, output is left in the pipe, which the kernel bounds:
the process then waits in write(2) as it would for a slow terminal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from hutch.engine.monitor import protocol
from hutch.engine.monitor.loop import READ, WRITE
from hutch.linux import pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.monitor.loop import Loop

_INPUT_LIMIT = 4 * protocol.CHUNK
_PIPE_SIZE = 1 << 17
_QUIET_S = 0.05


class Pipes:
    """The descriptors of a process's standard streams, the process's ends and ours.

    Args:
        interactive: whether its standard input is a pipe, rather than empty.
    """

    def __init__(self, *, interactive: bool) -> None:
        self.ours: list[int] = []
        self.theirs: list[int] = []
        try:
            self._make(interactive=interactive)
        except BaseException:
            self.close()
            raise

    def _make(self, *, interactive: bool) -> None:
        if interactive:
            read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(read_fd)
            self.ours.append(write_fd)
        else:
            self.theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self.ours.append(-1)
        for _ in range(2):
            read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            self.ours.append(read_fd)
            self.theirs.append(write_fd)
            try:
                fcntl.fcntl(read_fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            except PermissionError:
                pass  # an ordinary user's share of pipe memory is used up: it stays at the default
        for fd in self.ours:
            if fd >= 0:
                os.set_blocking(fd, False)

    def give_away(self) -> None:
        """Close the process's ends, which it has by now."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def close(self) -> None:
        """Close whatever has not been taken."""
        self.give_away()
        for fd in self.ours:
            if fd >= 0:
                os.close(fd)
        self.ours = []


class Output:
    """What a process writes on one descriptor.

    Args:
        loop: to wait in.
        fd: non-blocking; closed at the end.
        kind: protocol.STDOUT or STDERR.
        sink: gets (kind, data, time in nanoseconds).
    """

    def __init__(self, loop: Loop, fd: int, kind: bytes, sink: Callable[[bytes, bytes, int], None]) -> None:
        self._loop, self.fd, self.kind, self._sink = loop, fd, kind, sink
        self._paused = False
        self._loop.watch(fd, READ, self._readable)

    def pause(self) -> None:
        """Leave what comes in the pipe."""
        self._paused = True
        if self.fd >= 0:
            self._loop.forget(self.fd)

    def resume(self) -> None:
        """Go on reading."""
        if self._paused and self.fd >= 0:
            self._paused = False
            self._loop.watch(self.fd, READ, self._readable)

    def drain(self) -> None:
        """Read what is there and close: the process has ended.

        Others that it left behind may go on writing as fast as we read; of theirs no more is taken than a pipe holds.
        """
        left = _PIPE_SIZE + protocol.CHUNK
        while self.fd >= 0 and left > 0 and (taken := self._pass()):
            left -= taken
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            self._loop.forget(self.fd)
            os.close(self.fd)
            self.fd = -1

    def _readable(self, _events: int) -> None:
        if not self._pass() and self.fd >= 0 and not self._paused:
            # A terminal that nobody has open for now says so all the time; somebody may open it again.
            self.pause()
            self._loop.after(_QUIET_S, self.resume)

    def _pass(self) -> int:
        """Hand on one chunk; its length, 0 if there was none."""
        try:
            data = os.read(self.fd, protocol.CHUNK)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return 0
        if not data:
            self.close()
            return 0
        self._sink(self.kind, data, time.time_ns())
        return len(data)


class Input:
    """What a process reads: written as far as it takes it, the rest kept, and clients asked to wait meanwhile.

    Args:
        loop: to wait in.
        fd: non-blocking; closed by close() unless it is a terminal, which is its output as well.
        terminal: whether it is one.
    """

    def __init__(self, loop: Loop, fd: int, *, terminal: bool) -> None:
        self._loop, self.fd, self.terminal = loop, fd, terminal
        self._pending = bytearray()
        self._ending = False
        self.on_room: list[Callable[[], None]] = []

    @property
    def full(self) -> bool:
        """Whether clients should wait."""
        return len(self._pending) > _INPUT_LIMIT

    def push(self, data: bytes) -> None:
        """Give it to the process, now or when it reads."""
        if self.fd >= 0 and not self._ending:
            self._pending += data
            self._flush()

    def end(self) -> None:
        """No more will come: a pipe is closed, a terminal gets its end-of-file character."""
        if self.fd < 0 or self._ending:
            return
        if self.terminal:
            self.push(b"\x04")
            return
        self._ending = True
        self._flush()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal, if it is one."""
        if self.terminal and self.fd >= 0:
            try:
                pty.set_window_size(self.fd, rows, columns)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise

    def close(self) -> None:
        """Let go of the descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0 and not self.terminal:
            self._loop.forget(fd)
            os.close(fd)
        self._pending.clear()
        self._tell()

    def _flush(self, _events: int = 0) -> None:
        try:
            while self._pending:
                del self._pending[: os.write(self.fd, self._pending[: protocol.CHUNK])]
        except BlockingIOError:
            self._wait()
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self._pending.clear()  # nobody reads it any more
        if self._ending:
            self.close()
        elif not self.terminal:
            self._loop.forget(self.fd)
        self._tell()

    def _wait(self) -> None:
        if self.terminal:  # its descriptor is watched for output already
            self._loop.after(_QUIET_S, self._flush_again)
        else:
            self._loop.watch(self.fd, WRITE, self._flush)

    def _flush_again(self) -> None:
        if self.fd >= 0 and self._pending:
            self._flush()

    def _tell(self) -> None:
        if not self.full:
            waiting, self.on_room = self.on_room, []
            for action in waiting:
                action()
