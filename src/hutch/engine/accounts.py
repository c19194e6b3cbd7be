"""Accounts: what each run of a container and each exec has taken, kept after the container has gone.

A usage is a dict of counters. Which are there depends on what the host counts; those that are not known are absent.
"""

from __future__ import annotations

import time

from hutch.engine.database import as_json
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.engine.database import Database

KEPT = 100_000
"""How many accounts are kept; older ones are forgotten."""
_PRUNED_EVERY = 1000
_NANOS = 1_000_000_000
PEAKS = ("memory_peak_bytes",)
"""Counters of which several runs together have the greatest, not the sum."""
_SECONDS = (
    ("WallSeconds", "wall_nanos"),
    ("CPUSeconds", "cpu_nanos"),
    ("CPUUserSeconds", "cpu_user_nanos"),
    ("CPUSystemSeconds", "cpu_system_nanos"),
)
_BYTES = (
    ("MemoryPeakBytes", "memory_peak_bytes"),
    ("ReadBytes", "read_bytes"),
    ("WrittenBytes", "written_bytes"),
    ("ReceivedBytes", "received_bytes"),
    ("SentBytes", "sent_bytes"),
)


class Account:
    """One run, or one exec.

    Attributes:
        exec_id: empty for a run of the container itself.
        name, image: the container's.
        finished_nanos: when it ended, nanoseconds since the epoch.
        usage: see `hutch.engine.monitor.usage`.
    """

    __slots__ = ("container_id", "exec_id", "finished_nanos", "image", "name", "usage")

    def __init__(
        self, container_id: str, exec_id: str, name: str, image: str, finished_nanos: int, usage: dict[str, Any]
    ) -> None:
        self.container_id, self.exec_id, self.name, self.image = container_id, exec_id, name, image
        self.finished_nanos, self.usage = finished_nanos, usage


def enter(database: Database, record: ContainerRecord, usage: Mapping[str, Any], *, exec_id: str = "") -> None:
    """Enter what something has taken that has just ended."""
    with database.transaction(durable=False) as transaction:
        transaction.execute(
            "INSERT INTO usage (container_id, exec_id, name, image, finished_nanos, usage) VALUES (?, ?, ?, ?, ?, ?)",
            [record.id, exec_id, record.name, record.image, time.time_ns(), as_json(dict(usage))],
        )
        number = transaction.execute("SELECT last_insert_rowid()")[0][0]
        if number % _PRUNED_EVERY == 0:
            transaction.execute("DELETE FROM usage WHERE number <= ?", [number - KEPT])


def read_accounts(database: Database, *, since_nanos: int = 0, containers: Sequence[str] = ()) -> list[Account]:
    """Accounts, oldest first.

    Args:
        database: the store.
        since_nanos: of what ended from this moment on, nanoseconds since the epoch.
        containers: names, ids or beginnings of ids; none is all.
    """
    rows = database.read(
        "SELECT container_id, exec_id, name, image, finished_nanos, usage FROM usage"
        " WHERE finished_nanos >= ? ORDER BY number",
        [since_nanos],
    )
    return [
        Account(row[0], row[1], row[2], row[3], row[4], documents.parse_object(row[5].encode(), source="usage"))
        for row in rows
        if not containers or any(_is_of(row[0], row[2], wanted) for wanted in containers)
    ]


def _is_of(container_id: str, name: str, wanted: str) -> bool:
    return bool(wanted) and (name == wanted or container_id.startswith(wanted))


def total(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several usages as one."""
    found: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            found[name] = max(found.get(name, 0), value) if name in PEAKS else found.get(name, 0) + value
    return found


def bill(usage: Mapping[str, Any]) -> dict[str, Any]:
    """A usage as `inspect` and `usage` show it: every item, None where nobody counted."""
    found: dict[str, Any] = {"Runs": usage.get("runs", 0)}
    for key, name in _SECONDS:
        found[key] = usage[name] / _NANOS if name in usage else None
    for key, name in _BYTES:
        found[key] = usage.get(name)
    return found
