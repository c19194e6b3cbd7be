"""`hutch system df`: what takes how much of the disk."""

from __future__ import annotations

import json
import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.output import ago, human_size, parse_template, render
from hutch.cli.ps import Row
from hutch.engine.disk import Disk
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_COLUMNS = (
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
)
_IMAGES = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
)
_CONTAINERS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
)
_VOLUMES = (("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size"))
_CACHE = tuple((name, name) for name in ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"))


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    disk = Disk(engine)
    if not given["verbose"]:
        print(render(_summary(disk), given["format"], _COLUMNS))
        return 0
    full = bool(given["format"])
    rows: dict[str, list[dict[str, Any]]] = {
        "Images": _images(disk, full=full),
        "Containers": _containers(disk, full=full),
        "Volumes": _volumes(disk),
        "BuildCache": [],
    }
    if given["format"] == "json":
        print(json.dumps(rows, separators=(",", ":")))
    elif given["format"]:
        print(parse_template(given["format"])(rows))
    else:
        print(_sections(rows))
    return 0


def _summary(disk: Disk) -> list[dict[str, Any]]:
    used = [one for one in disk.images if one.containers]
    stopped = sum(one.size for one in disk.containers if not one.active)
    idle = sum(one.size for one in disk.volumes if not one.containers)
    return [
        _line("Images", len(disk.images), len(used), disk.layers, disk.idle_layers, always=True),
        _line(
            "Containers",
            len(disk.containers),
            sum(one.active for one in disk.containers),
            sum(one.size for one in disk.containers),
            stopped,
        ),
        _line(
            "Local Volumes",
            len(disk.volumes),
            sum(bool(one.containers) for one in disk.volumes),
            sum(one.size for one in disk.volumes),
            idle,
        ),
        _line("Build Cache", 0, 0, 0, 0),
    ]


def _line(kind: str, count: int, active: int, size: int, idle: int, *, always: bool = False) -> dict[str, Any]:
    part = f" ({idle * 100 // size if size else 0}%)" if size or always else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(idle) + part,
    }


def _images(disk: Disk, *, full: bool) -> list[dict[str, Any]]:
    rows = []
    for one in disk.images:
        names = [(name.familiar_name, name.tag or "<none>") for name in one.image.references] or [("<none>", "<none>")]
        created = one.image.config.created
        for repository, tag in names:
            rows.append(
                {
                    "Repository": repository,
                    "Tag": tag,
                    "ID": one.image.id if full else one.image.id.partition(":")[2][:12],
                    "CreatedAt": created,
                    "CreatedSince": f"{ago(created, time.time())} ago" if created else "N/A",
                    "Size": human_size(one.size, 3),
                    "SharedSize": human_size(one.shared),
                    "UniqueSize": human_size(one.size - one.shared),
                    "Containers": str(len(one.containers)),
                }
            )
    return rows


def _containers(disk: Disk, *, full: bool) -> list[dict[str, Any]]:
    rows = []
    for one in disk.containers:
        with one.directory:
            row = Row(one.directory, one.status)
            fields = {**row.fields(full=full), **row.mount_fields(full=full), "Size": human_size(one.size, 3)}
        rows.append(
            {**fields, "Labels": ",".join(f"{key}={value}" for key, value in sorted(one.record.labels.items()))}
        )
    return rows


def _volumes(disk: Disk) -> list[dict[str, Any]]:
    return [
        {
            "Name": one.volume.name,
            "Driver": "local",
            "Links": str(len(one.containers)),
            "Mountpoint": one.volume.path,
            "Size": human_size(one.size, 3),
        }
        for one in disk.volumes
    ]


def _sections(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    return "\n\n".join(
        f"{title}\n\n{render(rows[key], '', columns)}"
        for title, key, columns in (
            ("Images space usage:", "Images", _IMAGES),
            ("Containers space usage:", "Containers", _CONTAINERS),
            ("Local Volumes space usage:", "Volumes", _VOLUMES),
            ("Build cache usage: 0B", "BuildCache", _CACHE),
        )
    )


COMMAND = Command(
    "system df",
    arguments="",
    summary="Show what takes how much of the disk, and what of it can be freed",
    flags=(
        Flag("format", "template", "table, json or a template such as '{{.Type}} {{.Size}}'", default=""),
        Flag("verbose", "", "image by image, container by container, volume by volume", short="v"),
    ),
    run=_run,
    example="hutch system df --verbose",
    most=0,
)
