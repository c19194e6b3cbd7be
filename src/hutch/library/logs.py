"""What a container wrote, as lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from hutch.engine import lifecycle
from hutch.engine.containers import ContainerDirectory
from hutch.engine.engine import Engine
from hutch.engine.logs.reading import LogEntry, read_log
from hutch.errors import ContainerNotFound
from hutch.library.cancelling import check
from hutch.library.moments import nanos

_OVER = ("created", "exited", "dead", "removing")


def lines(
    engine: Engine,
    directory: ContainerDirectory,
    *,
    follow: bool,
    streams: tuple[int, ...],
    timestamps: bool,
    tail: int | Literal["all"],
    since: datetime | float | str | None,
    until: datetime | float | str | None,
) -> Iterator[bytes]:
    """The lines, each with its newline if it had one.

    Args:
        engine: whose container.
        directory: the container; closed at the end.
        follow: wait for more until it ends.
        streams: 1 for standard output, 2 for standard error.
        timestamps: begin each line with when it was written.
        tail: this many from the end.
        since: from a moment.
        until: up to a moment.

    Raises:
        NotSupported: the driver's logs cannot be read.
    """
    record = directory.record
    entries = read_log(
        record.log_driver,
        record.log_options,
        directory.path,
        since_nanos=0 if since is None else nanos(since),
        until_nanos=0 if until is None else nanos(until),
        tail=-1 if tail == "all" else max(0, int(tail)),
        follow=follow,
        running=lambda: _is_running(engine, directory),
    )
    return _lines(directory, entries, streams, timestamps=timestamps)


def _lines(
    directory: ContainerDirectory, entries: Iterator[LogEntry], streams: tuple[int, ...], *, timestamps: bool
) -> Iterator[bytes]:
    with directory:
        for entry in entries:
            if entry.stream in streams:
                yield _time(entry.time_nanos) + b" " + entry.data if timestamps else entry.data


def _is_running(engine: Engine, directory: ContainerDirectory) -> bool:
    check()  # it is asked several times a second: a wait can end here
    try:
        directory.refresh()
        return lifecycle.status_of(engine, directory) not in _OVER
    except ContainerNotFound:
        return False


def _time(nanos_since: int) -> bytes:
    seconds, rest = divmod(nanos_since, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z".encode()
