"""Docker's json-file format: one JSON object a line, ``{"log":"…\\n","stream":"stdout","time":"…Z"}``.

A whole block of lines is turned at once: what the lines of one chunk have in common stands in place of each newline,
so that Python does nothing line by line unless a line is long.
"""

from __future__ import annotations

import codecs
import os

from hutch.engine.logs.lines import STREAMS, Clock
from hutch.engine.logs.rotation import FULL, RotatedFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from hutch.engine.logs.lines import Part

_HEAD = b'{"log":"'
_BLOCK = 64 << 10
# Go's encoding/json escapes what HTML and JavaScript read in their own way; docker's logs keep to it.
_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\r": b"\\r", b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"}
_CONTROLS = bytes(code for code in range(0x20) if code not in b"\r\n")
_PLAIN = bytes(code for code in range(0x20, 0x80) if bytes((code,)) not in _ESCAPES) + b"\n"
_NO_CONTROLS = bytes(code for code in range(0x100) if code not in _CONTROLS)
_SEPARATORS = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}


def _one_for_each_byte(error: UnicodeError) -> tuple[str, int]:
    """Replace undecodable bytes as Go does: each of them, not each sequence."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error("hutch-each-byte", _one_for_each_byte)


def escaped(data: bytes) -> bytes:
    """`data` as the inside of a JSON string; newlines are left as they are."""
    odd = data.translate(None, _PLAIN)
    if not odd:
        return data
    for char, escape in _ESCAPES.items():
        if char in odd:
            data = data.replace(char, escape)
    for code in set(odd.translate(None, _NO_CONTROLS)):
        data = data.replace(bytes((code,)), b"\\u%04x" % code)
    if odd.isascii():
        return data
    for char, escape in _SEPARATORS.items():
        data = data.replace(char, escape)
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "hutch-each-byte").encode()
    return data


def whole(fd: int) -> int:
    """How much of a log file is whole lines, in bytes."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def quoted(text: str) -> bytes:
    """`text` as a JSON string."""
    return b'"' + escaped(text.encode("utf-8", "surrogateescape")).replace(b"\n", b"\\n") + b'"'


class JsonFile:
    """A sink that writes json-file logs.

    Args:
        file: the log.
        attributes: what every line has as ``attrs``.
    """

    __slots__ = ("_clock", "_file", "_tails")

    def __init__(self, file: RotatedFile, attributes: Mapping[str, str]) -> None:
        self._file = file
        self._clock = Clock()
        attrs = b",".join(quoted(key) + b":" + quoted(attributes[key]) for key in sorted(attributes))
        attrs = b',"attrs":{%b}' % attrs if attrs else b""
        self._tails = {
            number: b'","stream":"%b"%b,"time":"' % (name.encode(), attrs) for number, name in STREAMS.items()
        }

    def lines(self, stream: int, block: bytes, time_nanos: int) -> None:
        """Write whole lines."""
        tail = b'\\n%b%b"}\n' % (self._tails[stream], self._clock.text(time_nanos))
        text = escaped(block[:-1])
        self._write(b"%b%b%b" % (_HEAD, text.replace(b"\n", tail + _HEAD), tail), time_nanos)

    def piece(self, stream: int, data: bytes, part: Part, *, last: bool) -> None:
        """Write a piece of a long line; only the last one ends with a newline in its text."""
        end = b"\\n" if last else b""
        time = self._clock.text(part.time_nanos)
        self._write(b'%b%b%b%b%b"}\n' % (_HEAD, escaped(data), end, self._tails[stream], time), part.time_nanos)

    def _write(self, text: bytes, time_nanos: int) -> None:
        file = self._file
        telling = file.losses.count > 0
        while text:
            note = self._note(time_nanos) if telling else b""
            cut = len(text)
            if cut > file.room():
                cut = text.find(b"\n", file.room() - 1) + 1 or cut
            try:
                # The note goes with a line that there is room for too, else it would have to be written again.
                done = file.append(note + text[:cut], by_line=not telling) - len(note)
            except OSError as error:
                file.losses.add(text.count(b"\n"), os.strerror(error.errno or 0).lower())
                return
            if done < cut:
                file.losses.add(text.count(b"\n", max(done, 0)), FULL)
                return
            text = text[done:]
            if telling:
                file.losses.forget()
                telling = False

    def _note(self, time_nanos: int) -> bytes:
        """What was lost, as a line of stderr."""
        said = escaped(self._file.losses.note()[:-1])
        return b'%b%b\\n%b%b"}\n' % (_HEAD, said, self._tails[2], self._clock.text(time_nanos))

    def close(self) -> None:
        """Close the log."""
        self._file.close()
