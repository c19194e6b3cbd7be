"""Events: what happened to containers, images and volumes, in the store, for whoever asks later or waits for more."""

from __future__ import annotations

import time

from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerRecord
    from hutch.engine.database import Database


def publish(database: Database, record: ContainerRecord, action: str, **attributes: str) -> None:
    """Enter an event of a container, with Docker's name for what happened and its attributes."""
    known = {**record.labels, "image": record.image, "name": record.name, **attributes}
    enter(database, "container", action, record.id, known)


def enter(database: Database, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
    """Enter an event of anything."""
    with database.transaction(durable=False) as transaction:
        transaction.execute(
            "INSERT INTO events (time_nanos, type, action, actor, attributes) VALUES (?, ?, ?, ?, ?)",
            [time.time_ns(), kind, action, actor, documents.dump(attributes)],
        )
