"""Points in time as docker's --since and --until take them."""

from __future__ import annotations

import time

from hutch.engine.durations import parse_duration
from hutch.engine.values import only_digits
from hutch.errors import InvalidArgument

_SECOND = 1_000_000_000
_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def parse_moment(text: str, now_nanos: int) -> int:
    """Read a point in time.

    Args:
        text: a duration before now (``10m``, ``1h30m``; ``-5m`` is after it), a date or time of RFC 3339 as far as it
            is given (``2026-01-02``, ``2026-01-02T15:04``, with a fraction, ``Z`` or an offset; local time without), or
            seconds since 1970 with a fraction.
        now_nanos: what durations are counted from.

    Returns:
        Nanoseconds since 1970.

    Raises:
        InvalidArgument: none of these.
    """
    duration = _duration(text)
    if duration is not None:
        return now_nanos - duration
    try:
        found = _unix(text)
        return _written(text) if found is None else found
    except (ValueError, OverflowError):
        raise InvalidArgument(f'failed to parse value as time or duration: "{text[:64]}"') from None


def _duration(text: str) -> int | None:
    try:
        return -parse_duration(text[1:]) if text.startswith("-") else parse_duration(text)
    except InvalidArgument:
        return None


def _unix(text: str) -> int | None:
    seconds, _, fraction = text.removeprefix("-").partition(".")
    if not only_digits(seconds) or len(seconds) > 12 or (fraction and not only_digits(fraction)):
        return None
    nanos = int(seconds) * _SECOND + int(fraction[:9].ljust(9, "0") or "0")
    return -nanos if text.startswith("-") else nanos


def _written(text: str) -> int:
    body, offset = _without_offset(text)
    body, dot, fraction = body.partition(".")
    if dot and not only_digits(fraction):
        raise ValueError(text)
    nanos = int(fraction[:9].ljust(9, "0")) if fraction else 0
    for form in _FORMATS:
        try:
            parts = time.strptime(body, form)
        except ValueError:
            continue
        if dot and form != _FORMATS[0]:
            break
        seconds = int(time.mktime(parts)) if offset is None else _seconds(*parts[:6]) - offset
        return seconds * _SECOND + nanos
    raise ValueError(text)


def _without_offset(text: str) -> tuple[str, int | None]:
    """`text` without what it says of the time zone, and that in seconds; None is local time."""
    if text[-1:] in ("Z", "z"):
        return text[:-1], 0
    sign = text[-6:-5]
    if sign in ("+", "-") and text[-3:-2] == ":" and only_digits(text[-5:-3] + text[-2:]):
        seconds = int(text[-5:-3]) * 3600 + int(text[-2:]) * 60
        return text[:-6], -seconds if sign == "-" else seconds
    return text, None


def utc_seconds(text: str) -> int:
    """Seconds since 1970 of a time as hutch writes it: RFC 3339 in UTC, its fraction left out.

    Raises:
        ValueError: it is none.
    """
    return _seconds(*map(int, (text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])))


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """What `calendar.timegm` says, whose module takes 12 ms to import. Years are counted from March."""
    year -= month < 3
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return ((days - 719469) * 24 + hour) * 3600 + minute * 60 + second
