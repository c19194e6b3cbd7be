"""`hutch system prune`: remove what nobody uses."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.confirm import confirmed
from hutch.cli.flags import Flag
from hutch.cli.messages import complain, warn
from hutch.cli.output import human_size
from hutch.cli.pruning import prune_containers
from hutch.engine.container_filters import PRUNE_KEYS
from hutch.engine.engine import Engine
from hutch.engine.filters import split
from hutch.engine.image_filters import image_filter
from hutch.engine.storage import volumes_in_use
from hutch.engine.volume_filters import volume_filter
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    filters = given["filter"]
    keys = {key for key, _ in split(filters, PRUNE_KEYS)}
    if given["volumes"] and "until" in keys:
        raise InvalidArgument('the "until" filter is not supported with "--volumes"')
    if not given["force"] and not confirmed("system prune", _warning(given)):
        return 1
    pruned = prune_containers(engine, filters)
    _section("Containers", pruned.ids)
    freed, problems = pruned.freed, len(pruned.problems)
    for problem in pruned.problems:
        complain(problem)
    if given["volumes"]:
        matches = volume_filter(engine, filters, ("label", "label!"))
        gone = engine.volumes.prune(lambda: volumes_in_use(engine), lambda volume: volume.anonymous and matches(volume))
        _section("Volumes", gone.names)
        for text in gone.problems:
            warn(text)
        freed, problems = freed + gone.freed, problems + len(gone.problems)
    removal = engine.images.prune(everything=given["all"], matches=image_filter(engine, filters))
    _section(
        "Images",
        [*(f"untagged: {name}" for name in removal.untagged), *(f"deleted: {name}" for name in removal.deleted)],
    )
    engine.snapshots.sweep()
    print(f"Total reclaimed space: {human_size(freed + removal.freed)}")
    return 1 if problems else 0


def _warning(given: dict[str, Any]) -> str:
    images = "images without at least one container associated to them" if given["all"] else "dangling images"
    lines = [
        "all stopped containers",
        *(["all anonymous volumes not used by at least one container"] if given["volumes"] else []),
        f"all {images}",
    ]
    listed = "\n".join(f"  - {line}" for line in lines)
    chosen = "".join(f"\n  - {text}" for text in given["filter"])
    more = f"\n\nItems to be pruned will be filtered with:{chosen}" if chosen else ""
    return f"This will remove:\n{listed}{more}\n"


def _section(title: str, names: Any) -> None:
    if names:
        print(f"Deleted {title}:", *names, "", sep="\n")


COMMAND = Command(
    "system prune",
    arguments="",
    summary="Remove stopped containers and unused images, and volumes if asked to",
    flags=(
        Flag("all", "", "also images that have a name", short="a"),
        Flag("filter", "filter...", ", ".join(f"{key}=" for key in PRUNE_KEYS)),
        Flag("force", "", "do not ask", short="f"),
        Flag("volumes", "", "also anonymous volumes that no container uses"),
    ),
    run=_run,
    example="hutch system prune --all --volumes --force --filter label!=keep",
    most=0,
)
