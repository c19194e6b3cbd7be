"""`hutch logs`: what a container wrote."""

from __future__ import annotations

import os
import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.engine.logs.reading import read_batches
from hutch.engine.moments import parse_moment
from hutch.errors import ContainerNotFound, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.logs.entries import LogEntry

_OVER = ("created", "exited", "dead", "removing")


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    now = time.time_ns()
    since, until = (_moment(given, name, now) for name in ("since", "until"))
    with engine.containers.find(arguments[0]) as directory:
        record = directory.record
        batches = read_batches(
            record.log_driver,
            record.log_options,
            directory.path,
            since_nanos=since,
            until_nanos=until,
            tail=_count(given["tail"]),
            follow=given["follow"],
            running=lambda: _is_running(engine, directory),
        )
        show = _shown(timestamps=given["timestamps"], details=given["details"])
        for batch in batches:
            _write(batch, show)
    return 0


def _moment(given: dict[str, Any], name: str, now: int) -> int:
    if not given[name]:
        return 0
    try:
        return parse_moment(given[name], now)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid value for "{name}": {error}') from None


def _count(text: str) -> int:
    """--tail as docker reads it: whatever is no number, and what is below zero, is everything."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1


def _is_running(engine: Engine, directory: ContainerDirectory) -> bool:
    try:
        directory.refresh()
        return lifecycle.status_of(engine, directory) not in _OVER
    except ContainerNotFound:
        return False


def _shown(*, timestamps: bool, details: bool) -> Callable[[LogEntry], bytes]:
    """What makes the output of one entry."""

    def show(entry: LogEntry) -> bytes:
        data = entry.data
        if details:
            data = _details(entry.attributes) + b" " + data
        return _time(entry.time_nanos) + b" " + data if timestamps else data

    return show if timestamps or details else lambda entry: entry.data


def _details(attributes: dict[str, str]) -> bytes:
    from urllib.parse import quote_plus

    return ",".join(f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes)).encode()


def _time(nanos: int) -> bytes:
    """RFC 3339 with all nine digits, so that columns stand below each other."""
    seconds, rest = divmod(nanos, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z".encode()


def _write(batch: list[LogEntry], show: Callable[[LogEntry], bytes]) -> None:
    """Write entries to the streams they came from, in their order, in as few writes as that allows."""
    start = 0
    for index in range(1, len(batch) + 1):
        if index == len(batch) or batch[index].stream != batch[start].stream:
            view = memoryview(b"".join(map(show, batch[start:index])))
            while view:
                view = view[os.write(batch[start].stream, view) :]
            start = index


COMMAND = Command(
    "logs",
    arguments="CONTAINER",
    summary="Show what a container wrote to its standard output and error",
    flags=(
        Flag("details", "", "show the labels and variables that the log's options chose"),
        Flag("follow", "", "wait for more until the container ends", short="f"),
        Flag("since", "time", "from a time (2026-01-02T13:23:37Z), or a while ago (42m)", default=""),
        Flag("tail", "lines", "only this many lines from the end (default all)", short="n", default="all"),
        Flag("timestamps", "", "show when each line was written", short="t"),
        Flag("until", "time", "up to a time (2026-01-02T13:23:37Z), or a while ago (42m)", default=""),
    ),
    run=_run,
    example="hutch logs --follow --tail 20 web",
    least=1,
    most=1,
)
