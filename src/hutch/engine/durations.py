"""Go's durations, such as ``1m30s``, in which Docker's options are given."""

from __future__ import annotations

from hutch.errors import InvalidArgument

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MOST = (1 << 63) - 1
_DIGITS = frozenset("0123456789")


def parse_duration(text: str) -> int:
    """Read numbers with units, such as ``1h``, ``1.5s`` or ``1m30s``, or a bare 0.

    Returns:
        Nanoseconds.

    Raises:
        InvalidArgument: anything else, and what is negative or too large.
    """
    if text == "0":
        return 0
    total, rest = 0, text.removeprefix("+")
    while rest:
        size = 0
        while size < len(rest) and (rest[size] in _DIGITS or rest[size] == "."):
            size += 1
        number, rest = rest[:size], rest[size:]
        unit = next((unit for unit in ("ns", "us", "µs", "μs", "ms", "s", "m", "h") if rest.startswith(unit)), "")
        whole, _, fraction = number.partition(".")
        if not unit or not (whole or fraction) or "." in fraction or len(number) > 40:
            raise InvalidArgument(f"invalid duration {text[:64]!r}", hint="such as 500ms, 30s or 1m30s")
        scale = _UNITS[unit]
        total += int(whole or "0") * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
        rest = rest[len(unit) :]
    if not text or total > _MOST:
        raise InvalidArgument(f"invalid duration {text[:64]!r}", hint="such as 500ms, 30s or 1m30s")
    return total
