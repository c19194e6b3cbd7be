"""`hutch image prune`: remove images that nothing uses."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.confirm import confirmed
from hutch.cli.flags import Flag
from hutch.cli.output import human_size
from hutch.cli.rmi import told
from hutch.engine.engine import Engine
from hutch.engine.image_filters import image_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    matches = image_filter(engine, given["filter"])
    which = "all images without at least one container associated to them" if given["all"] else "all dangling images"
    if not given["force"] and not confirmed("image prune", f"This will remove {which}."):
        return 1
    engine.snapshots.sweep()
    removal = engine.images.prune(everything=given["all"], matches=matches)
    if removal.untagged or removal.deleted:
        print("Deleted Images:")
        print(told(removal))
        print()
    print(f"Total reclaimed space: {human_size(removal.freed)}")
    return 0


COMMAND = Command(
    "image prune",
    arguments="",
    summary="Remove unused images, and what broken downloads left",
    flags=(
        Flag("all", "", "also images that have a name", short="a"),
        Flag("filter", "filter...", "until=, label=, label!=, reference=", parse=None),
        Flag("force", "", "do not ask", short="f"),
    ),
    run=_run,
    example="hutch image prune --all --force --filter until=240h",
    most=0,
)
