"""`hutch version`: this program and what it runs on."""

from __future__ import annotations

import os
import sys

from hutch import __version__
from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.output import parse_template
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], _general: dict[str, Any]) -> int:
    system = os.uname()
    facts = {
        "Version": __version__,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Kernel": system.release,
        "Arch": system.machine,
        "OciVersion": "1.2.0",
    }
    if given["format"] == "json":
        print(documents.dump(facts))
    elif given["format"]:
        print(parse_template(given["format"])(facts))
    else:
        print("\n".join(f" {key + ':':12} {value}" for key, value in facts.items()))
    return 0


COMMAND = Command(
    "version",
    arguments="",
    summary="Show what this is and what it runs on",
    flags=(Flag("format", "template", "json or a template", short="f", default=""),),
    run=_run,
    example="hutch version --format '{{.Version}}'",
    most=0,
)
