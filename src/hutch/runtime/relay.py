"""The foreground of `run` and `exec`: wait for a process, pass signals on, and be its terminal's other side.

    stdin ──▶ ptmx ──▶ stdout          while the caller's own terminal is raw
    SIGWINCH  ──▶ window size
    other signals ──▶ the process      through its pidfd

Signals arrive as bytes on a pipe (set_wakeup_fd), so that one poll waits for everything and no handler does work.
"""

from __future__ import annotations

import errno
import os
import select

from hutch.linux import pty
from hutch.linux.process import pidfd_open, pidfd_send_signal
from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

_CHUNK = 65536
_NOT_FORWARDED = {signals.SIGCHLD, signals.SIGPIPE, signals.SIGURG, signals.SIGKILL, signals.SIGSTOP}
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class SignalPipe:
    """Signals of this process as bytes; a context manager that gives the dispositions back.

    Enter it before the process exists, so that a signal during its creation is passed on rather than obeyed.

    Args:
        numbers: which, all that can be handled by default.
    """

    def __init__(self, numbers: Iterable[int] = range(1, signals.LAST + 1)) -> None:
        self._numbers = numbers
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: list[tuple[int, Any]] = []

    def __enter__(self) -> Self:
        self._wakeup = signals.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._numbers:
            if number in _NOT_FORWARDED - {signals.SIGCHLD} or number in (32, 33):
                continue
            try:
                self._before.append((number, signals.handle(number, _nothing)))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return self

    def __exit__(self, *_: object) -> None:
        signals.set_wakeup_fd(self._wakeup)
        for number, handler in self._before:
            if handler is not None:
                signals.handle(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def read(self) -> list[int]:
        """The signals since the last call."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []


def _nothing(number: int, frame: object) -> None:
    """A handler must exist for set_wakeup_fd to see the signal."""


class Terminal:
    """This process's terminal as the far end of a container's; a context manager that restores its mode.

    Args:
        ptmx_fd: the container's, closed at the end.
        stdin_fd: read from; made raw if it is a terminal.
        stdout_fd: written to.
    """

    def __init__(self, ptmx_fd: int, stdin_fd: int = 0, stdout_fd: int = 1) -> None:
        self.ptmx_fd, self.stdin_fd, self.stdout_fd = ptmx_fd, stdin_fd, stdout_fd
        self._pending = b""
        self._mode: list[Any] | None = None

    def __enter__(self) -> Self:
        os.set_blocking(self.ptmx_fd, False)
        if os.isatty(self.stdin_fd):
            self.resize()
            self._mode = pty.make_raw(self.stdin_fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mode is not None:
            pty.restore(self.stdin_fd, self._mode)
        os.close(self.ptmx_fd)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if os.isatty(self.stdin_fd):
            pty.set_window_size(self.ptmx_fd, *pty.get_window_size(self.stdin_fd))

    def register(self, poll: select.poll) -> None:
        """Wait for output; for room or for input, according to what is pending."""
        poll.register(self.ptmx_fd, select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self.stdin_fd >= 0 and not self._pending:
            poll.register(self.stdin_fd, select.POLLIN)
        elif self.stdin_fd >= 0:
            _unregister(poll, self.stdin_fd)

    def take_input(self, poll: select.poll) -> None:
        """Read from stdin; its end is passed on as the terminal's end-of-file character."""
        try:
            data = os.read(self.stdin_fd, _CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that hung up
                raise
            data = b""
        if not data:
            _unregister(poll, self.stdin_fd)
            self.stdin_fd = -1
            data = b"\x04"
        self._pending += self.typed(data)
        self.flush()

    def typed(self, data: bytes) -> bytes:
        """What of `data` goes on to the process; a subclass may look for keys of its own in it."""
        return data

    def flush(self) -> None:
        """Write pending input as far as the terminal takes it."""
        try:
            written = os.write(self.ptmx_fd, self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            written = len(self._pending)  # nobody holds the other end any more
        self._pending = self._pending[written:]

    def pass_output(self) -> bool:
        """Copy one chunk of output; False when there is none for now, or no end to come from."""
        try:
            data = os.read(self.ptmx_fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdout_fd, view) :]
        return bool(data)


def _unregister(poll: select.poll, fd: int) -> None:
    try:
        poll.unregister(fd)
    except KeyError:
        return


def foreground(
    pid: int,
    pipe: SignalPipe,
    ptmx_fd: int = -1,
    begin: Callable[[], None] | None = None,
    *,
    terminal: Callable[[int], Terminal] = Terminal,
) -> int:
    """Stay until a child ends.

    Args:
        pid: a child of this process, not waited for.
        pipe: entered by the caller.
        ptmx_fd: the controlling end of its terminal, closed here; -1 when it has our stdio itself.
        begin: called once everything is ready, such as Container.start.
        terminal: makes the relay for `ptmx_fd`.

    Returns:
        Its exit status, 128 + n for a death by signal n.
    """
    pidfd = pidfd_open(pid)
    try:
        if ptmx_fd < 0:
            if begin:
                begin()
            return _stay(pid, pidfd, pipe, None)
        with terminal(ptmx_fd) as relay:
            if begin:
                begin()
            return _stay(pid, pidfd, pipe, relay)
    finally:
        os.close(pidfd)


def _stay(pid: int, pidfd: int, pipe: SignalPipe, terminal: Terminal | None) -> int:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(pipe.fd, select.POLLIN)
    while True:
        if terminal:
            terminal.register(poll)
        ready = dict(poll.poll())
        if pipe.fd in ready:
            _forward(pipe, pidfd, terminal, pid)
        if terminal:
            _relay(terminal, ready, poll)
        if pidfd in ready:
            while terminal and terminal.pass_output():
                pass
            return signals.exit_status(os.waitpid(pid, 0)[1])


def _relay(terminal: Terminal, ready: dict[int, int], poll: select.poll) -> None:
    events = ready.get(terminal.ptmx_fd, 0)
    if events & select.POLLOUT:
        terminal.flush()
    if events & _READABLE and not terminal.pass_output() and events & select.POLLHUP:
        _unregister(poll, terminal.ptmx_fd)
        # Every holder of the other end has closed it; a later one may open it again, so only pause.
        select.select([], [], [], 0.01)
    if terminal.stdin_fd >= 0 and ready.get(terminal.stdin_fd, 0) & _READABLE:
        terminal.take_input(poll)


def _forward(pipe: SignalPipe, pidfd: int, terminal: Terminal | None, pid: int) -> None:
    for number in pipe.read():
        if number == signals.SIGWINCH and terminal:
            terminal.resize()
        elif number == signals.SIGCHLD:
            _reap(pid)
        else:
            try:
                pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return


def _reap(pid: int) -> None:
    """Wait for orphans that became ours (we are a subreaper), but leave the process itself."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == pid:
            return
        os.waitpid(found.si_pid, 0)
