"""The grammar of `--filter`, which is the same for containers, images and volumes."""

from __future__ import annotations

import time

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    T = TypeVar("T")


def split(filters: Iterable[str], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and values of --filter.

    Args:
        filters: ``key=value`` each; as docker's client does, white space around both and the key's case are left out.
        allowed: the keys that the command knows.

    Raises:
        InvalidArgument: no filter, or none of this command's.
    """
    found = []
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid filter '{text[:64]}'", hint="a filter is KEY=VALUE")
        key = key.strip().lower()
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key[:64]}'", hint=f"filters are {', '.join(allowed)}")
        found.append((key, value.strip()))
    return found


def all_of(checks: Iterable[tuple[str, Callable[[T], bool]]]) -> Callable[[T], bool]:
    """What holds if, for every key, any of its checks does; of labels every one must."""
    groups: dict[str, list[Callable[[T], bool]]] = {}
    for position, (key, check) in enumerate(checks):
        groups.setdefault(f"{key} {position}" if key.startswith("label") else key, []).append(check)
    return lambda thing: all(any(check(thing) for check in group) for group in groups.values())


def label(text: str, *, wanted: bool = True) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels have a key, or a key with a value (``key`` or ``key=value``), or have it not."""
    key, equals, value = text.partition("=")
    return lambda labels: (key in labels and (not equals or labels[key] == value)) == wanted


def before(text: str) -> Callable[[str], bool]:
    """Whether an RFC 3339 time in UTC is not after a moment: `until`.

    Raises:
        InvalidArgument: no duration before now, no date and no Unix time.
    """
    from hutch.engine.moments import parse_moment

    seconds = parse_moment(text, time.time_ns()) // 1_000_000_000
    limit = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return lambda moment: bool(moment) and moment[:19] <= limit
