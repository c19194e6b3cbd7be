"""A minimal D-Bus client: one connection, method calls, and signals that arrive meanwhile.

Enough to ask systemd for a unit, and loaded only for that. Names, object paths and values come from the caller
checked; the bus and systemd are trusted, but every read is bounded and every wait ends.

D-Bus specification, 0.43: authentication EXTERNAL, wire format of version 1.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

from hutch.errors import NotSupported, PermissionDenied, Unavailable

_MAX_MESSAGE = 1 << 20
_CALL, _REPLY, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_HEADER_TYPES = {_PATH: "o", _INTERFACE: "s", _MEMBER: "s", _DESTINATION: "s", _SIGNATURE: "g"}

# type → (struct format, alignment)
_NUMBERS = {
    "y": ("<B", 1),
    "b": ("<I", 4),
    "n": ("<h", 2),
    "q": ("<H", 2),
    "i": ("<i", 4),
    "u": ("<I", 4),
    "x": ("<q", 8),
    "t": ("<Q", 8),
    "d": ("<d", 8),
}
_ALIGNMENT = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


class DBusError(Exception):
    """The other side answered with an error.

    Attributes:
        name: such as ``org.freedesktop.systemd1.NoSuchUnit``.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})")
        self.name = name


# --- wire format ------------------------------------------------------------------------------------------------


def split(signature: str) -> list[str]:
    """Split a signature into its complete types: ``a(sv)u`` → ``a(sv)``, ``u``."""
    types, start, depth, i = [], 0, 0, 0
    while i < len(signature):
        c = signature[i]
        if c in "({":
            depth += 1
        elif c in ")}":
            depth -= 1
        if depth == 0 and c != "a":
            types.append(signature[start : i + 1])
            start = i + 1
        i += 1
    return types


def _pad(data: bytearray, alignment: int) -> None:
    data.extend(bytes(-len(data) % alignment))


def marshal(data: bytearray, kind: str, value: Any) -> None:
    """Append one value of one complete type; a variant is (signature, value), a dict's entries are pairs."""
    if kind in _NUMBERS:
        form, alignment = _NUMBERS[kind]
        _pad(data, alignment)
        data += struct.pack(form, value)
    elif kind in {"s", "o"}:
        text = value.encode()
        _pad(data, 4)
        data += struct.pack("<I", len(text)) + text + b"\0"
    elif kind == "g":
        data += bytes([len(value)]) + value.encode() + b"\0"
    elif kind == "v":
        signature, inner = value
        marshal(data, "g", signature)
        marshal(data, signature, inner)
    elif kind[0] == "a":
        _pad(data, 4)
        at = len(data)
        data += bytes(4)
        _pad(data, _NUMBERS[kind[1]][1] if kind[1] in _NUMBERS else _ALIGNMENT[kind[1]])
        start = len(data)
        for item in value:
            marshal(data, kind[1:], item)
        struct.pack_into("<I", data, at, len(data) - start)
    else:
        _pad(data, 8)
        for inner_kind, item in zip(split(kind[1:-1]), value, strict=True):
            marshal(data, inner_kind, item)


class Reader:
    """Takes values out of a message's bytes; struct.error or IndexError where they end early."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def align(self, alignment: int) -> None:
        """Skip padding."""
        self.at += -self.at % alignment

    def take(self, kind: str) -> Any:
        """Take one value of one complete type; a variant is only its value."""
        if kind in _NUMBERS:
            form, alignment = _NUMBERS[kind]
            self.align(alignment)
            (value,) = struct.unpack_from(form, self._data, self.at)
            self.at += struct.calcsize(form)
            return bool(value) if kind == "b" else value
        if kind in {"s", "o", "g"}:
            length = self.take("y") if kind == "g" else self.take("u")
            text = self._data[self.at : self.at + length].decode()
            self.at += length + 1
            return text
        if kind == "v":
            return self.take(self.take("g"))
        if kind[0] == "a":
            length = self.take("u")
            self.align(_NUMBERS[kind[1]][1] if kind[1] in _NUMBERS else _ALIGNMENT[kind[1]])
            end = self.at + length
            items = []
            while self.at < end:
                items.append(self.take(kind[1:]))
            return items
        self.align(8)
        return tuple(self.take(inner) for inner in split(kind[1:-1]))


# --- connection -------------------------------------------------------------------------------------------------


class Signal:
    """A signal that arrived: its member's name and its values."""

    __slots__ = ("member", "values")

    def __init__(self, member: str, values: tuple[Any, ...]) -> None:
        self.member = member
        self.values = values


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"not a message ({type(error).__name__})"


