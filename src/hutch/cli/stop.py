"""`hutch stop` and `hutch restart`."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.engine.values import parse_int
from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _seconds(text: str) -> int:
    return parse_int(text, low=-1, high=(1 << 31) - 1)


def _stop(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    signal = signals.number(given["signal"]) if given["signal"] else None
    return for_each(arguments, lambda text: lifecycle.stop(engine, text, signal=signal, timeout_s=given["timeout"]))


def _restart(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    signal = signals.number(given["signal"]) if given["signal"] else None
    return for_each(arguments, lambda text: lifecycle.restart(engine, text, signal=signal, timeout_s=given["timeout"]))


_FLAGS = (
    Flag("signal", "signal", "send this instead of the container's stop signal", short="s", default=""),
    Flag("timeout", "seconds", "time to end in, before it is killed; -1 waits for ever", short="t", parse=_seconds),
)

COMMAND = Command(
    "stop",
    arguments="CONTAINER [CONTAINER...]",
    summary="Stop one or more running containers",
    flags=_FLAGS,
    run=_stop,
    example="hutch stop -t 30 database",
    least=1,
)
RESTART = Command(
    "restart",
    arguments="CONTAINER [CONTAINER...]",
    summary="Stop one or more containers and start them again",
    flags=_FLAGS,
    run=_restart,
    example="hutch restart web",
    least=1,
)
