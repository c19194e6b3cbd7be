"""The filters of `ps` and of `container prune`, in Docker's words."""

from __future__ import annotations

from hutch.engine import filters
from hutch.engine.values import only_digits
from hutch.errors import HutchError, InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any, Protocol

    class Row(Protocol):
        """What filters ask of a container.

        Attributes:
            created: RFC 3339, in UTC, with the same number of digits in every row.
            health: starting, healthy, unhealthy, or empty.
            ports: such as ``{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}``; None where nothing is published.
            networks: by name or id.
        """

        id: str
        name: str
        created: str
        status: str
        health: str
        exit_code: int
        image: str
        image_id: str
        chain_ids: list[str]
        labels: dict[str, str]
        ports: dict[str, Any]
        networks: tuple[str, ...]

        @property
        def volumes(self) -> Collection[str]:
            """Names, sources and destinations of what is mounted; asked for by one filter alone."""

    Check = Callable[[Row], bool]

KEYS = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since",
    "status", "volume",
)  # fmt: skip
PRUNE_KEYS = ("label", "label!", "until")
_MEANINGLESS = {"is-task": "there are no swarm tasks", "isolation": "it is of Windows containers"}
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("starting", "healthy", "unhealthy", "none")
_PORT_MAX = 65535


class ContainerFilter:
    """All that a container must hold to be listed.

    Attributes:
        everything: containers that do not run are meant as well, as a status is asked for.
    """

    def __init__(self, check: Check, *, everything: bool) -> None:
        self._check = check
        self.everything = everything

    def __call__(self, row: Row) -> bool:
        """Whether the container is listed."""
        return self._check(row)


def container_filter(
    given: Iterable[str],
    *,
    find: Callable[[str], Row],
    layers: Callable[[str], Sequence[str]],
    allowed: Sequence[str] = KEYS,
) -> ContainerFilter:
    """Compile --filter values.

    Args:
        given: ``key=value`` each; different keys must all hold, of one key's values any, but of labels all.
        find: the container that ``before`` and ``since`` name.
        layers: the chain ids of the image that ``ancestor`` names; NotFound if there is none.
        allowed: the keys that the command knows.

    Raises:
        InvalidArgument: no such filter, or a value that it cannot have.
        NotSupported: a filter of Docker's that has no meaning here.
        ContainerNotFound: before or since name no container.
    """
    given = list(given)
    for key in (text.partition("=")[0].strip().lower() for text in given):
        if key in _MEANINGLESS:
            raise NotSupported(f"filter '{key}' is not supported: {_MEANINGLESS[key]}")
    pairs = filters.split(given, allowed)
    checks = []
    for key, value in pairs:
        # Docker wants either of these two, not both.
        group = "port" if key in ("publish", "expose") else key
        checks.append((group, _check(key, value, find, layers)))
    return ContainerFilter(filters.all_of(checks), everything=any(key == "status" for key, _ in pairs))


def _check(key: str, value: str, find: Callable[[str], Row], layers: Callable[[str], Sequence[str]]) -> Check:
    if key in ("before", "since"):
        return _relative(key, find(value))
    if key == "ancestor":
        return _ancestor(value, layers)
    return _SIMPLE[key](value)


def _relative(key: str, other: Row) -> Check:
    if key == "before":
        return lambda row: row.id != other.id and row.created < other.created
    return lambda row: row.id != other.id and row.created > other.created


def _ancestor(value: str, layers: Callable[[str], Sequence[str]]) -> Check:
    """Made from the image, or from one that begins with all its layers."""
    try:
        wanted = list(layers(value))
    except HutchError:  # it may be gone, but not what was made from it
        return lambda row: value in (row.image, row.image_id)
    return lambda row: list(row.chain_ids[: len(wanted)]) == wanted


def _text(field: str) -> Callable[[str], Check]:
    def compiled(value: str) -> Check:
        import re

        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InvalidArgument(f"invalid filter '{field}={value[:64]}'", hint=f"{error}") from None

        def check(row: Row) -> bool:
            found: str = getattr(row, field)
            return bool(pattern.search(found)) or (field == "name" and bool(pattern.search(f"/{found}")))

        return check

    return compiled


def _exited(value: str) -> Check:
    if not only_digits(value.removeprefix("-")) or len(value) > 10:
        raise InvalidArgument(f"invalid filter 'exited={value[:64]}'", hint="an exit code such as 137")
    return lambda row: row.status in ("exited", "dead") and row.exit_code == int(value)


def _word(field: str, words: Sequence[str]) -> Callable[[str], Check]:
    def compiled(value: str) -> Check:
        if value not in words:
            raise InvalidArgument(f"invalid filter '{field}={value[:64]}'", hint=f"one of {', '.join(words)}")
        return lambda row: (getattr(row, field) or "none") == value

    return compiled


def _ports(value: str, key: str) -> range:
    """The numbers of ``80``, ``8000-8010``."""
    first, dash, last = value.partition("-")
    for number in (first, last if dash else first):
        if not only_digits(number) or not 0 < int(number[:6]) <= _PORT_MAX:
            raise InvalidArgument(f"invalid filter '{key}={value[:64]}'", hint="PORT[-PORT][/tcp|udp|sctp]")
    found = range(int(first), int(last if dash else first) + 1)
    if not found:
        raise InvalidArgument(f"invalid filter '{key}={value[:64]}'", hint="the first port is the lower one")
    return found


def _port(key: str) -> Callable[[str], Check]:
    def compiled(value: str) -> Check:
        numbers, _, given = value.partition("/")
        protocol = given or "tcp"
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid filter '{key}={value[:64]}'", hint="PORT[-PORT][/tcp|udp|sctp]")
        wanted = _ports(numbers, key)

        def check(row: Row) -> bool:
            for port, bindings in row.ports.items():
                inner, _, kind = port.partition("/")
                found = [inner] if key == "expose" else [binding["HostPort"] for binding in bindings or ()]
                if (kind or "tcp") == protocol and any(only_digits(one) and int(one) in wanted for one in found):
                    return True
            return False

        return check

    return compiled


def _labels(value: str, *, wanted: bool) -> Check:
    check = filters.label(value, wanted=wanted)
    return lambda row: check(row.labels)


def _until(value: str) -> Check:
    check = filters.before(value)
    return lambda row: check(row.created)


_SIMPLE: dict[str, Callable[[str], Check]] = {
    "exited": _exited,
    "expose": _port("expose"),
    "health": _word("health", _HEALTH),
    "id": _text("id"),
    "label": lambda value: _labels(value, wanted=True),
    "label!": lambda value: _labels(value, wanted=False),
    "name": _text("name"),
    "network": lambda value: lambda row: value in row.networks,
    "publish": _port("publish"),
    "status": _word("status", STATUSES),
    "until": _until,
    "volume": lambda value: lambda row: value in row.volumes or value.rstrip("/") in row.volumes,
}
