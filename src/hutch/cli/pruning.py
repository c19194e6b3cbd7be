"""Removing containers that nobody named: for `container prune` and `system prune`."""

from __future__ import annotations

from hutch.cli.ps import Row
from hutch.engine import lifecycle
from hutch.engine.container_filters import PRUNE_KEYS, container_filter
from hutch.engine.inspecting import sizes
from hutch.errors import ContainerNotFound, HutchError, InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.engine.engine import Engine


class Pruned:
    """What went: ids, and bytes of files; and what could not be removed, and why."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.freed = 0
        self.problems: list[HutchError] = []


def prune_containers(engine: Engine, filters: Iterable[str]) -> Pruned:
    """Remove every container that does not run.

    Args:
        engine: where.
        filters: --filter values.

    Raises:
        InvalidArgument: no such filter.
    """

    def find(text: str) -> Row:  # none of these filters names another container
        raise ContainerNotFound(f"no such container: {text[:128]}")

    matches = container_filter(filters, find=find, layers=lambda _: (), allowed=PRUNE_KEYS)
    pruned = Pruned()
    for directory in engine.containers.all():
        with directory:
            try:
                status = lifecycle.status_of(engine, directory)
                if status not in ("created", "exited", "dead") or not matches(Row(directory, status)):
                    continue
                record = directory.record
                freed, _ = sizes(engine, record)
                lifecycle.remove(engine, record.id)
            except (ContainerNotFound, InvalidState):
                continue  # somebody else removes it, or has started it
            except HutchError as error:
                pruned.problems.append(error)
                continue
            pruned.ids.append(record.id)
            pruned.freed += freed
    return pruned
