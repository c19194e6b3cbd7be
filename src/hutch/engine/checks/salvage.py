"""What can still be read of a damaged hutch.db, put into a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from hutch.engine.checks.finding import set_aside
from hutch.engine.database import Database, UniqueViolation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.engine import Engine

# Reading a table without its indexes, and writing a row of it
_TABLES = (
    (
        "SELECT id, name, created, active, record FROM containers NOT INDEXED ORDER BY rowid",
        "INSERT OR IGNORE INTO containers (id, name, created, active, record) VALUES (?, ?, ?, ?, ?)",
    ),
    (
        "SELECT id, container_id, record FROM execs NOT INDEXED ORDER BY rowid",
        "INSERT OR IGNORE INTO execs (id, container_id, record) VALUES (?, ?, ?)",
    ),
    (
        "SELECT number, time_nanos, type, action, actor, attributes FROM events NOT INDEXED ORDER BY rowid",
        "INSERT OR IGNORE INTO events (number, time_nanos, type, action, actor, attributes) VALUES (?, ?, ?, ?, ?, ?)",
    ),
    (
        (
            "SELECT number, container_id, exec_id, name, image, finished_nanos, usage"
            " FROM usage NOT INDEXED ORDER BY rowid"
        ),
        (
            "INSERT OR IGNORE INTO usage (number, container_id, exec_id, name, image, finished_nanos, usage)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        ),
    ),
)


def salvage(engine: Engine) -> tuple[int, str]:
    """Put every row that can be read into a new file.

    Returns:
        How many rows that were, and where the damaged file is now.
    """
    engine.database.close()
    found = [(insert, _rows(engine.database.path, select)) for select, insert in _TABLES]
    aside = set_aside(engine.root, engine.database.path)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{engine.database.path}{suffix}", f"{aside}{suffix}")
    fresh = Database(engine.root)
    kept = 0
    with fresh.transaction() as transaction:
        for insert, rows in found:
            for row in rows:
                try:
                    transaction.execute(insert, row)
                    kept += 1
                except UniqueViolation:
                    continue  # it belongs to a container whose row was lost
    fresh.close()
    return kept, aside


def _rows(path: str, select: str) -> list[tuple[Any, ...]]:
    """The rows of a table from its beginning and from its end, up to where it cannot be read."""
    found: dict[Any, tuple[Any, ...]] = {}
    for order in ("ASC", "DESC"):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                for row in connection.execute(f"{select} {order}"):
                    found.setdefault(row[0], row)
        except sqlite3.DatabaseError:
            continue  # as far as it went
    return list(found.values())
