"""`hutch volume inspect`: all that is known of volumes, in Docker's JSON."""

from __future__ import annotations

import json

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.cli.output import parse_template
from hutch.engine.engine import Engine
from hutch.engine.volume_filters import describe
from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    template = parse_template(given["format"]) if given["format"] not in ("", "json") else None
    found, status = [], 0
    for name in arguments:
        try:
            found.append(describe(engine.volumes.get(name)))
        except HutchError as error:
            complain(error)
            status = 1
    if template is not None:
        for document in found:
            print(template(document))
    elif given["format"]:
        for document in found:
            print(json.dumps(document))
    else:
        print(json.dumps(found, indent=4))
    return status


COMMAND = Command(
    "volume inspect",
    arguments="VOLUME [VOLUME...]",
    summary="Show all that is known of one or more volumes",
    flags=(Flag("format", "template", "json or a template such as '{{.Mountpoint}}'", short="f", default=""),),
    run=_run,
    example="hutch volume inspect --format '{{.Mountpoint}}' blog-data",
    least=1,
)
