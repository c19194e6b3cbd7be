"""`hutch load`: images out of an archive or a directory."""

from __future__ import annotations

import os
import sys

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.progress import pull_progress
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument
from hutch.image import platform as platforms
from hutch.image.archive import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    source: str | int = given["input"]
    if not source:
        if os.isatty(0):
            raise InvalidArgument("requested load from stdin, but stdin is a terminal", hint="use --input FILE")
        source = 0
    engine = Engine(general["root"], general["state"])
    engine.prepare_directories()
    platform = platforms.parse(given["platform"]) if given["platform"] else None
    # Lines per layer, as a pull has them off a terminal, say nothing that the last line does not.
    quiet = given["quiet"] or not sys.stdout.isatty()
    with pull_progress(sys.stdout, quiet=quiet) as told:
        found = load(source, store=engine.images, layers=engine.snapshots, platform=platform, told=told)
    for one in found:
        for name in one.names:
            print(f"Loaded image: {name.familiar()}")
        if not one.names:
            print(f"Loaded image ID: {one.image.id}")
    return 0


COMMAND = Command(
    "load",
    arguments="",
    summary="Load images from an archive of docker or an OCI tool, or from an OCI directory",
    flags=(
        Flag("input", "path", "file or directory to read instead of stdin", short="i", default=""),
        Flag("platform", "string", "which to take where there are several", default=""),
        Flag("quiet", "", "no progress", short="q"),
    ),
    run=_run,
    example="hutch load --input images.tar",
    most=0,
)
