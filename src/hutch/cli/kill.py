"""`hutch kill`: send containers a signal."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    number = signals.number(given["signal"])
    return for_each(arguments, lambda text: lifecycle.kill(engine, text, number))


COMMAND = Command(
    "kill",
    arguments="CONTAINER [CONTAINER...]",
    summary="Kill one or more running containers, or send them another signal",
    flags=(Flag("signal", "signal", "name or number (default KILL)", short="s", default="KILL"),),
    run=_run,
    example="hutch kill -s HUP web",
    least=1,
)
