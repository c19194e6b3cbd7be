"""`hutch import`: a root file system becomes an image of one layer."""

from __future__ import annotations

import os

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument
from hutch.image import platform as platforms
from hutch.image.archive import import_
from hutch.image.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    source: str | int = arguments[0]
    if source == "-":
        if os.isatty(0):
            raise InvalidArgument("requested import from stdin, but stdin is a terminal", hint="redirect a file to it")
        source = 0
    engine = Engine(general["root"], general["state"])
    engine.prepare_directories()
    reference = None
    if len(arguments) > 1:
        reference = Reference.parse(arguments[1], default_domain=engine.registries.default).with_default_tag()
    image = import_(
        source,
        reference,
        store=engine.images,
        layers=engine.snapshots,
        changes=given["change"],
        message=given["message"],
        platform=platforms.parse(given["platform"]) if given["platform"] else None,
    )
    print(image.id)
    return 0


COMMAND = Command(
    "import",
    arguments="FILE|URL|- [REPOSITORY[:TAG]]",
    summary="Make an image from a tar of a root file system",
    flags=(
        Flag("change", "list...", "Dockerfile instruction for the image, such as 'CMD sh'", short="c"),
        Flag("message", "string", "comment for the image's history", short="m", default=""),
        Flag("platform", "string", "what the image is for, if not this machine", default=""),
    ),
    run=_run,
    example="tar -C rootfs -c . | hutch import --change 'CMD [\"sh\"]' - mine:latest",
    least=1,
    most=2,
)
