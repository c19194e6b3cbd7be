"""`hutch usage`: what containers and execs have taken, item by item, also those that are gone."""

from __future__ import annotations

import time

from hutch.cli.command import Command
from hutch.cli.events import moment
from hutch.cli.flags import Flag
from hutch.cli.output import human_size, render
from hutch.engine import lifecycle
from hutch.engine.accounts import Account, bill, read_accounts
from hutch.engine.counters import current_usage
from hutch.engine.engine import Engine
from hutch.engine.moments import parse_moment
from hutch.errors import ContainerNotFound, HutchError
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("WHAT", "What"),
    ("ENDED", "Ended"),
    ("WALL", "Wall"),
    ("CPU USER", "CPUUser"),
    ("CPU SYSTEM", "CPUSystem"),
    ("MEM PEAK", "MemPeak"),
    ("BLOCK I/O", "BlockIO"),
    ("NET I/O", "NetIO"),
)


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    since = parse_moment(given["since"], time.time_ns()) if given["since"] else 0
    found = [*read_accounts(engine.database, since_nanos=since, containers=arguments), *_running(engine, arguments)]
    if arguments:
        known = {one.container_id for one in found}
        for text in arguments:
            if not any(one.name == text or one.container_id.startswith(text) for one in found):
                with engine.containers.find(text) as directory:  # it has not run yet, or there is none
                    known.add(directory.record.id)
    print(render([_fields(one, full=given["no_trunc"]) for one in found], given["format"], _COLUMNS))
    return 0


def _running(engine: Engine, wanted: list[str]) -> Iterator[Account]:
    """The accounts that are open."""
    for directory in engine.containers.all():
        with directory:
            record = directory.record
            if wanted and not any(record.name == text or record.id.startswith(text) for text in wanted):
                continue
            try:
                if lifecycle.status_of(engine, directory) not in ("running", "paused"):
                    continue
                with Container.load(engine.runtime_state, record.id) as container:
                    used = current_usage(container, record)
            except (ContainerNotFound, OSError, HutchError):
                continue  # it has just ended; its account is closed by now, or will be
            yield Account(record.id, "", record.name, record.image, 0, used)


def _fields(one: Account, *, full: bool) -> dict[str, Any]:
    found = bill(one.usage)
    identifier = one.container_id if full else one.container_id[:12]
    exec_id = one.exec_id if full else one.exec_id[:12]
    return {
        "ID": identifier,
        "Name": one.name,
        "Image": one.image,
        "ExecID": exec_id,
        "What": f"exec {exec_id}" if one.exec_id else "run",
        "Ended": moment(one.finished_nanos) if one.finished_nanos else "running",
        "Wall": _seconds(found["WallSeconds"]),
        "CPUUser": _seconds(found["CPUUserSeconds"]),
        "CPUSystem": _seconds(found["CPUSystemSeconds"]),
        "MemPeak": _bytes(found["MemoryPeakBytes"]),
        "BlockIO": f"{_bytes(found['ReadBytes'])} / {_bytes(found['WrittenBytes'])}",
        "NetIO": f"{_bytes(found['ReceivedBytes'])} / {_bytes(found['SentBytes'])}",
        **{name: "" if value is None else value for name, value in found.items() if name != "Runs"},
    }


def _seconds(value: float | None) -> str:
    return "--" if value is None else f"{value:.3f}s"


def _bytes(value: int | None) -> str:
    return "--" if value is None else human_size(value, 3)


COMMAND = Command(
    "usage",
    arguments="[CONTAINER...]",
    summary="Show what each run of a container and each exec has taken, also of those that are gone",
    flags=(
        Flag("format", "template", "table, json or a template such as '{{.Name}} {{.CPUSeconds}}'", default=""),
        Flag("no-trunc", "", "print ids in full"),
        Flag("since", "time", "of what ended from a time (2026-01-02), or a while ago (24h)", default=""),
    ),
    run=_run,
    example="hutch usage --since 24h --format '{{.Name}} {{.CPUSeconds}} {{.MemoryPeakBytes}}'",
)
