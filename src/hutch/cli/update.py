"""`hutch update`: change limits and the restart policy."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.cli.run_flags import RUN_FLAGS
from hutch.engine.engine import Engine
from hutch.engine.updating import FIELDS, update
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REFUSED = ("cpu-rt-period", "cpu-rt-runtime", "kernel-memory")


def _flag(flag: Flag) -> Flag:
    """A flag of `run` that tells what was given from what was not."""
    return Flag(flag.name, flag.kind, flag.text, short=flag.short, parse=flag.parse)


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    changes = {"nano_cpus" if name == "cpus" else name: value for name, value in given.items() if name != "restart"}
    changes = {name: value for name, value in changes.items() if name in FIELDS and value is not None}
    if not changes and given["restart"] is None:
        raise InvalidArgument("you must provide one or more flags when using this command")
    return for_each(arguments, lambda text: update(engine, text, changes, given["restart"]))


_NAMES = tuple("cpus" if name == "nano_cpus" else name.replace("_", "-") for name in FIELDS)

COMMAND = Command(
    "update",
    arguments="CONTAINER [CONTAINER...]",
    summary="Change the limits and the restart policy of one or more containers",
    flags=tuple(_flag(flag) for flag in RUN_FLAGS if flag.name in (*_NAMES, "restart", *_REFUSED)),
    run=_run,
    example="hutch update --memory 512m --memory-swap 1g --cpus 1.5 database\n"
    "hutch update --restart unless-stopped web",
    least=1,
)
