"""`hutch rm`: remove containers."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    if given["link"]:
        raise NotSupported("--link: there are no links between containers", hint="use networks of your own")
    engine = Engine(general["root"], general["state"])
    return for_each(
        arguments,
        lambda text: lifecycle.remove(engine, text, force=given["force"], volumes=given["volumes"]),
        missing_is_fine=given["force"],
    )


COMMAND = Command(
    "rm",
    arguments="CONTAINER [CONTAINER...]",
    summary="Remove one or more containers",
    flags=(
        Flag("force", "", "kill a container that runs; one that is not there is no error", short="f"),
        Flag("link", "", "not supported: there are no links between containers", short="l"),
        Flag("volumes", "", "remove its anonymous volumes too", short="v"),
    ),
    run=_run,
    example="hutch rm -f quiet_otter",
    least=1,
)
