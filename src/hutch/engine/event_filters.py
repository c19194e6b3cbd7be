"""The filters of `hutch events`, as Docker has them (moby, daemon/events/filter.go)."""

from __future__ import annotations

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hutch.engine.events import Event

    Check = Callable[[Event], bool]

_NAMED = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")
KEYS = tuple(sorted((*_NAMED, "event", "image", "label", "scope", "type")))
_OPEN_ENDED = ("exec_create", "exec_start", "health_status")
"""Actions that go on after a colon."""


def event_filter(filters: Mapping[str, Sequence[str]]) -> Check:
    """What an event must be to be shown.

    Args:
        filters: key → values; every key must match, of one key's values any, but of labels all.

    Raises:
        InvalidArgument: no such key.
    """
    checks = []
    for key, values in filters.items():
        if key not in KEYS:
            raise InvalidArgument(f"invalid filter '{key[:64]}'", hint=f"filters are {', '.join(KEYS)}")
        checks.append(_check(key, (values,) if isinstance(values, str) else tuple(values)))
    return lambda event: all(check(event) for check in checks)


def _check(key: str, values: tuple[str, ...]) -> Check:
    if key == "event":
        return lambda event: any(_is_action(event.action, value) for value in values)
    if key == "type":
        return lambda event: event.type in values
    if key == "scope":
        return lambda _event: "local" in values
    if key == "label":
        return lambda event: all(_has_label(event.attributes, value) for value in values)
    if key == "image":
        return lambda event: any(value in _image_names(event) for value in values)
    return lambda event: (
        event.type == key
        and any(event.actor.startswith(value) or event.attributes.get("name", "").startswith(value) for value in values)
    )


def _is_action(action: str, wanted: str) -> bool:
    return action == wanted or (wanted in _OPEN_ENDED and action.startswith(f"{wanted}:"))


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _image_names(event: Event) -> tuple[str, ...]:
    """What an image may be called in a filter: of a container's event the image it was made from."""
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return tuple(found for found in (event.actor, name, _without_tag(event.actor), _without_tag(name)) if found)


def _without_tag(name: str) -> str:
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition('@')[0].partition(':')[0]}"
