"""events and update: what a container uses, and what it may."""

from __future__ import annotations

import select

from hutch.errors import InvalidArgument, InvalidState, NotSupported
from hutch.runtime import documents
from hutch.runtime.arguments import BOOLEAN, NUMBER, TEXT, Command, Flag
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context
    from hutch.spec.runtime import LinuxResources

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration_s(text: str) -> float:
    """Seconds from Go's durations of one unit: 500ms, 5s, 1m."""
    digits = text.rstrip("hms")
    unit = _UNITS.get(text[len(digits) :])
    if unit is None or not digits.replace(".", "", 1).isdigit() or len(digits) > 12 or float(digits) == 0:
        raise InvalidArgument(f"invalid duration {text!r}", hint="such as 500ms, 5s or 1m")
    return float(digits) * unit


def _events(context: Context, options: Options, arguments: list[str]) -> int:
    interval_s = _duration_s(options.text("interval"))
    with Container.load(context.state_dir, arguments[0]) as container:
        if container.status() == "stopped":
            raise InvalidState(f"container with id {container.id} is not running", have="stopped", want="running")
        if options.on("stats"):
            _emit(context, container, "stats", container.stats())
            return 0
        _follow(context, container, interval_s)
    return 0


def _follow(context: Context, container: Container, interval_s: float) -> None:
    """Stats at each interval and a line for each further OOM kill, until init ends."""
    cgroup = container.cgroup()
    kills = cgroup.oom_kills()
    pidfd = container.open_init()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    waits_ms = max(1, int(interval_s * 1000))
    while True:
        ended = bool(poll.poll(waits_ms))
        try:
            now = cgroup.oom_kills()
            stats = container.stats()
        except FileNotFoundError:  # the cgroup went with its container
            return
        for _ in range(now - kills):
            _emit(context, container, "oom", None)
        kills = now
        if ended:
            return
        _emit(context, container, "stats", stats)


def _emit(context: Context, container: Container, kind: str, data: Any) -> None:
    event = {"type": kind, "id": container.id}
    if data is not None:
        event["data"] = data
    context.out(documents.dump(event) + "\n")


# flag: (section, field of LinuxResources, what it is)
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight", "relative share of block I/O, 10 to 1000"),
    "cpu-period": ("cpu", "period", "microseconds a CPU quota is for"),
    "cpu-quota": ("cpu", "quota", "microseconds of CPU time in a period; -1: no limit"),
    "cpu-burst": ("cpu", "burst", "microseconds that may be saved up"),
    "cpu-share": ("cpu", "shares", "relative share of CPU time"),
    "cpu-rt-period": ("cpu", "realtimePeriod", "microseconds a realtime limit is for"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", "microseconds of realtime CPU time in a period"),
    "cpu-idle": ("cpu", "idle", "1: run only when nothing else does"),
    "memory": ("memory", "limit", "bytes of memory; -1: no limit"),
    "memory-reservation": ("memory", "reservation", "bytes to fall back to under pressure; -1: none"),
    "memory-swap": ("memory", "swap", "bytes of memory and swap together; -1: no limit"),
    "pids-limit": ("pids", "limit", "number of processes; -1: no limit"),
}
_TEXTS = {
    "cpuset-cpus": ("cpu", "cpus", "CPUs to use, such as 0-2,4"),
    "cpuset-mems": ("cpu", "mems", "memory nodes to use"),
}
_REFUSED = {
    "l3-cache-schema": "Intel RDT cache schema (not supported)",
    "mem-bw-schema": "Intel RDT memory bandwidth schema (not supported)",
}


def _update(context: Context, options: Options, arguments: list[str]) -> int:
    for name in _REFUSED:
        if options.given(name):
            raise NotSupported(f"update --{name}: Intel RDT is not supported")
    resources = _resources_in(options.text("resources")) if options.given("resources") else _resources_of(options)
    with Container.load(context.state_dir, arguments[0]) as container:
        container.update(resources)
    return 0


def _resources_in(path: str) -> LinuxResources:
    """The LinuxResources object in a file, or on standard input when the path is ``-``."""
    found: Any
    if path == "-":
        data = documents.read_bounded(0, documents.CONFIG_LIMIT, source="standard input")
        found = documents.parse_object(data, source="standard input")
    else:
        found = documents.read_object(path)
    resources: LinuxResources = found
    return resources


def _resources_of(options: Options) -> LinuxResources:
    found: Any = {}
    for name, (section, field, _) in _NUMBERS.items():
        if options.given(name):
            found.setdefault(section, {})[field] = options.number(name)
    for name, (section, field, _) in _TEXTS.items():
        if options.given(name):
            found.setdefault(section, {})[field] = options.text(name)
    resources: LinuxResources = found
    return resources


COMMANDS = {
    "events": Command(
        "<container-id>",
        _events,
        flags=(
            Flag("interval", TEXT, "time between two stats (default: 5s)", default="5s"),
            Flag("stats", BOOLEAN, "show the stats once, and end"),
        ),
    ),
    "update": Command(
        "<container-id>",
        _update,
        flags=(
            Flag("resources", TEXT, "file with a resources object, or -; other flags are then ignored", letter="r"),
            *(Flag(name, NUMBER, row[2]) for name, row in _NUMBERS.items()),
            *(Flag(name, TEXT, row[2]) for name, row in _TEXTS.items()),
            *(Flag(name, TEXT, what) for name, what in _REFUSED.items()),
        ),
    ),
}
