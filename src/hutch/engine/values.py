"""The grammars of single option values: sizes, numbers, rates, signals, environment and label files.

Everything comes from the user, so each parser is bounded and says in Docker's words what is wrong. Errors are
InvalidArgument; `hutch.cli.flags` adds the name of the flag.
"""

from __future__ import annotations

import os
import stat

from hutch.errors import InvalidArgument
from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE_LIMIT = 1 << 20
LINE_LIMIT = 64 << 10
_UNITS = ("", "k", "m", "g", "t", "p")
_INT64_MAX = (1 << 63) - 1
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_DIGITS = frozenset("0123456789")


def only_digits(text: str) -> bool:
    """Whether `text` is ASCII digits and nothing else; str.isdigit() also takes other scripts' digits."""
    return bool(text) and _DIGITS.issuperset(text)


def has_control(text: str) -> bool:
    """Whether `text` holds a control character, which could start a new line or field in a file we write."""
    return any(char < " " or char == "\x7f" or "\x80" <= char <= "\x9f" or char in "\u2028\u2029" for char in text)


def parse_bool(text: str) -> bool:
    """Read a truth value as Go's strconv.ParseBool does."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument("not a truth value: give true or false")


def parse_int(text: str, *, low: int = -(1 << 63), high: int = _INT64_MAX) -> int:
    """Read a decimal integer between `low` and `high`."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not only_digits(digits):
        raise InvalidArgument(f"not a number: '{text[:64]}'")
    if len(digits) > 19 or not low <= int(text) <= high:
        raise InvalidArgument(f"value out of range: {text[:64]}")
    return int(text)


def parse_bytes(text: str) -> int:
    """Read a size: a number, perhaps with a fraction, and b, k, m, g, t or p.

    The units are powers of 1024; "b" or "ib" may follow them.

    Returns:
        Bytes.
    """
    return _size(text, 1024)


def parse_decimal_bytes(text: str) -> int:
    """Read a size whose units are powers of 1000, as docker has them for the sizes of log files."""
    return _size(text, 1000)


def _size(text: str, base: int) -> int:
    number = text.strip()
    end = len(number)
    while end and number[end - 1] not in "0123456789.":
        end -= 1
    number, suffix = number[:end], number[end:].strip().lower()
    whole, dot, fraction = number.partition(".")
    if not only_digits(whole) or (dot and not only_digits(fraction)) or len(number) > 24:
        raise InvalidArgument(f"invalid size: '{text[:64]}'")
    unit = suffix[:-2] if suffix.endswith("ib") else suffix.removesuffix("b")
    if unit not in _UNITS or suffix == "ib":
        raise InvalidArgument(f"invalid suffix: '{suffix}'")
    multiple: int = base ** _UNITS.index(unit)
    size = int(whole) * multiple + (int(fraction) * multiple // 10 ** len(fraction) if fraction else 0)
    if size > _INT64_MAX:
        raise InvalidArgument(f"size out of range: '{text[:64]}'")
    return size


def parse_swap(text: str) -> int:
    """Read --memory-swap: bytes of memory plus swap, or -1 for no limit."""
    return -1 if text == "-1" else parse_bytes(text)


def parse_nano_cpus(text: str) -> int:
    """Read --cpus: a decimal number of processors, in billionths of one."""
    whole, dot, fraction = text.partition(".")
    if not (only_digits(whole or "0") and only_digits(fraction or "0")) or text in ("", ".") or len(whole) > 9:
        raise InvalidArgument(f"failed to parse {text[:64]} as a rational number")
    if len(fraction.rstrip("0")) > 9:
        raise InvalidArgument("value is too precise")
    return int(whole or "0") * 10**9 + int((fraction.rstrip("0") if dot else "").ljust(9, "0"))


def parse_cpuset(text: str) -> str:
    """Check a list of processors or memory nodes such as ``0-3,8``; the text itself is what the kernel takes.

    Ranges are bounded without being expanded, so a huge one costs nothing.
    """
    if len(text) > 4096:
        raise InvalidArgument("cpuset list is too long")
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not only_digits(low) or (dash and not only_digits(high)):
            raise InvalidArgument(f"invalid cpuset list: '{text[:64]}'")
        ends = int(low[:10]), int((high if dash else low)[:10])
        if ends[0] > ends[1] or ends[1] > 65535:
            raise InvalidArgument(f"cpuset range out of order or too large: '{part[:64]}'")
    return text


def parse_signal(text: str) -> int:
    """Read a signal's name, with or without SIG, or its number."""
    try:
        return signals.number(text)
    except InvalidArgument:
        raise InvalidArgument(f"invalid signal: {text[:64]}") from None


def parse_key_value(text: str, what: str) -> tuple[str, str]:
    """Read ``key=value``; a key alone has an empty value."""
    key, _, value = text.partition("=")
    if not key or "\0" in text:
        raise InvalidArgument(f"invalid {what}: {text[:64]!r}")
    return key, value


def parse_env(text: str) -> str:
    """Check one -e value: ``NAME=value``, or ``NAME`` to take the caller's."""
    if not text or text.startswith("=") or "\0" in text:
        raise InvalidArgument(f"invalid environment variable: {text[:64]}")
    return text


def resolve_env(entries: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str | None]:
    """Give every entry its value; a bare name has the caller's value, or None (unset it) when the caller has none."""
    resolved: dict[str, str | None] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        resolved[name] = value if equals else environ.get(name)
    return resolved


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a file that the user named, at most 1 MiB of 64 KiB lines.

    Raises:
        InvalidArgument: it cannot be read, is too large or is not UTF-8. A FIFO is waited for, as `<(command)` is one.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InvalidArgument(f"open {path}: {os.strerror(error.errno or 0).lower()}") from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidArgument(f"read {path}: is a directory")
    with open(fd, "rb") as file:
        data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise InvalidArgument(f"{what} {path}: larger than {FILE_LIMIT} bytes")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise InvalidArgument(f"{what} {path}: invalid utf8 bytes at line {number}") from None
    if any(len(line) > LINE_LIMIT for line in lines):
        raise InvalidArgument(f"{what} {path}: a line is longer than {LINE_LIMIT} bytes")
    return [line.removesuffix("\r") for line in lines]


def read_key_values(path: str, what: str, check: Callable[[str], object] | None = None) -> tuple[str, ...]:
    """The entries of an --env-file or --label-file: one to a line, ``#`` starts a comment line."""
    found = []
    for raw in read_lines(path, what):
        line = raw.lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name:
            raise InvalidArgument(f"invalid {what} {path}: no variable name on line '{line[:64]}'")
        if any(char in " \t" for char in name):
            raise InvalidArgument(f"invalid {what} {path}: variable '{name[:64]}' contains whitespaces")
        if check:
            check(line)
        found.append(line)
    return tuple(found)
