"""JSON in and out on the start-up path: what `json` does, without its 9 ms of imports.

`_json` is a private name of CPython, so it is wrapped here once; where it is missing (another interpreter), or
where a document does not parse, the public `json` module does the work and words the complaint.

Stricter than `json`: a repeated key, NaN, Infinity and an integer beyond 64 bits are errors, because each is read
differently by different parsers of one config.json.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONFIG_LIMIT = 16 << 20
"""Bytes; a config.json with a long seccomp profile has 100 KB."""

_INTEGERS = range(-(1 << 63), 1 << 64)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"repeated key {key!r}")
            seen.add(key)
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"not a JSON number: {word}")


def _float(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise ValueError("number beyond a double")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 21 or (number := int(digits)) not in _INTEGERS:
        raise ValueError("integer beyond 64 bits")
    return number


class _Rules:
    """What the C scanner reads its settings from; the names are json.JSONDecoder's."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_pairs)
    parse_float = staticmethod(_float)
    parse_int = staticmethod(_integer)
    parse_constant = staticmethod(_constant)


def _with_json(text: str) -> Any:
    import json

    return json.loads(text, object_pairs_hook=_pairs, parse_float=_float, parse_int=_integer, parse_constant=_constant)


_scan: Callable[[str, int], tuple[Any, int]] | None
_encode: Callable[[str], str] | None
try:
    from _json import encode_basestring as _c_encode
    from _json import make_scanner
except ImportError:
    _scan = _encode = None
else:
    _scan = make_scanner(_Rules)  # type: ignore[arg-type]  # typeshed has the class for its own argument
    _encode = _c_encode


def parse(text: str, *, source: str) -> Any:
    """Parse one JSON document.

    Args:
        text: the document; untrusted, its size already bounded by the caller.
        source: what to call it in an error, such as its path.

    Raises:
        InvalidConfig: not JSON, or nested too deeply; the message has the line and column.
    """
    if _scan is not None:
        try:
            start = len(text) - len(text.lstrip(" \t\r\n"))
            value, end = _scan(text, start)
            if not text[end:].strip(" \t\r\n"):
                return value
        except (StopIteration, ValueError, RecursionError, SystemError):
            pass  # the slow way below finds the same fault and knows how to say it
    try:
        return _with_json(text)
    except RecursionError:
        raise InvalidConfig(f"{source}: nested too deeply") from None
    except ValueError as error:
        message = str(error)
        raise InvalidConfig(f"{source}: {message[:1].lower()}{message[1:]}") from None


def parse_object(data: bytes, *, source: str) -> dict[str, Any]:
    """Parse a document that must be one JSON object in UTF-8; errors as `parse`."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{source}: not UTF-8 at byte {error.start}") from None
    value = parse(text, source=source)
    if not isinstance(value, dict):
        raise InvalidConfig(f"{source}: not a JSON object")
    return value


def read_object(path: str, limit: int = CONFIG_LIMIT, *, dir_fd: int | None = None) -> dict[str, Any]:
    """Read and parse a JSON object from a regular file.

    Args:
        path: a trusted path of the host's; its last component may be a link.
        limit: bytes; a longer file is an error.
        dir_fd: the directory a relative path starts at.

    Raises:
        InvalidConfig: longer than `limit`, not a regular file, or not a JSON object.
        OSError: open(2) or read(2) failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidConfig(f"{path}: not a regular file")
        return parse_object(read_bounded(fd, limit, source=path), source=path)
    finally:
        os.close(fd)


def read_bounded(fd: int, limit: int, *, source: str) -> bytes:
    """Read `fd` to its end; InvalidConfig when there are more than `limit` bytes."""
    parts, received = [], 0
    while chunk := os.read(fd, min(limit + 1 - received, 1 << 18)):
        parts.append(chunk)
        received += len(chunk)
        if received > limit:
            raise InvalidConfig(f"{source}: {os.strerror(errno.EFBIG).lower()}: more than {limit} bytes")
    return b"".join(parts)


def _quoted(text: str) -> str:
    if _encode is not None:
        return _encode(text)
    import json

    return json.dumps(text, ensure_ascii=False)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN
        return repr(value)
    raise TypeError(f"{value!r} has no JSON form")


def dump(value: object, indent: str = "") -> str:
    """Format a value as JSON.

    Args:
        value: dicts with text keys, lists, tuples, text, numbers, booleans and None.
        indent: the white space of one level; empty gives the compact form on one line.

    Raises:
        TypeError: something else is in there.
    """
    out: list[str] = []
    _dump(value, indent, "\n" if indent else "", ": " if indent else ":", out)
    return "".join(out)


def dump_bytes(value: object, indent: str = "") -> bytes:
    """`dump`, as UTF-8; undecodable bytes in a text (surrogates, in Python) are escaped, and `parse` restores them."""
    return dump(value, indent).encode("utf-8", "backslashreplace")


def _dump(value: object, indent: str, newline: str, colon: str, out: list[str]) -> None:
    if not isinstance(value, (dict, list, tuple)):
        out.append(_scalar(value))
        return
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    if not value:
        out.append(opening + closing)
        return
    inner = newline + indent if indent else ""
    separator = opening + inner
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is no JSON key")
            out.append(separator + _quoted(key) + colon)
            _dump(item, indent, inner, colon, out)
            separator = "," + inner
    else:
        for item in value:
            out.append(separator)
            _dump(item, indent, inner, colon, out)
            separator = "," + inner
    out.append(newline + closing)
