"""The number, string and record formats inside tar headers: octal, base-256, PAX records, sparse maps.

Pure functions over bytes from an untrusted archive. Each either returns what every reader of the format
would agree on, or raises InvalidLayer: where GNU tar, Go's archive/tar and Python's tarfile read a field
differently, the archive is refused (CVE-2025-62518 and its kin smuggle entries through such differences).

Formats: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Storing Sparse Files" and "GNU Extensions to the Archive Format".
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64

from hutch.errors import InvalidLayer

NAME_MAX_BYTES = 4095  # PATH_MAX without the NUL
SPARSE_SEGMENTS_MAX = 100_000
SIZE_MAX = (1 << 63) - 1

_SEGMENT_BYTES = 24
_XATTR_PREFIXES = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")


def octal(field: bytes, what: str) -> int:
    """Decode a numeric header field: octal text, or base-256 when the first bit is set.

    Args:
        field: the whole field, terminator included.
        what: the field's name, for the message.

    Returns:
        The number, never negative; an all-blank field is 0.
    """
    text = field.rstrip(b" \0").lstrip(b" ")  # a NUL in front is skipped by GNU tar, and ends the field elsewhere
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            raise InvalidLayer(f"tar header: {what} is not octal") from None
    if not text and field[0] < 0x80:
        return 0
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        raise InvalidLayer(f"tar header: {what} is negative")
    raise InvalidLayer(f"tar header: {what} is not a number")


def timestamp(field: bytes) -> int:
    """Decode the mtime field, in seconds; the only field where base-256 may be negative."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    return octal(field, "mtime")


def decimal(value: bytes, what: str, maximum: int = SIZE_MAX) -> int:
    """Decode a non-negative decimal number of a PAX record."""
    if not value.isdigit() or len(value) > 19:
        raise InvalidLayer(f"pax header: {what} is not a number")
    number = int(value)
    if number > maximum:
        raise InvalidLayer(f"pax header: {what} is out of range")
    return number


def pax_time(value: bytes, what: str) -> int:
    """Decode `[-]seconds[.fraction]` into nanoseconds, truncated towards the past as POSIX asks."""
    body = value[1:] if value[:1] == b"-" else value
    seconds, dot, fraction = body.partition(b".")
    if not seconds.isdigit() or len(seconds) > 15 or (dot and fraction and not fraction.isdigit()):
        raise InvalidLayer(f"pax header: {what} is not a time")
    nanos = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0")
    return -nanos if body is not value else nanos


def text(value: bytes, what: str) -> bytes:
    """Check a name of a PAX record: not empty, no NUL, no longer than a path may be."""
    if not value or b"\0" in value:
        raise InvalidLayer(f"pax header: {what} is empty or holds a NUL")
    if len(value) > NAME_MAX_BYTES:
        raise InvalidLayer(f"pax header: {what}: file name too long")
    return value


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split the body of an extended header into (keyword, value) pairs, in order, repeats kept."""
    found: list[tuple[bytes, bytes]] = []
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 9)
        length = data[position:space] if space > 0 else b""
        if not length.isdigit():
            raise InvalidLayer("pax header: record without a length")
        following = position + int(length)
        if following > end or following <= space + 1 or data[following - 1] != 0x0A:
            raise InvalidLayer("pax header: record length does not meet its end")
        key, equals, value = data[space + 1 : following - 1].partition(b"=")
        if not equals or not key:
            raise InvalidLayer("pax header: record without a keyword")
        found.append((key, value))
        position = following
    return found


def xattr_name(key: bytes) -> bytes | None:
    """The extended attribute a PAX keyword stands for, or None for another keyword."""
    for prefix in _XATTR_PREFIXES:
        if key.startswith(prefix):
            name = key[len(prefix) :]
            if prefix == _XATTR_PREFIXES[1] and b"%" in name:
                name = _percent_decoded(name)
            if not name or b"\0" in name:
                raise InvalidLayer("pax header: extended attribute without a name")
            return name
    return None


def _percent_decoded(name: bytes) -> bytes:
    """Undo libarchive's URL encoding of attribute names."""
    head, *parts = name.split(b"%")
    out = bytearray(head)
    for part in parts:
        try:
            out += bytes.fromhex(part[:2].decode("ascii")) + part[2:]
        except ValueError:
            raise InvalidLayer("pax header: extended attribute name is not URL-encoded") from None
    return bytes(out)


def base64_decoded(value: bytes) -> bytes:
    """Decode the value of a LIBARCHIVE.xattr record (base64, padding optional)."""
    try:
        return a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except Base64Error:
        raise InvalidLayer("pax header: extended attribute is not base64") from None


def old_gnu_segments(block: bytes, offset: int, count: int) -> list[tuple[int, int]]:
    """Read `count` (offset, size) pairs of the old GNU sparse format; stops at the first empty slot."""
    segments = []
    for at in range(offset, offset + count * _SEGMENT_BYTES, _SEGMENT_BYTES):
        if block[at] == 0:
            break
        segments.append((octal(block[at : at + 12], "sparse offset"), octal(block[at + 12 : at + 24], "sparse size")))
    return segments


def pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    """Turn `offset size offset size …` in decimal into segments."""
    if len(numbers) % 2:
        raise InvalidLayer("sparse map: odd count of numbers")
    if len(numbers) > 2 * SPARSE_SEGMENTS_MAX:
        raise InvalidLayer(f"sparse map: more than {SPARSE_SEGMENTS_MAX} segments")
    values = [decimal(number, "sparse map") for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def check_segments(segments: list[tuple[int, int]], stored: int, real_size: int) -> None:
    """Refuse a sparse map that is out of order, overlaps, leaves the file or disagrees with the data stored."""
    position = total = 0
    for offset, size in segments:
        if offset < position or size > real_size - offset:
            raise InvalidLayer("sparse map: segments overlap or lie outside the file")
        position = offset + size
        total += size
    if total != stored:
        raise InvalidLayer("sparse map: segments do not add up to the data stored")
