"""`hutch inspect` and `hutch container inspect`: all that is known of containers, images and volumes."""

from __future__ import annotations

import json

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import complain
from hutch.cli.output import parse_template
from hutch.engine.engine import Engine
from hutch.engine.inspecting import inspect_container
from hutch.errors import BlobNotFound, HutchError, InvalidArgument, NotFound, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Find = Callable[[str], dict[str, Any]]

_SWARM = ("config", "node", "plugin", "secret", "service", "task")


def _inspect(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    finders = _finders(engine, size=given["size"])
    wanted = given["type"]
    if wanted in _SWARM or wanted == "network":
        raise NotSupported(f"--type {wanted}: there are none here", hint=f"types are {', '.join(finders)}")
    if wanted and wanted not in finders:
        raise InvalidArgument(
            f'"{wanted[:64]}" is not a valid value for --type', hint=f"types are {', '.join(finders)}"
        )
    chosen = [finders[wanted]] if wanted else list(finders.values())
    return _show(arguments, lambda text: _first(chosen, text, wanted or "object"), given["format"])


def _container_inspect(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    return _show(arguments, lambda text: inspect_container(engine, text, size=given["size"]), given["format"])


def _finders(engine: Engine, *, size: bool) -> dict[str, Find]:
    """Kind → how one is found, in the order in which Docker looks."""

    def image(text: str) -> dict[str, Any]:
        from hutch.cli.image_inspect import describe

        return describe(engine, engine.images.get(text))

    def volume(text: str) -> dict[str, Any]:
        from hutch.engine.volume_filters import describe

        try:
            return describe(engine.volumes.get(text))
        except InvalidArgument:
            raise NotFound(f"get {text}: no such volume") from None

    return {"container": lambda text: inspect_container(engine, text, size=size), "image": image, "volume": volume}


def _first(finders: list[Find], text: str, kind: str) -> dict[str, Any]:
    for find in finders:
        try:
            return find(text)
        except BlobNotFound:
            raise  # an image of that name is there, and damaged
        except NotFound:
            continue
    raise NotFound(f"no such {kind}: {text[:128]}")


def _show(arguments: list[str], find: Find, template: str) -> int:
    """Print what is found as one JSON list, or each through the template; complain of the rest afterwards."""
    shown = parse_template(template) if template not in ("", "json") else None
    found, problems = [], []
    for text in arguments:
        try:
            found.append(find(text))
        except HutchError as error:
            problems.append(error)
    if shown is not None:
        for document in found:
            print(shown(document))
    elif template == "json":
        print(json.dumps(found, separators=(",", ":")))
    else:
        print(json.dumps(found, indent=4))
    for problem in problems:
        complain(problem)
    return 1 if problems else 0


_FORMAT = Flag("format", "template", "json or a template such as '{{.State.Status}}'", short="f", default="")
_SIZE = Flag("size", "", "count a container's files too", short="s")

COMMAND = Command(
    "inspect",
    arguments="NAME|ID [NAME|ID...]",
    summary="Show all that is known of containers, images and volumes",
    flags=(_FORMAT, _SIZE, Flag("type", "string", "container, image or volume; else what is found first", default="")),
    run=_inspect,
    example="hutch inspect --format '{{.State.Status}} {{.State.ExitCode}}' web",
    least=1,
)
CONTAINER = Command(
    "container inspect",
    arguments="CONTAINER [CONTAINER...]",
    summary="Show all that is known of one or more containers",
    flags=(_FORMAT, _SIZE),
    run=_container_inspect,
    example="hutch container inspect --size web",
    least=1,
)
