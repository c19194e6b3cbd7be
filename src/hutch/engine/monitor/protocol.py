"""What is said between a container's monitor (or an exec session) and its clients.

    client                                    monitor
    {"op": "attach", …}      ───request──▶
    STDIN data · END_OF_INPUT
    RESIZE · SIGNAL · HUNG_UP ──────────▶
    RELEASE
                             ◀───────────     STARTED · STDOUT · STDERR · WARNING · STEP
                             ◀───────────     ENDED or FAILED, and the end

A message is one byte that says what it is, then its content; a request is a JSON object and starts with ``{``. Sockets
keep messages apart (SOCK_SEQPACKET). Nothing is larger than LIMIT.
"""

from __future__ import annotations

import os
import struct

from hutch import errors
from hutch.errors import HutchError, Internal
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.linux.seqpacket import Channel

CHUNK = 65536
LIMIT = CHUNK + 1
REQUEST_LIMIT = 1 << 20

STDIN, END_OF_INPUT, RESIZE, SIGNAL, RELEASE, HUNG_UP = b"i", b"e", b"r", b"k", b"l", b"h"
ACCEPTED, STARTED, STDOUT, STDERR, WARNING, STEP, ENDED, FAILED, STALE = (
    b"a", b"s", b"o", b"x", b"w", b"t", b"q", b"f", b"!",
)  # fmt: skip

_SIZE = struct.Struct("<HH")


def receive(channel: Channel) -> tuple[bytes, bytes]:
    """The next message: its kind and its content, both empty at the end.

    Raises:
        OSError: as `Channel.recv`, but for ECONNRESET: the other end has closed without reading all of ours, which the
            kernel says before it hands out what that had sent.
    """
    try:
        message, fds = channel.recv(REQUEST_LIMIT)
    except ConnectionResetError:
        message, fds = channel.recv(REQUEST_LIMIT)
    for fd in fds:
        os.close(fd)
    return message[:1], message[1:]


def resize(rows: int, columns: int) -> bytes:
    """The message of a new window size."""
    return RESIZE + _SIZE.pack(min(rows, 0xFFFF), min(columns, 0xFFFF))


def window_size(content: bytes) -> tuple[int, int]:
    """Rows and columns of a RESIZE."""
    if len(content) != _SIZE.size:
        raise Internal("window size: malformed")
    rows, columns = _SIZE.unpack(content)
    return rows, columns


def document(kind: bytes, content: dict[str, Any]) -> bytes:
    """A message whose content is JSON."""
    return kind + documents.dump_bytes(content)


def parse(content: bytes) -> dict[str, Any]:
    """The JSON of a message or request."""
    return documents.parse_object(content, source="message")


def failure(error: HutchError) -> bytes:
    """An error, for somebody else to raise."""
    found = {"kind": type(error).__name__, "message": str(error), "hint": error.hint, "exit_code": error.exit_code}
    for name in ("have", "want"):
        if hasattr(error, name):
            found[name] = getattr(error, name)
    return document(FAILED, found)


class Failed(HutchError):
    """An error of another process whose class takes more than a message."""


def as_error(content: bytes) -> HutchError:
    """The error of a FAILED message, of the class it was there."""
    found = parse(content)
    message, hint = str(found.get("message")), str(found.get("hint", ""))
    kind = getattr(errors, str(found.get("kind")), None)
    error: HutchError
    if "have" in found and kind is errors.InvalidState:
        error = errors.InvalidState(message, have=str(found["have"]), want=str(found.get("want", "")), hint=hint)
    elif isinstance(kind, type) and issubclass(kind, HutchError) and kind.__init__ is HutchError.__init__:
        error = kind(message, hint=hint)
    else:
        error = Failed(message, hint=hint)
    error.exit_code = int(found.get("exit_code", 125))
    return error
