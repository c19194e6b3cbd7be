"""`hutch volume rm`: remove volumes."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.engine import storage
from hutch.engine.engine import Engine
from hutch.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])

    def remove(name: str) -> None:
        try:
            storage.remove_volume(engine, name)
        except NotFound:
            if not given["force"]:
                raise

    return for_each(arguments, remove)


COMMAND = Command(
    "volume rm",
    arguments="VOLUME [VOLUME...]",
    summary="Remove one or more volumes and their data",
    flags=(Flag("force", "", "one that is not there is no error", short="f"),),
    run=_run,
    example="hutch volume rm blog-data",
    least=1,
)
