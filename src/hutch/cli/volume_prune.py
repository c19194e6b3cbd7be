"""`hutch volume prune`: remove volumes that no container uses."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.confirm import confirmed
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.output import human_size
from hutch.engine.engine import Engine
from hutch.engine.storage import volumes_in_use
from hutch.engine.volume_filters import volume_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    matches = volume_filter(engine, given["filter"], ("label", "label!"))
    which = "all" if given["all"] else "anonymous"
    warning = f"This will remove {which} local volumes not used by at least one container."
    if not given["force"] and not confirmed("volume prune", warning):
        return 1
    pruned = engine.volumes.prune(
        lambda: volumes_in_use(engine), lambda volume: (given["all"] or volume.anonymous) and matches(volume)
    )
    if pruned.names:
        print("Deleted Volumes:", *pruned.names, "", sep="\n")
    print(f"Total reclaimed space: {human_size(pruned.freed)}")
    for problem in pruned.problems:
        warn(problem)
    return 1 if pruned.problems else 0


COMMAND = Command(
    "volume prune",
    arguments="",
    summary="Remove anonymous volumes that no container uses",
    flags=(
        Flag("all", "", "also volumes that have a name", short="a"),
        Flag("filter", "filter...", "label=, label!="),
        Flag("force", "", "do not ask", short="f"),
    ),
    run=_run,
    example="hutch volume prune --all --force --filter label=project=blog",
    most=0,
)
