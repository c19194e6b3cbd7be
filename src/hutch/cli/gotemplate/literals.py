"""Go's literals: numbers, characters, quoted strings."""

from __future__ import annotations

_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_HEX = {"x": 2, "u": 4, "U": 8}
_INT64 = range(-(1 << 63), 1 << 63)


def number(text: str) -> int | float:
    """The value of a number as the lexer takes it.

    Raises:
        ValueError: the message is Go's.
    """
    from hutch.cli.gotemplate.lexer import quoted

    plain = text.lstrip("+-").lower()
    if plain.endswith("i"):
        raise ValueError(f"complex numbers are not supported: {text}")
    try:
        if not plain.startswith(("0x", "0o", "0b")) and any(char in plain for char in ".e"):
            return _float(text)
        octal = plain.isdigit() and len(plain) > 1 and plain.startswith("0")
        value = int(text, 8) if octal else int(text, 0)
    except ValueError:
        raise ValueError(f"illegal number syntax: {quoted(text)}") from None
    if value not in _INT64:
        raise ValueError(f"integer overflow: {quoted(text)}")
    return value


def _float(text: str) -> float:
    if "_" in text:
        raise ValueError("only integers of a stated base have underscores")
    value = float(text)
    if value - value != 0:
        raise ValueError("beyond a double")
    return value


def character(text: str) -> int:
    """The number of a character constant, its quotes included.

    Raises:
        ValueError: malformed.
    """
    inner = text[1:-1]
    if not inner:
        raise ValueError("invalid syntax")
    if len(inner) != 1 or inner == "\\":
        found = string(f'"{inner}"', quote="'") if inner.startswith("\\") else ""
        if len(found) != 1:
            raise ValueError(f"malformed character constant: {text}")
        inner = found
    return ord(inner)


def string(text: str, *, quote: str = '"') -> str:
    """What a string literal, in its quotes or back quotes, stands for.

    Raises:
        ValueError: an escape that Go does not know.
    """
    if text.startswith("`"):
        return text[1:-1].replace("\r", "")
    out = bytearray()
    rest = text[1:-1]
    while rest:
        before, slash, rest = rest.partition("\\")
        out += before.encode("utf-8", "surrogateescape")
        if not slash:
            break
        taken, size = _escape(rest, quote)
        out += taken
        rest = rest[size:]
    return out.decode("utf-8", "surrogateescape")


def _escape(rest: str, quote: str) -> tuple[bytes, int]:
    """The bytes of the escape that `rest` begins with, and how many characters it takes."""
    char = rest[:1]
    if char in _SIMPLE:
        return bytes([_SIMPLE[char]]), 1
    if char == quote:
        return char.encode(), 1
    size = _HEX.get(char, 0)
    digits = rest[1 : 1 + size] if size else rest[:3]
    allowed = "0123456789abcdefABCDEF" if size else "01234567"
    if len(digits) == (size or 3) and all(digit in allowed for digit in digits):
        value = int(digits, 16 if size else 8)
        if size > 2 and value <= 0x10FFFF and not 0xD800 <= value < 0xE000:
            return chr(value).encode(), 1 + size
        if size <= 2 and value <= 0xFF:
            return bytes([value]), 1 + size if size else 3
    raise ValueError("invalid syntax")
