"""The bill: what a container's run has taken, from its cgroup's and its network's counters before they go."""

from __future__ import annotations

import os

from hutch.engine.monitor.loop import clock
from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import Any

    from hutch.runtime.container import Container

_LIMIT = 1 << 20
_BLOCK = 512
_KIB = 1024
_NANOS = 1_000_000_000


class Meter:
    """What one run takes; close it when the run is over.

    Args:
        container: which has just been created.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._began = clock()
        self._net_fd = -1
        kinds = [namespace["type"] for namespace in container.config.get("linux", {}).get("namespaces") or ()]
        if "network" in kinds:  # else the counters are the whole host's
            try:
                # The open file holds the namespace, so that it can be read when nothing runs in there any more.
                self._net_fd = os.open(f"/proc/{container.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass  # it has ended already, or may not be looked at: then nobody has counted

    def read(self) -> dict[str, Any]:
        """What it has taken so far.

        Returns:
            runs, wall_nanos and, as far as the host counts them, cpu_nanos, cpu_user_nanos, cpu_system_nanos,
            memory_peak_bytes, read_bytes, written_bytes, received_bytes, sent_bytes.
        """
        used: dict[str, Any] = {"runs": 1, "wall_nanos": int((clock() - self._began) * _NANOS)}
        try:
            used.update(counted(self._container.stats()))
        except (OSError, HutchError):
            pass  # it has no cgroup of its own
        if self._net_fd >= 0:
            os.lseek(self._net_fd, 0, os.SEEK_SET)
            received, sent = traffic(os.read(self._net_fd, _LIMIT))
            used["received_bytes"], used["sent_bytes"] = received, sent
        return used

    def close(self) -> None:
        """Let the network namespace go."""
        fd, self._net_fd = self._net_fd, -1
        if fd >= 0:
            os.close(fd)


def counted(stats: dict[str, Any]) -> dict[str, Any]:
    """The counters of a cgroup, as runc has them, as a usage."""
    used: dict[str, Any] = {}
    cpu = (stats.get("cpu") or {}).get("usage") or {}
    for name, key in (("cpu_nanos", "total"), ("cpu_user_nanos", "user"), ("cpu_system_nanos", "kernel")):
        if key in cpu:
            used[name] = int(cpu[key])
    memory = (stats.get("memory") or {}).get("usage") or {}
    if memory.get("max"):
        used["memory_peak_bytes"] = int(memory["max"])
    if "blkio" in stats:
        used["read_bytes"], used["written_bytes"] = block_traffic(stats)
    return used


def block_traffic(stats: dict[str, Any]) -> tuple[int, int]:
    """Bytes read from and written to block devices."""
    found = {"read": 0, "write": 0}
    for entry in (stats.get("blkio") or {}).get("ioServiceBytesRecursive") or []:
        kind = str(entry.get("op", "")).lower()
        if kind in found:
            found[kind] += int(entry.get("value", 0))
    return found["read"], found["write"]


def traffic(text: bytes) -> tuple[int, int]:
    """Bytes received and sent, of a /proc/net/dev; what stays on the loopback device does not count."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(b":")
        fields = numbers.split()
        if name.strip() != b"lo" and len(fields) >= 9:
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def of_process(found: struct_rusage, began: float, own: int) -> dict[str, Any]:
    """The usage of a process, and of those that it waited for, as wait4(2) counts it.

    Args:
        found: what wait4 gave.
        began: when it was started, by `clock`.
        own: peak memory, in KiB, of the process that forked it, which it inherits and keeps through execve(2).
    """
    user, system = int(found.ru_utime * _NANOS), int(found.ru_stime * _NANOS)
    used = {
        "runs": 1,
        "wall_nanos": int((clock() - began) * _NANOS),
        "cpu_nanos": user + system,
        "cpu_user_nanos": user,
        "cpu_system_nanos": system,
        "read_bytes": found.ru_inblock * _BLOCK,
        "written_bytes": found.ru_oublock * _BLOCK,
    }
    if found.ru_maxrss > own:  # else it is not known
        used["memory_peak_bytes"] = found.ru_maxrss * _KIB
    return used
