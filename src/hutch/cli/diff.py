"""`hutch diff`: what a container changed in its file system."""

from __future__ import annotations

import os
import sys

from hutch.cli.command import Command
from hutch.engine.changes import diff
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:  # noqa: ARG001
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(arguments[0]) as directory:
        changes = diff(engine, directory)
    if os.isatty(1):
        from hutch.cli.messages import plain

        for change in changes:
            print(change.kind, plain(os.fsdecode(change.path)))
        return 0
    out = sys.stdout.buffer
    for change in changes:
        out.write(change.kind.encode() + b" " + change.path + b"\n")
    return 0


COMMAND = Command(
    "diff",
    arguments="CONTAINER",
    summary="List what a container changed in its file system: A added, C changed, D deleted",
    flags=(),
    run=_run,
    example="hutch diff quiet_otter",
    least=1,
    most=1,
)
