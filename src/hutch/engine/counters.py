"""What running containers take: one reading of their counters, and Docker's formulas over two of them."""

from __future__ import annotations

import os
import time

from hutch.engine.monitor.usage import block_traffic, counted, traffic
from hutch.engine.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.runtime.container import Container

_LIMIT = 1 << 20
_NANOS = 1_000_000_000


class Reading(Record):
    """The counters of a container at one moment.

    Attributes:
        nanos: when, of the monotonic clock.
        memory: bytes in use, without what the page cache could give back.
        limit: of memory, bytes.
        pids: processes and threads.
    """

    nanos: int = 0
    cpu_nanos: int = 0
    memory: int = 0
    limit: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
    pids: int = 0

    @property
    def memory_percent(self) -> float:
        """Of the limit."""
        return self.memory / self.limit * 100 if self.limit else 0.0

    def cpu_percent(self, before: Reading) -> float:
        """Of one CPU, between two readings: of four busy ones it is 400."""
        passed = self.nanos - before.nanos
        return max(0, self.cpu_nanos - before.cpu_nanos) / passed * 100 if passed > 0 and before.nanos else 0.0


def read_counters(container: Container) -> Reading:
    """The counters of a running container.

    Raises:
        OSError: it has just ended.
    """
    stats = container.stats()
    moment = time.monotonic_ns()
    received, sent = _traffic(container)
    read, written = block_traffic(stats)
    return Reading(
        nanos=moment,
        cpu_nanos=int(((stats.get("cpu") or {}).get("usage") or {}).get("total", 0)),
        memory=memory_in_use(stats.get("memory") or {}),
        limit=_limit(stats.get("memory") or {}),
        received=received,
        sent=sent,
        read=read,
        written=written,
        pids=int((stats.get("pids") or {}).get("current", 0)),
    )


def memory_in_use(memory: dict[str, Any]) -> int:
    """As docker's client has it: without inactive pages of files, as cgroup v1 (total_) or v2 counts them."""
    used = int((memory.get("usage") or {}).get("usage", 0))
    raw = memory.get("raw") or {}
    inactive = int(raw.get("total_inactive_file", raw.get("inactive_file", 0)))
    return used - inactive if inactive < used else used


def _limit(memory: dict[str, Any]) -> int:
    """The container's limit, or all the memory there is."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = int((memory.get("usage") or {}).get("limit", 0))
    return min(limit, whole) if limit > 0 else (whole if memory else 0)


def _traffic(container: Container) -> tuple[int, int]:
    """Bytes received and sent by the network that it has for itself, or shares with another container."""
    kinds = {namespace["type"] for namespace in container.config.get("linux", {}).get("namespaces") or ()}
    if "network" not in kinds:
        return 0, 0
    with open(f"/proc/{container.pid}/net/dev", "rb", buffering=0) as file:
        return traffic(file.read(_LIMIT))


def current_usage(container: Container, record: ContainerRecord) -> dict[str, Any]:
    """What a run has taken so far, as its account will have it when it ends."""
    used: dict[str, Any] = {"runs": 1, **counted(container.stats())}
    ticks = os.sysconf("SC_CLK_TCK")
    if record.start_time:
        since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        used["wall_nanos"] = max(0, since_boot - record.start_time * _NANOS // ticks)
    used["received_bytes"], used["sent_bytes"] = _traffic(container)
    return used
