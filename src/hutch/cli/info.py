"""`hutch info`: what hutch found on this system and what it chose, with the reasons."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.output import parse_template
from hutch.engine.engine import Engine
from hutch.engine.info import information
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    found = information(Engine(general["root"], general["state"]))
    if given["format"] == "json":
        print(documents.dump(found))
    elif given["format"]:
        print(parse_template(given["format"])(found))
    else:
        print("\n".join(_lines(found, 0)))
    return 0


def _lines(found: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in found.items():
        label = f"{'  ' * depth}{key}:"
        if isinstance(value, dict):
            lines += [label, *_lines(value, depth + 1)]
        elif isinstance(value, list) and value:
            lines += [label, *(f"{'  ' * (depth + 1)}{item}" for item in value)]
        else:
            text = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            lines.append(f"{label} {'none' if value == [] else text}")
    return lines


COMMAND = Command(
    "info",
    arguments="",
    summary="Show what hutch found on this system, and what it chose",
    flags=(Flag("format", "template", "json or a template", short="f", default=""),),
    run=_run,
    example="hutch info --format '{{json .Warnings}}'",
    most=0,
)
