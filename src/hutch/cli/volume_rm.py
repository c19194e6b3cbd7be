"""`hutch volume rm`: remove volumes."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.engine import storage
from hutch.engine.engine import Engine
from hutch.errors import HutchError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    status = 0
    for name in arguments:
        try:
            storage.remove_volume(engine, name)
        except HutchError as error:
            if not (given["force"] and isinstance(error, NotFound)):
                complain(error)
                status = 1
                continue
        print(name)
    return status


COMMAND = Command(
    "volume rm",
    arguments="VOLUME [VOLUME...]",
    summary="Remove one or more volumes and their data",
    flags=(Flag("force", "", "one that is not there is no error", short="f"),),
    run=_run,
    example="hutch volume rm blog-data",
    least=1,
)
