"""Output to systemd's journal, in its native protocol: one datagram a line, fields as docker names them.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from hutch.engine.logs import tags
from hutch.engine.logs.lines import Clock, Losses
from hutch.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Mapping

    from hutch.engine.logs.lines import Part
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {1: b"6", 2: b"3"}  # informational, error
_PATIENCE_S = 1.0
_RETRY_S = 1.0
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def field(name: str, value: bytes) -> bytes:
    """One field of an entry."""
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%b=%b\n" % (name.encode(), value)


def _field_name(text: str) -> str:
    """A label's key as the journal takes it: capitals, digits and underscores, no underscore first, 64 at most."""
    return "".join(char if char in _WORD else "_" for char in text.upper()).lstrip("_")[:64]


class Journal:
    """A sink that sends to the journal.

    A full journal is waited for once, for a second; from then on lines are dropped and counted until it takes one.

    Args:
        options: the driver's.
        source: the container.
        path: of the journal's socket.

    Raises:
        Unavailable: nothing is there.
    """

    __slots__ = ("_clock", "_fields", "_losses", "_path", "_retry_at", "_socket")

    def __init__(self, options: Mapping[str, str], source: tags.LogSource, path: str = SOCKET) -> None:
        tag = tags.tag(options.get("tag") or tags.DEFAULT_TAG, source)
        known = {
            "CONTAINER_ID": source.container_id[:12],
            "CONTAINER_ID_FULL": source.container_id,
            "CONTAINER_NAME": source.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": source.image,
            "SYSLOG_IDENTIFIER": tag,
        }
        chosen = {_field_name(key): value for key, value in tags.attributes(options, source).items()}
        chosen.pop("", None)
        fields = {**chosen, **known}
        self._fields = b"".join(field(key, value.encode("utf-8", "surrogateescape")) for key, value in fields.items())
        self._clock, self._losses = Clock(), Losses()
        self._path, self._retry_at = path, 0.0
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_PATIENCE_S)
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                f"journald is not enabled on this host: {path}: {os.strerror(error.errno or 0).lower()}",
                hint="choose another --log-driver",
            ) from None

    def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
        """Send whole lines."""
        head = self._head(stream, time_nanos)
        messages = block[:-1].split(b"\n")
        for index, line in enumerate(messages):
            if not self._send(b"%bMESSAGE=%b\n" % (head, line), time_nanos):
                self._losses.count += len(messages) - index - 1
                return

    def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
        """Send a piece of a long line."""
        head = self._head(stream, part.time_nanos)
        partial = b"" if last else b"CONTAINER_PARTIAL_MESSAGE=true\n"
        about = b"CONTAINER_PARTIAL_ID=%b\nCONTAINER_PARTIAL_ORDINAL=%d\nCONTAINER_PARTIAL_LAST=%b\n"
        numbers = about % (part.id.encode(), part.ordinal, b"true" if last else b"false")
        self._send(b"%b%b%bMESSAGE=%b\n" % (head, partial, numbers, data), part.time_nanos)

    def _head(self, stream: int, time_nanos: int) -> bytes:
        stamp = self._clock.text(time_nanos)
        return b"%bPRIORITY=%b\nSYSLOG_TIMESTAMP=%b\n" % (self._fields, _PRIORITIES[stream], stamp)

    def _send(self, entry: bytes, time_nanos: int) -> bool:
        if self._losses.count:
            if time.monotonic() < self._retry_at:
                self._losses.count += 1
                return False
            self._socket.settimeout(0)
        try:
            if self._losses.count:
                note = b"%bMESSAGE=%b" % (self._head(2, time_nanos), self._losses.note())
                self._deliver(note)
                self._losses.forget()
                self._socket.settimeout(_PATIENCE_S)
            self._deliver(entry)
        except OSError as error:
            self._losses.add(1, f"the journal: {os.strerror(error.errno or errno.EAGAIN).lower()}")
            self._retry_at = time.monotonic() + _RETRY_S
            return False
        return True

    def _deliver(self, entry: bytes) -> None:
        try:
            self._socket.send(entry)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._deliver_sealed(entry)
            elif error.errno in (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
                self._socket.connect(self._path)  # the journal was started anew
                self._socket.send(entry)
            else:
                raise

    def _deliver_sealed(self, entry: bytes) -> None:
        """An entry that no datagram holds goes as a memfd that nobody can change any more."""
        fd = os.memfd_create("hutch-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, entry)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))
            self._socket.sendmsg([b""], [rights])
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
