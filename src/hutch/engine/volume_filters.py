"""The filters of `volume ls` and `volume prune`, and a volume in Docker's words."""

from __future__ import annotations

import time

from hutch.engine import filters
from hutch.engine.storage import volumes_in_use
from hutch.engine.values import parse_bool
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from hutch.engine.engine import Engine
    from hutch.volume.store import Volume

    Check = Callable[[Volume], bool]

_ANONYMOUS = "com.docker.volume.anonymous"


def labels(volume: Volume) -> dict[str, str]:
    """A volume's labels, with the one by which Docker marks an anonymous one."""
    return {_ANONYMOUS: "", **volume.labels} if volume.anonymous else volume.labels


def describe(volume: Volume) -> dict[str, Any]:
    """A volume in the shape of Docker's ``Volume`` (Engine API, /volumes/{name})."""
    return {
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created)),
        "Driver": "local",
        "Labels": labels(volume) or None,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def volume_filter(engine: Engine, given: Sequence[str], allowed: Sequence[str]) -> Check:
    """Compile --filter values.

    Args:
        engine: asked which volumes are in use, if that matters.
        given: ``key=value`` each; different keys must all hold, of one key's values any (of labels all).
        allowed: the keys that the command knows.

    Raises:
        InvalidArgument: no such filter, or a malformed value.
    """
    return filters.all_of((key, _check(engine, key, value)) for key, value in filters.split(given, allowed))


def _check(engine: Engine, key: str, value: str) -> Check:
    if key == "dangling":
        try:
            wanted = parse_bool(value)
        except InvalidArgument:
            raise InvalidArgument(f"invalid filter 'dangling={value[:64]}'") from None
        used = volumes_in_use(engine)
        return lambda volume: (volume.name not in used) == wanted
    if key == "name":
        return lambda volume: value in volume.name
    if key == "driver":
        return lambda _volume: value == "local"
    return _label(value, wanted=key == "label")


def _label(text: str, *, wanted: bool) -> Check:
    check = filters.label(text, wanted=wanted)
    return lambda volume: check(labels(volume))
