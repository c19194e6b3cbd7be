"""`hutch cp`: files between a container and the host."""

from __future__ import annotations

import os
import sys

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.engine.engine import Engine
from hutch.engine.transfer import to_container, to_host
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.transfer import Copied


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    (from_container, source), (into_container, target) = map(_split, arguments)
    if from_container and into_container:
        raise InvalidArgument(
            "copying between containers is not supported", hint="hutch cp A:PATH - | hutch cp - B:DIR"
        )
    if not from_container and not into_container:
        raise InvalidArgument("must specify at least one container source")
    for text, what in ((source, "source"), (target, "destination")):
        if not text:
            raise InvalidArgument(f"{what} can not be empty")
    how = {"follow": given["follow_link"], "keep_ids": given["archive"]}
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(from_container or into_container) as directory:
        if from_container:
            if target == "-" and os.isatty(1):
                raise InvalidArgument("cowardly refusing to write an archive to a terminal", hint="redirect it")
            copied = to_host(engine, directory, source, 1 if target == "-" else target, **how)
            place = target
        else:
            if source == "-" and os.isatty(0):
                raise InvalidArgument("stdin is a terminal, not an archive", hint="redirect one to it")
            copied = to_container(engine, directory, 0 if source == "-" else source, target, **how)
            place = f"{into_container}:{os.fsdecode(copied.target)}"
    _tell(copied, place, quiet=given["quiet"] or target == "-" or not os.isatty(1))
    return 0


def _tell(copied: Copied, place: str, *, quiet: bool) -> None:
    for text, count in copied.notes.items():
        warn(f"left out: {text} ({count})")
    if not quiet:
        from hutch.cli.messages import plain
        from hutch.cli.output import human_size

        print(f"Successfully copied {human_size(copied.size)} to {plain(place)}", file=sys.stderr)


def _split(argument: str) -> tuple[str, str]:
    """(container, path); without a container for a path of the host's, such as /a:b or ./a:b."""
    container, colon, path = argument.partition(":")
    if not colon or argument.startswith(("/", ".")):
        return "", argument
    return container, path


COMMAND = Command(
    "cp",
    arguments="CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    summary="Copy files between a container and the host; with '-', as a tar on stdin or stdout",
    flags=(
        Flag("archive", "", "keep owners instead of making files root's, or the caller's", short="a"),
        Flag("follow-link", "", "follow SRC_PATH if it is a symbolic link", short="L"),
        Flag("quiet", "", "say nothing of success", short="q"),
    ),
    run=_run,
    example="hutch cp site/. quiet_otter:/srv/www",
    least=2,
    most=2,
)
