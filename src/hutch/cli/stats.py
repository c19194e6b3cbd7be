"""`hutch stats`: what running containers take, once or again and again."""

from __future__ import annotations

import sys
import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.output import binary_size, human_size, render
from hutch.engine import lifecycle
from hutch.engine.counters import Reading, read_counters
from hutch.engine.engine import Engine
from hutch.errors import ContainerNotFound, HutchError
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
_EVERY_S = 1.0
_SINGLE_S = 0.5
_HOME, _TO_LINE_END, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


class _Watched:
    """One container, with its last two readings."""

    def __init__(self, container_id: str, name: str, asked: str) -> None:
        self.id, self.name, self.asked = container_id, name, asked
        self.before = self.now = Reading()

    def read(self, engine: Engine) -> None:
        """Take a reading; of one that does not run all is zero."""
        self.before = self.now
        try:
            with Container.load(engine.runtime_state, self.id) as container:
                self.now = read_counters(container)
        except (HutchError, OSError):
            self.before = self.now = Reading()

    def fields(self, *, full: bool) -> dict[str, Any]:
        """The line, by Docker's names."""
        now = self.now
        return {
            "Container": self.asked or (self.id if full else self.id[:12]),
            "ID": self.id if full else self.id[:12],
            "Name": self.name,
            "CPUPerc": f"{now.cpu_percent(self.before):.2f}%",
            "MemUsage": f"{binary_size(now.memory)} / {binary_size(now.limit)}",
            "MemPerc": f"{now.memory_percent:.2f}%",
            "NetIO": f"{human_size(now.received, 3)} / {human_size(now.sent, 3)}",
            "BlockIO": f"{human_size(now.read, 3)} / {human_size(now.written, 3)}",
            "PIDs": str(now.pids),
        }


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    seen: dict[str, _Watched] = {}
    live = not given["no_stream"] and sys.stdout.isatty()
    watched = _found(engine, arguments, seen, everything=given["all"])
    for one in watched:
        one.read(engine)
    time.sleep(_SINGLE_S)
    if live:
        sys.stdout.write(_CLEAR)
    while True:
        for one in watched:
            one.read(engine)
        text = _shown(watched, given)
        if live:
            text = _HOME + text.replace("\n", f"{_TO_LINE_END}\n") + f"{_TO_LINE_END}\n{_BELOW}"
        elif text:
            text += "\n"
        sys.stdout.write(text)
        sys.stdout.flush()
        if given["no_stream"]:
            return 0
        time.sleep(_EVERY_S)
        watched = _found(engine, arguments, seen, everything=given["all"])


def _found(engine: Engine, asked: list[str], seen: dict[str, _Watched], *, everything: bool) -> list[_Watched]:
    """Those asked for, or those that run, newest first.

    Raises:
        ContainerNotFound: one that is asked for is not there.
    """
    found = []
    if asked:
        for text in asked:
            with engine.containers.find(text) as directory:
                found.append((directory.record.id, directory.record.name, text))
    else:
        for directory in engine.containers.all():
            with directory:
                try:
                    status = lifecycle.status_of(engine, directory)
                except ContainerNotFound:
                    continue
                if everything or status in ("running", "paused"):
                    found.append((directory.record.id, directory.record.name, ""))
    for row in found:
        seen.setdefault(row[0], _Watched(*row))
    return [seen[container_id] for container_id, _, _ in found]


def _shown(watched: list[_Watched], given: dict[str, Any]) -> str:
    return render([one.fields(full=given["no_trunc"]) for one in watched], given["format"], _COLUMNS)


COMMAND = Command(
    "stats",
    arguments="[CONTAINER...]",
    summary="Show what containers take: CPU, memory, network, disks, processes",
    flags=(
        Flag("all", "", "also those that do not run", short="a"),
        Flag("format", "template", "table, json or a template such as '{{.Name}} {{.CPUPerc}}'", default=""),
        Flag("no-stream", "", "once, instead of again every second"),
        Flag("no-trunc", "", "print ids in full"),
    ),
    run=_run,
    example="hutch stats --no-stream --format '{{.Name}}: {{.MemUsage}}'",
)
