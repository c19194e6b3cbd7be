"""All checks in their order, each with what it stands on before it."""

from __future__ import annotations

from hutch.engine.checks.content import check_blobs, check_images, check_layers, check_lists, check_volumes
from hutch.engine.checks.leftovers import check_leftovers
from hutch.engine.checks.records import check_database, check_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from hutch.engine.checks.finding import Finding
    from hutch.engine.engine import Engine


def findings(engine: Engine) -> Iterator[Finding]:
    """Everything that is not as it should be.

    Who mends a finding does so before he asks for the next one: what is checked later stands on it.
    """
    damaged = False
    for finding in check_database(engine):
        damaged = True
        yield finding
    if damaged and any(True for _ in check_database(engine)):
        return  # who has which container is not known, so that nothing is anybody's
    yield from check_records(engine)
    yield from check_volumes(engine)
    yield from check_lists(engine)
    yield from check_blobs(engine)
    yield from check_layers(engine)
    if not any(True for _ in check_lists(engine)):  # else there is no telling what images there are
        yield from check_images(engine)
    yield from check_leftovers(engine)
