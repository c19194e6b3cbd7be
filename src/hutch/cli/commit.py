"""`hutch commit`: an image of a container's changes."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.engine.commit import commit
from hutch.engine.engine import Engine
from hutch.image.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    reference = None
    if len(arguments) > 1:
        reference = Reference.parse(arguments[1], default_domain=engine.registries.default).with_default_tag()
    with engine.containers.find(arguments[0]) as directory:
        image, notes = commit(
            engine,
            directory,
            reference,
            author=given["author"],
            message=given["message"],
            changes=given["change"],
            pause=None if given["pause"] == "" else given["pause"],
        )
    for text in notes:
        warn(f"left out: {text}")
    print(image.id)
    return 0


COMMAND = Command(
    "commit",
    arguments="CONTAINER [REPOSITORY[:TAG]]",
    summary="Make an image of a container's changes",
    flags=(
        Flag("author", "string", "who made it, such as 'Ann Other <ann@example.org>'", short="a", default=""),
        Flag("change", "list...", "Dockerfile instruction for the image, such as 'CMD sh'", short="c"),
        Flag("message", "string", "comment for the image's history", short="m", default=""),
        Flag("pause", "", "let the container stand still meanwhile, as by default where it can", short="p", default=""),
    ),
    run=_run,
    example="hutch commit --change 'CMD [\"nginx\"]' quiet_otter mine:latest",
    least=1,
    most=2,
)
