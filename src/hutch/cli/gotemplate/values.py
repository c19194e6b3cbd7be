"""What Go's types say and JSON does not: which object is a map, what an absent field is, which null is a pointer.

A dict is one of Go's structs: a field that it has not is an error. What Docker's documents have as maps are known by
their names below, and become `Map` when a template asks for them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Map(dict):  # type: ignore[type-arg]  # `dict[str, Any]` as a base costs an object per instance
    """One of Go's maps: what it has not is no error.

    Attributes:
        zero: what `index` gives then.
        key: the type of its keys.
    """

    zero: Any = None
    key = "string"


class RawMap(Map):
    """An object of a document of which only the JSON is known: what it has not is an error again."""


class RawSlice(list):  # type: ignore[type-arg]
    """A list of such a document; its items have no common type."""


class NilMap(Map):
    """A map that was never made: empty, and null in JSON."""


class NilSlice(list):  # type: ignore[type-arg]
    """A slice that was never made: empty, and null in JSON."""


class Row(dict):  # type: ignore[type-arg]
    """A line of a list command. Its JSON is sorted by key and safe in HTML; what can be called is a method."""


class Nothing:
    """What cannot be had of a value: an absent key, or a pointer to nothing."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False


class Duration(int):
    """Nanoseconds, in Go's words."""

    def __str__(self) -> str:
        if not self:
            return "0s"
        size, sign = abs(int(self)), "-" if self < 0 else ""
        for unit, length in (("ns", 1), ("µs", 1000), ("ms", 1000_000)):
            if size < length * 1000:
                return f"{sign}{_decimal(size, length)}{unit}"
        minutes, rest = divmod(size, 60 * 10**9)
        hours, minutes = divmod(minutes, 60)
        seconds = f"{_decimal(rest, 10**9)}s"
        return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


NO_VALUE = Nothing("<no value>")
NIL = Nothing("<nil>")

# Maps of Docker's documents, and what each has for a key that is absent.
_TEXTS = "Labels Annotations Sysctls Tmpfs StorageOpt Options DriverOpts Data Opts"
MAPS: dict[str, Any] = {
    **dict.fromkeys(_TEXTS.split(), ""),
    **dict.fromkeys("Ports PortBindings".split(), NilSlice()),
    "ExposedPorts": {},
    "Volumes": {},
    "Networks": NIL,
    "Containers": {},
}
_PORTS = frozenset(("Ports", "PortBindings", "ExposedPorts"))  # their keys are no strings to `index`
_POINTERS = frozenset(
    "Health Healthcheck OomKillDisable PidsLimit MemorySwappiness Init StopTimeout SizeRw SizeRootFs IPAMConfig "
    "ImageManifestDescriptor Descriptor Status ClusterVolume UsageData BindOptions VolumeOptions TmpfsOptions".split()
)
_DURATIONS = frozenset("Interval Timeout StartPeriod StartInterval".split())
# Fields that Docker leaves out of its JSON when they are empty, by a field that only that struct has: a template may
# ask for them all the same.
_NO_MAP, _NO_PORTS = NilMap(), NilMap()
_NO_PORTS.key = "nat.Port"
_OPTIONAL: dict[str, dict[str, Any]] = {
    "Running": {"Health": NIL},
    "Hostname": {
        **dict.fromkeys(("Healthcheck", "StopTimeout"), NIL),
        **dict.fromkeys(("MacAddress", "StopSignal"), ""),
        **dict.fromkeys(("NetworkDisabled", "ArgsEscaped"), False),
        "ExposedPorts": _NO_PORTS,
        "Shell": NilSlice(),
    },
    "NetworkMode": {
        **dict.fromkeys(("Annotations", "Sysctls", "Tmpfs", "StorageOpt"), _NO_MAP),
        "Init": NIL,
        "Mounts": NilSlice(),
        "Runtime": "",
    },
    "HostConfig": dict.fromkeys(("SizeRw", "SizeRootFs", "ImageManifestDescriptor"), NIL),
    "RepoTags": {"Variant": "", "OsVersion": "", "Descriptor": NIL, "Manifests": NilSlice()},
    "Destination": {"Name": "", "Driver": "", "Type": "", "Mode": ""},
    "Test": {
        **dict.fromkeys(("Interval", "Timeout", "StartPeriod", "StartInterval"), Duration()),
        "Retries": 0,
    },
}


def field(owner: dict[str, Any], name: str) -> Any:
    """What `.name` of a dict is.

    Raises:
        KeyError: it has no such field.
    """
    if isinstance(owner, Map):
        if isinstance(owner, RawMap):
            return owner[name]
        if owner.key != "string":
            raise KeyError(name)
        return entry(owner, name) if name in owner else NO_VALUE
    if name in owner or isinstance(owner, Row):
        return known(owner[name], name)
    for mark, optional in _OPTIONAL.items():
        if mark in owner and name in optional:
            return optional[name]
    lowered = name.lower()
    if name[:1].isupper():
        for key, value in owner.items():
            if key.lower() == lowered:
                return known(value, name)
    raise KeyError(name)


def entry(owner: Map, key: str) -> Any:
    """What a map has for a key that it has."""
    value = owner[key]
    return owner.zero if value is None and not isinstance(owner, RawMap) else known(value, "")


def raw(value: Any) -> Any:
    """A document as its JSON alone tells it."""
    if isinstance(value, dict):
        return RawMap((key, raw(item)) for key, item in value.items())
    return RawSlice(map(raw, value)) if isinstance(value, (list, tuple)) else value


def known(value: Any, name: str) -> Any:
    """`value` as the type that a field of Docker's called `name` has."""
    if isinstance(value, dict):
        if name not in MAPS or isinstance(value, Map):
            return value
        found = Map(value)
        found.zero = MAPS[name]
        if name in _PORTS:
            found.key = "nat.Port"
        return found
    if value is None and name:
        if name in MAPS:
            return _NO_PORTS if name in _PORTS else _NO_MAP
        return NIL if name in _POINTERS else NilSlice()
    if name in _DURATIONS and type(value) is int:
        return Duration(value)
    return value


def items(value: dict[str, Any]) -> Sequence[tuple[str, Any]]:
    """Keys and values in Go's order: sorted of a map, as declared of a struct."""
    if isinstance(value, Map):
        return [(key, entry(value, key)) for key in sorted(value)]
    pairs = [(key, known(item, key)) for key, item in value.items()]
    return sorted(pairs, key=lambda pair: pair[0]) if isinstance(value, Row) else pairs


def type_name(value: Any) -> str:
    """Go's name of a value's type, as near as it is known."""
    if isinstance(value, Nothing) or value is None:
        return "<nil>" if value is not None else "interface {}"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "time.Duration" if isinstance(value, Duration) else "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        if not isinstance(value, Map):
            return "struct"
        if isinstance(value, RawMap):
            return "map[string]interface {}"
        return "map[string]" + (_common(list(value.values())) if value else type_name(value.zero))
    return "[]interface {}" if isinstance(value, RawSlice) else "[]" + (_common(list(value)) if value else "string")


def _common(values: list[Any]) -> str:
    names = {type_name(value) for value in values}
    return names.pop() if len(names) == 1 else "interface {}"


def truth(value: Any) -> bool:
    """What `if` makes of a value: neither zero nor empty. A struct is always true."""
    return bool(value) or (isinstance(value, dict) and not isinstance(value, Map))
