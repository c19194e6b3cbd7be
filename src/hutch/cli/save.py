"""`hutch save`: images into an archive."""

from __future__ import annotations

import os

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument
from hutch.image.archive import FORMATS, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    target: str | int = given["output"]
    if not target:
        if os.isatty(1):
            raise InvalidArgument("cowardly refusing to save to a terminal", hint="use the -o flag or redirect")
        target = 1
    engine = Engine(general["root"], general["state"])
    save(arguments, target, store=engine.images, kind=given["format"])
    return 0


COMMAND = Command(
    "save",
    arguments="IMAGE [IMAGE...]",
    summary="Save one or more images to an archive, for docker load and for OCI tools",
    flags=(
        Flag("format", "string", f"{', '.join(FORMATS)}", default=FORMATS[0]),
        Flag("output", "path", "file (or directory) to write instead of stdout", short="o", default=""),
    ),
    run=_run,
    example="hutch save --output images.tar debian:bookworm busybox",
    least=1,
)
