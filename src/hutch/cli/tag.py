"""`hutch tag`: give an image one more name."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.engine.engine import Engine
from hutch.image.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    engine.images.tag(arguments[0], Reference.parse(arguments[1], default_domain=engine.registries.default))
    return 0


COMMAND = Command(
    "tag",
    arguments="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    summary="Give an image one more name",
    flags=(),
    run=_run,
    example="hutch tag debian:bookworm localhost:5000/debian:stable",
    least=2,
    most=2,
)
