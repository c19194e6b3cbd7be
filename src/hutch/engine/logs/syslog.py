"""Output to a syslog daemon, here or over the network: RFC 3164, RFC 5424, and what local daemons expect.

It stands behind a `Ring`, in a thread of its own: it may wait for the network, and tries again until the daemon is
back or it is interrupted.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

from hutch.engine.logs import address
from hutch.engine.logs.lines import PIECE
from hutch.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from hutch.engine.logs.lines import Part
    from hutch.engine.logs.tags import LogSource

_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_INFO, _ERROR = 6, 3
_PATIENCE_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class Syslog:
    """A sink that sends to syslog.

    Args:
        options: the driver's, checked.
        source: the container.

    Raises:
        Unavailable: the address is of this host, or local, and nobody is there. A daemon elsewhere may come later.
    """

    def __init__(self, options: Mapping[str, str], source: LogSource) -> None:
        self._target = address.parse(options)
        self._tag = address.tag(options, source).encode()
        self._host = os.uname().nodename.encode() or b"-"
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._socket: socket.socket | None = None
        self._context = self._tls() if self._target.scheme == address.TLS else None
        if self._target.scheme in ("", "unix", "unixgram"):
            try:
                self._connect()
            except OSError as error:
                where = self._target.host or "/dev/log"
                raise Unavailable(
                    f"unix syslog delivery error: {where}: {os.strerror(error.errno or 0).lower()}",
                    hint="is a syslog daemon running? --log-opt syslog-address= names another",
                ) from None

    def _tls(self) -> ssl.SSLContext:
        import ssl

        target = self._target
        try:
            context = ssl.create_default_context(cafile=target.ca or None)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as for registries: home-made authorities will do
            if target.skip_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if target.certificate:
                context.load_cert_chain(target.certificate, target.key)
        except OSError as error:  # SSLError is one
            raise Unavailable(f"syslog: cannot use the TLS files: {str(error).lower()}") from None
        return context

    def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
        """Send whole lines."""
        for line in block[:-1].split(b"\n"):
            if not self._deliver(self._message(stream, line, time_nanos)):
                return

    def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
        """Send a piece of a long line as a message of its own, as docker does."""
        del last
        self._deliver(self._message(stream, data, part.time_nanos))

    def _message(self, stream: int, line: bytes, time_nanos: int) -> bytes:
        priority = self._target.facility * 8 + (_INFO if stream == 1 else _ERROR)
        style, host, tag = self._target.format, self._host, self._tag
        if style.startswith("rfc5424"):
            stamp = _stamp(time_nanos, micro=style.endswith("micro"))
            message = b"<%d>1 %b %b %b %d %b - %b\n" % (priority, stamp, host, tag, self._pid, tag, line)
            if self._context is not None:
                return b"%d %b" % (len(message), message)  # RFC 5425, octet counting
            return message
        stamp = _old_stamp(time_nanos)
        where = b"%b %b" % (stamp, host) if style else stamp
        return b"<%d>%b %b[%d]: %b\n" % (priority, where, tag, self._pid, line)

    def _deliver(self, message: bytes) -> bool:
        """Send until it worked or nobody wants it any more; whether it worked."""
        pause = _FIRST_PAUSE_S
        while not self._ended.is_set():
            try:
                if self._socket is None or self._is_closed(self._socket):
                    self._disconnect()
                    self._connect()
                self._send(message)
                return True
            except OSError:
                self._disconnect()
                self._ended.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        return False

    def _send(self, message: bytes) -> None:
        connected = self._socket
        if connected is None:
            raise ConnectionError
        if connected.type == socket.SOCK_STREAM:
            connected.sendall(message)
            return
        try:
            connected.send(message)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            connected.send(message[: PIECE // 16] + b"\n")  # what every syslog daemon takes

    def _is_closed(self, connected: socket.socket) -> bool:
        """Whether the other side went away: the first message into such a connection would be lost in silence."""
        if connected.type != socket.SOCK_STREAM:
            return False
        connected.settimeout(0)
        try:
            return connected.recv(1024) == b""
        except OSError as error:
            if isinstance(error, BlockingIOError):
                return False
            if self._context is None:
                raise
            from ssl import SSLWantReadError

            return not isinstance(error, SSLWantReadError)
        finally:
            connected.settimeout(_PATIENCE_S)

    def _connect(self) -> None:
        target = self._target
        if target.scheme in ("", "unix", "unixgram"):
            self._socket = _local(target.scheme, target.host)
        elif target.scheme == "udp":
            family, kind, protocol, _, where = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.settimeout(_PATIENCE_S)
            self._socket.connect(where)
        else:
            connected = socket.create_connection((target.host, target.port), _PATIENCE_S)
            if self._context is not None:
                try:
                    connected = self._context.wrap_socket(connected, server_hostname=target.host)
                except BaseException:
                    connected.close()
                    raise
            self._socket = connected

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def interrupt(self) -> None:
        """Give up what is being sent; nothing can be sent any more."""
        self._ended.set()

    def close(self) -> None:
        """Close the connection."""
        self._ended.set()
        self._disconnect()


def _local(scheme: str, path: str) -> socket.socket:
    """A socket connected to this host's daemon.

    Raises:
        OSError: nobody is there.
    """
    kinds = {"unix": (socket.SOCK_STREAM,), "unixgram": (socket.SOCK_DGRAM,)}
    failed: OSError = FileNotFoundError(2, "no such file or directory")
    for place in (path,) if path else _LOCAL:
        for kind in kinds.get(scheme, (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            found = socket.socket(socket.AF_UNIX, kind)
            try:
                found.settimeout(_PATIENCE_S)
                found.connect(place)
            except OSError as error:
                found.close()
                failed = error
            else:
                return found
    raise failed


def _old_stamp(time_nanos: int) -> bytes:
    """``Jan  2 15:04:05`` in local time, in no locale's words."""
    at = time.localtime(time_nanos // 1_000_000_000)
    return b"%b %2d %02d:%02d:%02d" % (_MONTHS[at.tm_mon - 1], at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec)


def _stamp(time_nanos: int, *, micro: bool) -> bytes:
    second, nanos = divmod(time_nanos, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
    return b"%b.%06dZ" % (text, nanos // 1000) if micro else text + b"Z"