class Connection:
    """A connection to a message bus, closed by `close`."""

    def __init__(self, path: str, timeout_s: float = 30.0) -> None:
        """Connect to the bus at a unix socket and say hello.

        Raises:
            NotSupported: there is no bus.
            PermissionDenied: it does not let this user in.
            Unavailable: it did not answer in time.
        """
        self._timeout_s = timeout_s
        self._serial = 0
        self._signals: list[Signal] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            self._authenticate()
            self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self.close()
            raise NotSupported(f"d-bus: {path}: {(error.strerror or '').lower()}") from error
        except PermissionError as error:
            self.close()
            raise PermissionDenied(f"d-bus: {path}: permission denied") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"d-bus: {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _authenticate(self) -> None:
        """EXTERNAL: the kernel tells the bus who we are; we only repeat the uid, in hex of its decimal digits."""
        uid = str(os.geteuid()).encode().hex()
        self._socket.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte or len(line) > 4096:
                raise Unavailable("d-bus: the connection was closed during authentication")
            line += byte
        if not line.startswith(b"OK "):
            raise PermissionDenied(f"d-bus: not authenticated: {line[:100].decode(errors='replace').strip()}")
        self._socket.sendall(b"BEGIN\r\n")

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *values: Any
    ) -> tuple[Any, ...]:
        """Call a method and return its result's values; signals that come first are kept for `signal`.

        Raises:
            DBusError: the method's own error.
            Unavailable: no answer in time, or the connection was lost.
        """
        self._serial += 1
        serial = self._serial
        header = {_PATH: path, _INTERFACE: interface, _MEMBER: member, _DESTINATION: destination}
        if signature:
            header[_SIGNATURE] = signature
        body = bytearray()
        for kind, value in zip(split(signature), values, strict=True):
            marshal(body, kind, value)
        message = bytearray(struct.pack("<BBBBII", ord("l"), _CALL, 0, 1, len(body), serial))
        marshal(message, "a(yv)", [(field, (_HEADER_TYPES[field], text)) for field, text in header.items()])
        _pad(message, 8)
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.sendall(message + body)
            while True:
                kind_, fields, answer = self._receive(deadline)
                if fields.get(_REPLY_SERIAL) != serial:
                    continue
                if kind_ == _ERROR:
                    raise DBusError(fields.get(_ERROR_NAME, "?"), str(answer[0]) if answer else "no message")
                return answer
        except (OSError, struct.error, IndexError, UnicodeDecodeError, KeyError) as error:
            raise Unavailable(f"d-bus: {member}: {_words(error)}") from error

    def signal(self, deadline: float) -> Signal:
        """Return the next signal, waiting until `deadline` (time.monotonic()).

        Raises:
            Unavailable: none came, or the connection was lost.
        """
        try:
            while not self._signals:
                self._receive(deadline)
        except (OSError, struct.error, IndexError, UnicodeDecodeError, KeyError) as error:
            raise Unavailable(f"d-bus: waiting for a signal: {_words(error)}") from error
        return self._signals.pop(0)

    def _receive(self, deadline: float) -> tuple[int, dict[int, Any], tuple[Any, ...]]:
        fixed = self._exactly(16, deadline)
        order, kind, _, _, body_length, _, fields_length = struct.unpack("<BBBBIII", fixed)
        length = fields_length + -fields_length % 8 + body_length
        if order != ord("l") or length > _MAX_MESSAGE:
            raise Unavailable("d-bus: a message that is not little-endian or longer than 1 MiB")
        data = fixed + self._exactly(length, deadline)
        fields = dict(Reader(data, 12).take("a(yv)"))
        reader = Reader(data, 16 + fields_length + -fields_length % 8)
        values = tuple(reader.take(each) for each in split(fields.get(_SIGNATURE, "")))
        if kind == _SIGNAL:
            self._signals.append(Signal(fields[_MEMBER], values))
            del self._signals[:-1000]
        return kind, fields, values

    def _exactly(self, length: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left_s)
            chunk = self._socket.recv(length - len(data))
            if not chunk:
                raise ConnectionResetError("the connection was closed")
            data += chunk
        return bytes(data)
