"""`hutch image rm` (`hutch rmi`): take names away, and with the last one the image."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.image.image import Removal


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    return for_each(
        arguments,
        lambda text: told(engine.images.remove(text, force=given["force"])),
        missing_is_fine=given["force"],
    )


def told(removal: Removal) -> str:
    """What went, a line each, as Docker says it."""
    lines = [f"Untagged: {name}" for name in removal.untagged]
    return "\n".join([*lines, *(f"Deleted: {identifier}" for identifier in removal.deleted)])


COMMAND = Command(
    "rmi",
    arguments="IMAGE [IMAGE...]",
    summary="Remove one or more images",
    flags=(Flag("force", "", "even if stopped containers use it; one that is not there is no error", short="f"),),
    run=_run,
    example="hutch image rm debian:bookworm",
    least=1,
)
