"""`hutch rename`."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.engine import lifecycle
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    lifecycle.rename(Engine(general["root"], general["state"]), *arguments)
    return 0


COMMAND = Command(
    "rename",
    arguments="CONTAINER NEW_NAME",
    summary="Give a container another name",
    flags=(),
    run=_run,
    example="hutch rename quiet_otter web",
    least=2,
    most=2,
)
