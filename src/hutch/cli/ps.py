"""`hutch ps`: list containers."""

from __future__ import annotations

import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.output import ago, render, shortened
from hutch.engine.engine import Engine
from hutch.engine.lifecycle import status_of, sweep
from hutch.errors import ContainerNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
)


def _run(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    rows = []
    for problem in sweep(engine):
        warn(str(problem))
    for directory in engine.containers.all():
        with directory:
            try:
                status = status_of(engine, directory)
            except ContainerNotFound:
                continue
            if given["all"] or status in ("running", "paused"):
                rows.append(_row(directory.record, status, full=given["no_trunc"]))
    text = render(rows, given["format"], _COLUMNS, quiet_key="ID" if given["quiet"] else "")
    if text:
        print(text)
    return 0


def _row(record: ContainerRecord, status: str, *, full: bool) -> dict[str, Any]:
    moment = time.time()
    command = " ".join(record.command)
    return {
        "ID": record.id if full else record.id[:12],
        "Image": record.image,
        "Command": f'"{command if full else shortened(command, 20)}"',
        "CreatedAt": record.created,
        "RunningFor": f"{ago(record.created, moment)} ago",
        "State": status,
        "Status": _status(record, status, moment),
        "Names": record.name,
        "Labels": record.labels,
    }


def _status(record: ContainerRecord, status: str, moment: float) -> str:
    if status == "exited" and record.finished:
        return f"Exited ({record.exit_code}) {ago(record.finished, moment)} ago"
    if status in ("running", "paused") and record.started:
        return f"Up {ago(record.started, moment)}" + (" (Paused)" if status == "paused" else "")
    return "Dead" if status == "dead" else "Created"


COMMAND = Command(
    "ps",
    arguments="",
    summary="List containers",
    flags=(
        Flag("all", "", "also those that do not run", short="a"),
        Flag("format", "template", "table, json or a template such as '{{.ID}} {{.Names}}'", default=""),
        Flag("no-trunc", "", "print ids and commands in full"),
        Flag("quiet", "", "print ids alone", short="q"),
    ),
    run=_run,
    example="hutch ps -a --format '{{.Names}}: {{.Status}}'",
    most=0,
)
