"""A process in a container as a program sees it: what it writes, what it is given to read, how it ended."""

from __future__ import annotations

import errno
import select
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hutch.engine.monitor import protocol
from hutch.errors import ExecTimeout, OutputTooLarge, Unavailable
from hutch.library.cancelling import Cancelled, abortable
from hutch.linux.seqpacket import Channel
from hutch.runtime.signals import SIGKILL

OUTPUT_LIMIT = 256 << 20
"""Bytes that a call keeps in memory of what a process writes, unless it is told otherwise."""
_DEATH_S = 5.0
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ESHUTDOWN)


@dataclass(frozen=True)
class ExecResult:
    """How an exec ended.

    Attributes:
        exit_code: 128 and the signal's number for one that a signal ended.
        stdout: what it wrote there; with a terminal, everything.
        stderr: what it wrote there.
        output: both, in the order in which they came.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    output: bytes


class Process:
    """A process of a container, attached to. Iterate over it for what it writes; a context manager.

    Leaving the `with` block, the end of the last reference, or the caller's death ends an exec that has not ended by
    itself; an attachment to a container just ends.

    Args:
        channel: to its monitor or session; closed by `close`.
        stdin: whether it reads what we write.
        keep: this is the lifeline of a container, which stays if it ends by itself.

    Attributes:
        exit_code: None until it has ended.
        pid: in the host's namespace, once it has been started.
    """

    def __init__(self, channel: Channel, *, stdin: bool = False, keep: bool = False) -> None:
        self._channel, self._stdin, self._keep = channel, stdin, keep
        self._lock = threading.Lock()
        self._closed = self._aborted = False
        self.exit_code: int | None = None
        self.pid = 0

    # -- what it writes

    def chunks(self, *, timeout: float | None = None) -> Iterator[tuple[bytes, bytes]]:
        """What it writes, as it comes, up to its end: (standard output, standard error), one of them empty.

        Args:
            timeout: seconds that all of it may take; then the process is killed.

        Raises:
            ExecTimeout: it took longer.
            HutchError: it could not be started.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.exit_code is None:
            if found := self._next(deadline):
                yield found

    def _next(self, deadline: float | None) -> tuple[bytes, bytes] | None:
        """Take one message; what was written, if that is what it says."""
        kind, content = self._receive(deadline)
        if kind == protocol.STDOUT:
            return content, b""
        if kind == protocol.STDERR:
            return b"", content
        if kind == protocol.WARNING:
            warn(content.decode("utf-8", "replace"))
        elif kind == protocol.STARTED:
            self.pid = int(protocol.parse(content).get("pid", 0))
        elif kind == protocol.ENDED:
            self.exit_code = int(protocol.parse(content).get("exit_code", 0))
            if self._keep:
                self.release()  # it has ended by itself: what is left of it stays
        elif kind == protocol.FAILED:
            self.exit_code = -1
            raise protocol.as_error(content)
        elif not kind:
            raise Unavailable("the container's monitor has gone")
        return None

    def __iter__(self) -> Iterator[bytes]:
        """What it writes on both streams, in the order in which it comes."""
        for out, err in self.chunks():
            yield out or err

    def await_start(self) -> None:
        """Wait until it runs; nothing of what it writes may have been asked for.

        Raises:
            HutchError: it could not be started.
        """
        while not self.pid and self.exit_code is None:
            self._next(None)

    def wait(self, *, timeout: float | None = None, limit: int = OUTPUT_LIMIT) -> ExecResult:
        """Everything it writes, once it has ended.

        Args:
            timeout: seconds; then it is killed.
            limit: bytes of output; with more it is killed.

        Raises:
            ExecTimeout: it took longer; what it had written is in the exception.
            OutputTooLarge: it wrote more.
        """
        found: list[tuple[bytes, bytes]] = []
        size = 0
        try:
            for out, err in self.chunks(timeout=timeout):
                size += len(out) + len(err)
                if size > limit:
                    self._kill_and_wait()
                    raise OutputTooLarge(
                        f"output larger than {limit} bytes", hint="read it as it comes, with stream=True"
                    )
                found.append((out, err))
        except ExecTimeout as error:
            error.stdout, error.stderr = _joined(found, 0), _joined(found, 1)
            raise
        output = b"".join(out or err for out, err in found)
        assert self.exit_code is not None
        return ExecResult(self.exit_code, _joined(found, 0), _joined(found, 1), output)

    def await_end(self, timeout: float | None) -> int:
        """The exit code, once it has ended; nothing happens to one that has not.

        Raises:
            TimeoutError: it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        while self.exit_code is None:
            if end is not None and not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError("the container runs on")
            self._next(None)
        return self.exit_code

    def communicate(self, stdin: bytes | None, *, timeout: float | None, limit: int) -> ExecResult:
        """Give it something to read, and wait for everything it writes; see `wait`."""
        if not stdin:
            if self._stdin:
                self.close_stdin()
            return self.wait(timeout=timeout, limit=limit)
        with Feeder(self, stdin):
            return self.wait(timeout=timeout, limit=limit)

    def streaming(self, stdin: bytes | None) -> Self:
        """This process, with something to read that is given to it meanwhile."""
        if stdin is not None:
            Feeder(self, stdin).start()
        return self

    def _receive(self, deadline: float | None) -> tuple[bytes, bytes]:
        with abortable(self.abort):
            if deadline is not None:
                self._await(deadline)
            try:
                message, fds = self._channel.recv(protocol.REQUEST_LIMIT)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                message, fds = b"", []
        assert not fds, "nobody sends descriptors here"
        if not message and self._aborted:
            raise Cancelled("cancelled")
        return message[:1], message[1:]

    def _await(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        left = deadline - time.monotonic()
        if left > 0 and poll.poll(left * 1000 + 1):
            return
        self._kill_and_wait()
        raise ExecTimeout("the process took longer than it was given, and was killed")

    def _kill_and_wait(self) -> None:
        """Kill it, and see it dead, unless that takes very long."""
        self.kill()
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        end = time.monotonic() + _DEATH_S
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            try:
                message, _ = self._channel.recv(protocol.REQUEST_LIMIT)
            except OSError:
                return
            if message[:1] in (b"", protocol.ENDED, protocol.FAILED):
                return

    # -- what it reads

    def write(self, data: bytes) -> None:
        """Give it bytes to read on its standard input; waits while it does not read.

        Raises:
            BrokenPipeError: it has ended.
        """
        if not self._stdin:
            raise ValueError("the process has no standard input from here: give stdin=True")
        view = memoryview(data)
        while view:
            self._channel.send(protocol.STDIN + bytes(view[: protocol.CHUNK]))
            view = view[protocol.CHUNK :]

    def close_stdin(self) -> None:
        """Nothing more is to be read; a process that has ended does not mind."""
        self._send(protocol.END_OF_INPUT)

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        self._send(protocol.resize(rows, columns))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._send(protocol.SIGNAL + bytes([number]))

    def kill(self) -> None:
        """Kill it, and what it has started."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLOUT)
        if poll.poll(0):
            self.signal(SIGKILL)
        else:
            self.abort()  # what it does not read is in the way of a message

    def _send(self, message: bytes) -> None:
        with self._lock:
            if self._closed or self.exit_code is not None:
                return
            try:
                self._channel.send(message)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    # -- the end

    def abort(self) -> None:
        """End the connection from another thread: who waits on it is told, and an exec is killed."""
        self._aborted = True
        with self._lock:
            if not self._closed:
                try:
                    self._channel.shutdown()
                except OSError as error:
                    if error.errno not in _GONE:
                        raise

    def release(self) -> None:
        """The container is to live on when this connection ends."""
        with self._lock:
            if not self._closed:
                try:
                    self._channel.send(protocol.RELEASE)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise

    def close(self) -> None:
        """Let go of it; an exec that has not ended is killed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._channel.close()

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Feeder:
    """Gives a process its standard input from a thread of its own, while somebody else reads what it writes.

    Args:
        process: with its standard input open.
        data: all of it.
    """

    def __init__(self, process: Process, data: bytes) -> None:
        self._process, self._data = process, data
        self._thread = threading.Thread(target=self._run, name="hutch-stdin", daemon=True)

    def start(self) -> None:
        """Begin; the thread ends with the process, or when the process is closed."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.abort()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._process.write(self._data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        self._process.close_stdin()


def _joined(found: list[tuple[bytes, bytes]], index: int) -> bytes:
    return b"".join(pair[index] for pair in found)


def warn(text: str) -> None:
    """Tell the caller of what stops nothing."""
    warnings.warn(text, HutchWarning, stacklevel=4)


class HutchWarning(UserWarning):
    """Something the user should know, and that stops nothing."""
