"""`hutch volume create`: make a volume."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.engine import values
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _label(text: str) -> tuple[str, str]:
    return values.parse_key_value(text, "label")


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidArgument(f"invalid driver option: {text[:64]}", hint="an option is KEY=VALUE")
    return name, value


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    name = arguments[0] if arguments else given["name"]
    if arguments and given["name"]:
        raise InvalidArgument("conflicting options: cannot specify a volume-name through both --name and as an arg")
    if given["driver"] != "local":
        raise NotSupported(f"volume driver {given['driver'][:64]}: there is only local")
    engine = Engine(general["root"], general["state"])
    engine.prepare_directories()
    volume = engine.volumes.create(name, labels=dict(given["label"]), options=dict(given["opt"]))
    print(volume.name)
    return 0


COMMAND = Command(
    "volume create",
    arguments="[VOLUME]",
    summary="Create a volume",
    flags=(
        Flag("driver", "driver", "local is the only one", short="d", default="local"),
        Flag("label", "key[=value]...", "put a label on it", parse=_label),
        Flag("name", "name", "the name, as the argument", default=""),
        Flag("opt", "key=value...", "type=, device= and o= of what is mounted", short="o", parse=_option),
    ),
    run=_run,
    example="hutch volume create --label project=blog blog-data\n"
    "hutch volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch",
    most=1,
)
