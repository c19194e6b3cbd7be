"""`hutch pause` and `hutch unpause`."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.engine import lifecycle
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _pause(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    return for_each(arguments, lambda text: lifecycle.pause(engine, text))


def _unpause(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    return for_each(arguments, lambda text: lifecycle.unpause(engine, text))


COMMAND = Command(
    "pause",
    arguments="CONTAINER [CONTAINER...]",
    summary="Freeze every process of one or more containers",
    flags=(),
    run=_pause,
    example="hutch pause web",
    least=1,
)
UNPAUSE = Command(
    "unpause",
    arguments="CONTAINER [CONTAINER...]",
    summary="Let paused containers go on",
    flags=(),
    run=_unpause,
    example="hutch unpause web",
    least=1,
)
