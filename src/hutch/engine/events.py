"""Events: what happened to containers, images and volumes, in the store, for whoever asks later or waits for more."""

from __future__ import annotations

import time

from hutch.engine.database import as_json
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hutch.engine.containers import ContainerDirectory, ContainerRecord
    from hutch.engine.database import Database

KEPT = 100_000
"""How many events are kept; older ones are forgotten."""
_PRUNED_EVERY = 1000
_BATCH = 500
_POLL_S = 0.1


class Event:
    """Something that happened.

    Attributes:
        number: grows with every event.
        time_nanos: when, nanoseconds since the epoch.
        type: container, image or volume.
        action: Docker's word for what happened.
        actor: id of what it happened to; a volume's is its name.
        attributes: its name, image, labels and whatever else belongs to the action.
    """

    __slots__ = ("action", "actor", "attributes", "number", "time_nanos", "type")

    def __init__(
        self, number: int, time_nanos: int, kind: str, action: str, actor: str, attributes: dict[str, str]
    ) -> None:
        self.number, self.time_nanos = number, time_nanos
        self.type, self.action, self.actor, self.attributes = kind, action, actor, attributes


def publish(database: Database, record: ContainerRecord, action: str, **attributes: str) -> None:
    """Enter an event of a container, with Docker's name for what happened and its attributes."""
    known = {**record.labels, "image": record.image, "name": record.name, **attributes}
    enter(database, "container", action, record.id, known)


def publish_volumes(database: Database, directory: ContainerDirectory, action: str) -> None:
    """Enter for each of a container's volumes that it is mounted, or not any more."""
    record = directory.record
    if not record.volumes and not record.mounted_volumes:
        return
    from hutch.engine import mountrecord
    from hutch.errors import HutchError

    try:
        mounts = mountrecord.read(directory)
    except (HutchError, OSError):
        return  # damaged, which says whoever needs it
    for mount in mounts:
        if mount.kind == "volume":
            attributes = {"container": record.id, "driver": "local"}
            if action == "mount":
                access = "false" if mount.read_only else "true"
                attributes |= {"destination": mount.target, "propagation": "", "read/write": access}
            enter(database, "volume", action, mount.source, attributes)


def enter(database: Database, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
    """Enter an event of anything."""
    with database.transaction(durable=False) as transaction:
        transaction.execute(
            "INSERT INTO events (time_nanos, type, action, actor, attributes) VALUES (?, ?, ?, ?, ?)",
            [time.time_ns(), kind, action, actor, as_json(attributes)],
        )
        number = transaction.execute("SELECT last_insert_rowid()")[0][0]
        if number % _PRUNED_EVERY == 0:
            transaction.execute("DELETE FROM events WHERE number <= ?", [number - KEPT])


def read_events(
    database: Database,
    *,
    since_nanos: int | None = None,
    until_nanos: int | None = None,
    filters: Mapping[str, Sequence[str]] | None = None,
    follow: bool = False,
) -> Iterator[Event]:
    """Events in the order they happened.

    Args:
        database: the store.
        since_nanos: the first moment, nanoseconds since the epoch; None is the beginning, or now if following.
        until_nanos: the last moment; None is now, or never if following.
        filters: key → values, as Docker's ``events`` has them; see `hutch.engine.event_filters`.
        follow: wait for more, up to the last moment.

    Raises:
        InvalidArgument: no such filter.
    """
    from hutch.engine.event_filters import event_filter

    matches = event_filter(filters or {})
    begin = time.time_ns()
    first = since_nanos if since_nanos is not None else (begin if follow else 0)
    last = until_nanos if until_nanos is not None else (None if follow else begin)
    return _events(database, first, last, matches)


def _events(database: Database, first: int, last: int | None, matches: Callable[[Event], bool]) -> Iterator[Event]:
    seen = _before(database, first)
    while True:
        over = last is not None and time.time_ns() >= last
        for event in _after(database, seen, first, last):
            seen = event.number
            if matches(event):
                yield event
        if over:
            return
        left = _POLL_S if last is None else min(_POLL_S, (last - time.time_ns()) / 1e9)
        time.sleep(max(0.001, left))


def _before(database: Database, first: int) -> int:
    """A number that all events from `first` on are beyond, so that a poll need not look at what came earlier."""
    found = database.read("SELECT min(number) FROM events WHERE time_nanos >= ?", [first])
    if found and found[0][0] is not None:
        return int(found[0][0]) - 1
    found = database.read("SELECT max(number) FROM events")
    return int(found[0][0] or 0) if found else 0


def _after(database: Database, seen: int, first: int, last: int | None) -> Iterator[Event]:
    while True:
        rows = database.read(
            "SELECT number, time_nanos, type, action, actor, attributes FROM events"
            " WHERE number > ? AND time_nanos >= ? AND time_nanos <= ? ORDER BY number LIMIT ?",
            [seen, first, (1 << 63) - 1 if last is None else last, _BATCH],
        )
        for number, nanos, kind, action, actor, text in rows:
            attributes = documents.parse_object(text.encode(), source=f"event {number}")
            yield Event(number, nanos, kind, action, actor, attributes)
        if len(rows) < _BATCH:
            return
        seen = rows[-1][0]
