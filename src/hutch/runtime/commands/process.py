"""What create, run and exec share: the console socket, inherited descriptors, the pid file."""

from __future__ import annotations

import errno
import os

from hutch.errors import InvalidArgument
from hutch.linux.seqpacket import Channel, pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Self

    from hutch.spec.runtime import Process, Spec
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

_FIRST_INHERITED = 3


class ConsoleSocket:
    """Where the controlling end of a new terminal goes: to --console-socket, or to this process itself.

    A context manager that closes what it opened.

    Args:
        path: of --console-socket, or an empty string.
        terminal: whether the process wants a terminal.
        detached: whether this command ends before the process.

    Attributes:
        fd: a connected socket for `create` to send the terminal through, or None without a terminal.

    Raises:
        InvalidArgument: a terminal and nobody to take it, or a taker and no terminal.
        OSError: the socket cannot be connected to.
    """

    def __init__(self, path: str, terminal: bool, *, detached: bool) -> None:
        if detached and terminal and not path:
            raise InvalidArgument("cannot allocate tty if detaching without setting console socket")
        if path and not (detached and terminal):
            raise InvalidArgument("cannot use console socket if not detaching or allocating tty")
        self.fd: int | None = None
        self._ours: Channel | None = None
        if path:
            self.fd = _connect(path)
        elif terminal:
            self._ours, theirs = pair()
            self.fd = theirs.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)
        if self._ours is not None:
            self._ours.close()

    def receive(self) -> int:
        """The controlling end sent to this process; the caller closes it."""
        if self._ours is None:
            raise InvalidArgument("the terminal went to the console socket")
        _, fds = self._ours.recv(4096)
        for fd in fds[1:]:
            os.close(fd)
        if not fds:
            raise OSError(errno.EPROTO, "no terminal was sent")
        return fds[0]


def _connect(path: str) -> int:
    """A connected stream socket; by way of a descriptor, so that the path may be longer than sun_path."""
    path_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{path_fd}")
        return connection.detach()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        connection.close()
        os.close(path_fd)


def inherited(preserve_fds: int, holder: Spec | dict[str, Process]) -> int:
    """How many descriptors from 3 on the process gets: those of socket activation, and N more.

    Args:
        preserve_fds: N.
        holder: has the process under "process"; $LISTEN_FDS goes into its environment, for which it is pid 1
            (sd_listen_fds(3): they are ours only if $LISTEN_PID says so).

    Raises:
        InvalidArgument: a descriptor that should be passed on is not open.
    """
    listening = os.environ.get("LISTEN_FDS", "") if os.environ.get("LISTEN_PID") == str(os.getpid()) else ""
    count = int(listening) if listening.isascii() and listening.isdigit() and len(listening) <= 4 else 0
    if count and "process" in holder:
        holder["process"].setdefault("env", []).extend([f"LISTEN_FDS={count}", "LISTEN_PID=1"])
    total = count + preserve_fds
    if preserve_fds < 0 or total > 65536:
        raise InvalidArgument(f"--preserve-fds: {preserve_fds} is out of range")
    for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + total):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidArgument(f"file descriptor {fd} cannot be preserved: bad file descriptor") from None
    return total


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid, without a newline, as a whole: a reader sees all of it or no file."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
