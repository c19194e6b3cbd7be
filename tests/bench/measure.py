"""Timing commands against each other: interleaved, warmed up, medians with their spread."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def nothing() -> None:
    """Prepare nothing."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One program in a row.

    Attributes:
        name: what the table calls it.
        commands: run one after the other; the time of all of them counts.
        prepare: untimed, before each run.
        env: the commands' environment.
        missing: why it cannot take part, or an empty string.
    """

    name: str
    commands: Sequence[Sequence[str]]
    prepare: Callable[[], None] = nothing
    env: Mapping[str, str] | None = None
    missing: str = ""


@dataclasses.dataclass
class Timing:
    """What one contender took, in seconds (or what `unit` says), run by run; or why there is nothing."""

    name: str
    seconds: list[float]
    missing: str = ""
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half: first and third quartile."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclasses.dataclass(frozen=True)
class Row:
    """One piece of work, done by several programs; the first contender is ours."""

    title: str
    contenders: Sequence[Contender]
    rounds: int
    warm_ups: int = 2


def measure(row: Row, progress: Callable[[str], None] = lambda _: None) -> list[Timing]:
    """Run a row: warm-ups, then rounds in which every contender runs once, each round in another order."""
    timings = [Timing(contender.name, [], contender.missing) for contender in row.contenders]
    pairs = list(zip(row.contenders, timings, strict=True))
    for contender, timing in pairs:
        for _ in range(row.warm_ups):
            if not timing.missing:
                progress(f"{row.title}: {contender.name}, warming up")
                _, timing.missing = once(contender)
    for turn in range(row.rounds):
        shift = turn % len(pairs)
        for contender, timing in pairs[shift:] + pairs[:shift]:
            if timing.missing:
                continue
            progress(f"{row.title}: {contender.name}, {turn + 1} of {row.rounds}")
            seconds, timing.missing = once(contender)
            timing.seconds.append(seconds)
    return timings


def once(contender: Contender) -> tuple[float, str]:
    """The time of one run in seconds, and why it failed, if it did."""
    contender.prepare()
    total = 0.0
    for argv in contender.commands:
        error_read, error_write = os.pipe()
        os.set_blocking(error_read, False)
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, error_write, 2))
        environment = dict(contender.env if contender.env is not None else os.environ)
        try:
            start = time.perf_counter()
            pid = os.posix_spawnp(argv[0], list(argv), environment, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            total += time.perf_counter() - start
            if status != 0:
                return total, _reason(argv, status, error_read)
        except OSError as error:
            return total, f"{argv[0]}: {error.strerror}"
        finally:
            for fd in (error_read, error_write, null):
                os.close(fd)
    return total, ""


def _reason(argv: Sequence[str], status: int, error_fd: int) -> str:
    try:
        text = os.read(error_fd, 65536).decode(errors="replace").strip()
    except BlockingIOError:
        text = ""
    last = text.splitlines()[-1] if text else ""
    return f"{os.path.basename(argv[0])} ended with {os.waitstatus_to_exitcode(status)}: {last[:200]}"
