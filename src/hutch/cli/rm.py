"""`hutch rm`: remove containers."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.errors import ContainerNotFound, HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    status = 0
    for text in arguments:
        try:
            print(lifecycle.remove(engine, text, force=given["force"], volumes=given["volumes"]))
        except HutchError as error:
            if given["force"] and isinstance(error, ContainerNotFound):
                continue
            complain(error)
            status = 1
    return status


COMMAND = Command(
    "rm",
    arguments="CONTAINER [CONTAINER...]",
    summary="Remove one or more containers",
    flags=(
        Flag("force", "", "kill a container that runs; one that is not there is no error", short="f"),
        Flag("volumes", "", "remove its anonymous volumes too", short="v"),
    ),
    run=_run,
    example="hutch rm -f quiet_otter",
    least=1,
)
