"""`hutch ps`: list containers."""

from __future__ import annotations

import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.output import ago, human_size, render, shortened
from hutch.engine.container_filters import KEYS, container_filter
from hutch.engine.engine import Engine
from hutch.engine.lifecycle import status_of, sweep
from hutch.engine.values import parse_int
from hutch.errors import ContainerNotFound, HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.mountspec import MountRequest

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_SIZE = ("SIZE", "Size")
_RUNNING = ("running", "paused", "restarting")
_MOUNT_WIDTH = 15


class Row:
    """One container, as filters ask for it and the table shows it; what costs a file is read when asked for."""

    def __init__(self, directory: ContainerDirectory, status: str) -> None:
        self._directory, self.record, self.status = directory, directory.record, status
        record = directory.record
        self.id, self.name, self.created, self.image = record.id, record.name, record.created, record.image
        self.image_id, self.chain_ids, self.labels = record.image_id, record.chain_ids, record.labels
        self.exit_code, self.ports = record.exit_code, record.ports
        self.health: str = record.health.get("Status", "")
        mode = str(record.options.get("network", ""))
        self.networks: tuple[str, ...] = tuple(record.networks) or ((mode,) if mode in ("none", "host") else ())

    def mounts(self) -> list[MountRequest]:
        """What is mounted; nothing that can be said of a damaged record."""
        from hutch.engine import mountrecord

        try:
            return mountrecord.read(self._directory)
        except HutchError:
            return []

    @property
    def volumes(self) -> set[str]:
        """By name, source and destination."""
        named = {text for mount in self.mounts() for text in (mount.source, mount.target) if text}
        return named | {*self.record.volumes, *self.record.mounted_volumes}

    def fields(self, *, full: bool) -> dict[str, Any]:
        """The line, by Docker's names."""
        record, moment = self.record, time.time()
        command = " ".join(record.command)
        return {
            "ID": record.id if full else record.id[:12],
            "Image": record.image,
            "Command": f'"{command if full else shortened(command, 20)}"',
            "CreatedAt": f"{record.created[:19].replace('T', ' ')} +0000 UTC",
            "RunningFor": f"{ago(record.created, moment)} ago",
            "State": self.status,
            "Status": self._status(moment),
            "Names": record.name,
            "Labels": record.labels,
            "Networks": ",".join(self.networks),
            "Ports": _ports(record.ports),
            "Platform": None,
        }

    def mount_fields(self, *, full: bool) -> dict[str, str]:
        """The columns that cost a file more."""
        names = [mount.source or mount.target for mount in self.mounts() if mount.kind in ("bind", "volume")]
        local = len({*self.record.volumes, *self.record.mounted_volumes})
        return {
            "Mounts": ",".join(name if full else shortened(name, _MOUNT_WIDTH) for name in names),
            "LocalVolumes": str(local),
        }

    def size_field(self, engine: Engine) -> dict[str, str]:
        """What it has written, and what it sees in all; that costs a walk through its files."""
        from hutch.engine.inspecting import sizes

        own, whole = sizes(engine, self.record)
        return {"Size": f"{human_size(own, 3)} (virtual {human_size(whole, 3)})"}

    def _status(self, moment: float) -> str:
        record = self.record
        if self.status == "exited" and record.finished:
            return f"Exited ({record.exit_code}) {ago(record.finished, moment)} ago"
        if self.status == "restarting" and record.finished:
            return f"Restarting ({record.exit_code}) {ago(record.finished, moment)} ago"
        if self.status in _RUNNING and record.started:
            health = f"health: {self.health}" if self.health == "starting" else self.health
            note = "Paused" if self.status == "paused" else health
            return f"Up {ago(record.started, moment)}" + (f" ({note})" if note else "")
        return "Dead" if self.status == "dead" else self.status.capitalize()


def _ports(ports: dict[str, Any]) -> str:
    """Docker's words for published and exposed ports."""
    found = []
    for port, bindings in sorted(ports.items()):
        found += [f"{each.get('HostIp') or '0.0.0.0'}:{each['HostPort']}->{port}" for each in bindings or ()] or [port]
    return ", ".join(found)


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])

    def find(text: str) -> Row:
        with engine.containers.find(text) as directory:
            return Row(directory, directory.record.status)

    matches = container_filter(given["filter"], find=find, layers=lambda text: engine.images.get(text).chain_ids)
    for problem in sweep(engine):
        warn(str(problem))
    last = 1 if given["latest"] else given["last"]
    everything = given["all"] or matches.everything or last > 0
    with_mounts = any(word in given["format"] for word in ("json", "Mounts", "LocalVolumes"))
    with_size = given["size"] or ".Size" in given["format"]
    rows = []
    for row in _found(engine):
        if (not everything and row.status not in _RUNNING) or not matches(row):
            continue
        fields = row.fields(full=given["no_trunc"])
        if with_mounts:
            fields.update(row.mount_fields(full=given["no_trunc"]))
        if with_size or with_mounts:
            fields.update(row.size_field(engine) if with_size else {"Size": "0B"})
        rows.append(fields)
        if len(rows) == last:
            break
    columns = (*_COLUMNS, _SIZE) if given["size"] else _COLUMNS
    text = render(rows, given["format"], columns, quiet_key="ID" if given["quiet"] else "")
    if text:
        print(text)
    return 0


def _found(engine: Engine) -> Iterator[Row]:
    """Every container, newest first, open while the caller looks at it."""
    for directory in engine.containers.all():
        with directory:
            try:
                status = status_of(engine, directory)
            except ContainerNotFound:
                continue
            yield Row(directory, status)


COMMAND = Command(
    "ps",
    arguments="",
    summary="List containers",
    flags=(
        Flag("all", "", "also those that do not run", short="a"),
        Flag(
            "filter",
            "filter...",
            f"{', '.join(f'{key}=' for key in KEYS)}",
            short="f",
        ),
        Flag("format", "template", "table, json or a template such as '{{.ID}} {{.Names}}'", default=""),
        Flag("last", "int", "the newest of them, in whatever state", short="n", parse=parse_int, default=-1),
        Flag("latest", "", "the newest one, in whatever state", short="l"),
        Flag("no-trunc", "", "print ids and commands in full"),
        Flag("quiet", "", "print ids alone", short="q"),
        Flag("size", "", "show what they have written, too", short="s"),
    ),
    run=_run,
    example="hutch ps -a --filter status=exited --format '{{.Names}}: {{.Status}}'",
    most=0,
)
