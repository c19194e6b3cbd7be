"""`hutch image rm` (`hutch rmi`): take names away, and with the last one the image."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.engine.engine import Engine
from hutch.errors import HutchError, ImageNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.image.image import Removal


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    status = 0
    for text in arguments:
        try:
            report(engine.images.remove(text, force=given["force"]))
        except HutchError as error:
            if given["force"] and isinstance(error, ImageNotFound):
                continue
            complain(error)
            status = 1
    return status


def report(removal: Removal) -> None:
    """Print what went, a line each, as Docker does."""
    for name in removal.untagged:
        print(f"Untagged: {name}")
    for identifier in removal.deleted:
        print(f"Deleted: {identifier}")


COMMAND = Command(
    "rmi",
    arguments="IMAGE [IMAGE...]",
    summary="Remove one or more images",
    flags=(Flag("force", "", "even if stopped containers use it; one that is not there is no error", short="f"),),
    run=_run,
    example="hutch image rm debian:bookworm",
    least=1,
)
