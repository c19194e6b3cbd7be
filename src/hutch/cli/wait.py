"""`hutch wait`: until containers end."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.engine import lifecycle
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    return for_each(arguments, lambda text: lifecycle.wait(engine, text))


COMMAND = Command(
    "wait",
    arguments="CONTAINER [CONTAINER...]",
    summary="Wait until one or more containers end, then print their exit codes",
    flags=(),
    run=_run,
    example="hutch wait job",
    least=1,
)
