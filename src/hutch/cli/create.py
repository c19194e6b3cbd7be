"""`hutch create`: a new container that is started later."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.messages import warn
from hutch.cli.run import CidFile, pulling
from hutch.cli.run_flags import RUN_FLAGS, run_options
from hutch.engine.engine import Engine
from hutch.engine.prepare import prepare
from hutch.engine.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    options = run_options(given, arguments)
    engine = Engine(general["root"], general["state"])
    with Undo() as undo, CidFile(options.cidfile, undo) as cidfile:
        prepared = prepare(
            engine, options, console=None, undo=undo, pulling=lambda name: pulling(name, quiet=given["quiet"])
        )
        for warning in prepared.warnings:
            warn(warning)
        with prepared.directory as directory:
            directory.record.status = "created"
            directory.save()
            undo.keep()
            cidfile.write(directory.record.id)
        print(directory.record.id)
    return 0


COMMAND = Command(
    "create",
    arguments="IMAGE [COMMAND] [ARG...]",
    summary="Create a new container, to be started later",
    flags=RUN_FLAGS,
    run=_run,
    example="hutch create --name web nginx\nhutch start web",
    interspersed=False,
    exit_code=1,
)
