"""`hutch events`: what happened, and what happens."""

from __future__ import annotations

import json
import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import plain
from hutch.cli.output import parse_template
from hutch.engine.engine import Engine
from hutch.engine.event_filters import KEYS
from hutch.engine.events import read_events
from hutch.engine.filters import split
from hutch.engine.moments import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.engine.events import Event

_SECOND = 1_000_000_000


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    now = time.time_ns()
    since = parse_moment(given["since"], now) if given["since"] else None
    until = parse_moment(given["until"], now) if given["until"] else None
    filters: dict[str, list[str]] = {}
    for key, value in split(given["filter"], KEYS):
        filters.setdefault(key, []).append(value)
    show = _shown(given["format"])
    if since is None and until is not None:
        since = 0
    for event in read_events(engine.database, since_nanos=since, until_nanos=until, filters=filters, follow=True):
        print(show(event), flush=True)
    return 0


def _shown(template: str) -> Callable[[Event], str]:
    if not template:
        return line
    if template in ("json", "{{json .}}"):
        return lambda event: json.dumps(message(event), separators=(",", ":"))
    apply = parse_template(template)
    return lambda event: apply(_fields(event))


def line(event: Event) -> str:
    """An event as docker prints it."""
    attributes = ", ".join(f"{key}={event.attributes[key]}" for key in sorted(event.attributes))
    text = f"{moment(event.time_nanos)} {event.type} {event.action} {event.actor}"
    return plain(f"{text} ({attributes})" if attributes else text).replace("\n", "\\n")


def moment(nanos: int) -> str:
    """RFC 3339 in local time, with all nine digits."""
    seconds, rest = divmod(nanos, _SECOND)
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone}"


def message(event: Event) -> dict[str, Any]:
    """An event in the shape of Docker's API."""
    older: dict[str, Any] = {}
    if event.type in ("container", "image"):
        older = {"status": event.action, "id": event.actor}
        if event.type == "container":
            older["from"] = event.attributes.get("image", "")
    return {
        **older,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_nanos // _SECOND,
        "timeNano": event.time_nanos,
    }


def _fields(event: Event) -> dict[str, Any]:
    """What a template sees, by the names of Docker's Go type."""
    found = message(event)
    return {
        "Status": event.action,
        "ID": event.actor,
        "From": found.get("from", ""),
        "Type": event.type,
        "Action": event.action,
        "Actor": found["Actor"],
        "Scope": "local",
        "Time": found["time"],
        "TimeNano": event.time_nanos,
    }


COMMAND = Command(
    "events",
    arguments="",
    summary="Show what happens to containers, images and volumes, as it happens",
    flags=(
        Flag("filter", "filter...", f"{', '.join(f'{key}=' for key in KEYS)}", short="f"),
        Flag("format", "template", "json or a template such as '{{.Type}} {{.Action}}'", default=""),
        Flag("since", "time", "from a time (2026-01-02T13:23:37Z), or a while ago (42m)", default=""),
        Flag("until", "time", "up to a time, then end", default=""),
    ),
    run=_run,
    example="hutch events --since 1h --until 0s --filter event=die --filter event=oom",
    most=0,
)
