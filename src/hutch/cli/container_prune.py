"""`hutch container prune`: remove the containers that do not run."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.confirm import confirmed
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.cli.output import human_size
from hutch.cli.pruning import prune_containers
from hutch.engine.container_filters import PRUNE_KEYS
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    if not given["force"] and not confirmed("container prune", "This will remove all stopped containers."):
        return 1
    pruned = prune_containers(engine, given["filter"])
    if pruned.ids:
        print("Deleted Containers:", *pruned.ids, "", sep="\n")
    for problem in pruned.problems:
        complain(problem)
    print(f"Total reclaimed space: {human_size(pruned.freed)}")
    return 1 if pruned.problems else 0


COMMAND = Command(
    "container prune",
    arguments="",
    summary="Remove all containers that do not run",
    flags=(
        Flag("filter", "filter...", ", ".join(f"{key}=" for key in PRUNE_KEYS)),
        Flag("force", "", "do not ask", short="f"),
    ),
    run=_run,
    example="hutch container prune --force --filter until=24h",
    most=0,
)
