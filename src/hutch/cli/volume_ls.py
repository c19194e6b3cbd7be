"""`hutch volume ls`: the volumes of this host."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.output import human_size, render
from hutch.engine.engine import Engine
from hutch.engine.storage import volumes_in_use
from hutch.engine.volume_filters import labels, volume_filter
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.volume.store import Volume

_COLUMNS = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
_NOT_COUNTED = "N/A"


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    if given["quiet"] and given["format"]:
        raise InvalidArgument("conflicting options: --quiet and --format")
    engine = Engine(general["root"], general["state"])
    matches = volume_filter(engine, given["filter"], ("dangling", "driver", "label", "name"))
    counted = any(word in given["format"] for word in (".Size", ".Links"))
    used = volumes_in_use(engine) if counted else {}
    rows = []
    for volume in engine.volumes.list():
        if matches(volume):
            row = _row(volume)
            if counted:
                row["Links"] = len(used.get(volume.name, ()))
                row["Size"] = human_size(engine.volumes.usage(volume.name))
            rows.append(row)
    text = render(rows, given["format"], _COLUMNS, quiet_key="Name" if given["quiet"] else "")
    if text:
        print(text)
    for _, problem in engine.volumes.broken():
        warn(str(problem))
    return 0


def _row(volume: Volume) -> dict[str, Any]:
    return {
        "Availability": _NOT_COUNTED,
        "Driver": "local",
        "Group": _NOT_COUNTED,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels(volume).items())),
        "Links": _NOT_COUNTED,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Scope": "local",
        "Size": _NOT_COUNTED,
        "Status": _NOT_COUNTED,
    }


COMMAND = Command(
    "volume ls",
    arguments="",
    summary="List volumes",
    flags=(
        Flag("filter", "filter...", "dangling=, driver=, label=, name=", short="f"),
        Flag("format", "template", "table, json or a template such as '{{.Name}} {{.Size}}'", default=""),
        Flag("quiet", "", "print names alone", short="q"),
    ),
    run=_run,
    example="hutch volume ls --filter dangling=true",
    most=0,
)
