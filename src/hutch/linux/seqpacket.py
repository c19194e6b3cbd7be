"""Messages with descriptors between two processes: SOCK_SEQPACKET over AF_UNIX.

`_socket` is the C half of `socket`, which alone costs 9 ms to import; where a Python lacks it under
that name, the public module does.
"""

from __future__ import annotations

import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Sequence
    from typing import Self
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

MAX_DESCRIPTORS = 253  # SCM_MAX_FD


class Channel:
    """One end of a connected pair. Not thread-safe.

    Attributes:
        A message is delivered whole or not at all; an empty one would look like the end and is refused.
    """

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        """Take over a connected SOCK_SEQPACKET descriptor; closed by close()."""
        os.set_inheritable(fd, False)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)

    def fileno(self) -> int:
        """The descriptor, for select and poll."""
        return self._socket.fileno()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message, with duplicates of `fds`.

        Args:
            data: at least one byte.
            fds: at most 253; still the caller's to close.

        Raises:
            OSError: EPIPE (the other end is gone; no signal), EMSGSIZE, EINVAL (empty, too many fds).
        """
        if not data:
            raise OSError(errno.EINVAL, "an empty message cannot be told from the end")
        if len(fds) > MAX_DESCRIPTORS:
            raise OSError(errno.EINVAL, f"more than {MAX_DESCRIPTORS} descriptors in a message")
        extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self._socket.sendmsg([data], extra, _socket.MSG_NOSIGNAL)

    def recv(self, limit: int) -> tuple[bytes, list[int]]:
        """Receive one message of at most `limit` bytes.

        Returns:
            The data, b"" at the end; and descriptors, close-on-exec, the caller's to close.

        Raises:
            OSError: EMSGSIZE (the message or its descriptors did not fit), EBADMSG (descriptors in an
                empty message); what came is closed.
        """
        room = _socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            data, extra, flags, _ = self._socket.recvmsg(limit, room, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The other end had not read all of ours when it closed. That is told once, before what it had sent.
            data, extra, flags, _ = self._socket.recvmsg(limit, room, _socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        for level, kind, content in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) & ~3])
        cut = flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC)
        if cut or (fds and not data):
            for fd in fds:
                os.close(fd)
            if cut:
                raise OSError(errno.EMSGSIZE, f"message larger than {limit} bytes, or too many descriptors")
            raise OSError(errno.EBADMSG, "descriptors without a message")
        return data, fds

    def peer(self) -> tuple[int, int, int]:
        """Pid, uid and gid of who connected, as the kernel recorded them (SO_PEERCRED)."""
        pid, uid, gid = struct.unpack("3i", self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        return pid, uid, gid

    def setblocking(self, flag: bool) -> None:
        """Whether `send` and `recv` wait; else they raise BlockingIOError."""
        self._socket.setblocking(flag)

    def shutdown(self) -> None:
        """Let the other end read its end, and refuse its messages, without closing ours."""
        self._socket.shutdown(_socket.SHUT_RDWR)

    def detach(self) -> int:
        """Give up the descriptor without closing it: it is the caller's now."""
        return self._socket.detach()

    def close(self) -> None:
        """Close the descriptor. May be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pair() -> tuple[Channel, Channel]:
    """Two connected ends, both close-on-exec."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Channel(left.detach()), Channel(right.detach())


def listen(dir_fd: int, name: str, backlog: int = 128) -> int:
    """Make a listening socket; the caller closes it, and unlinks the name.

    Args:
        dir_fd: the directory, which only its owner may enter. Its path may be longer than an address holds.
        name: in it; must not exist.
        backlog: how many may wait to be accepted.

    Raises:
        OSError: EADDRINUSE (the name exists).
    """
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        listener.bind(_address(dir_fd, name))
        listener.listen(backlog)
        return listener.detach()
    except BaseException:
        listener.close()
        raise


def accept(listener_fd: int) -> Channel:
    """The next connection of a listening socket."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, listener_fd)
    try:
        return Channel(listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001  # `accept` is the other half's
    finally:
        listener.detach()


def connect(dir_fd: int, name: str) -> Channel:
    """Connect to a listening socket.

    Raises:
        OSError: ENOENT (no such name), ECONNREFUSED (nobody listens any more).
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.connect(_address(dir_fd, name))
        return Channel(connection.detach())
    except BaseException:
        connection.close()
        raise


def _address(dir_fd: int, name: str) -> str:
    return f"/proc/self/fd/{dir_fd}/{name}"
