"""The bill: what a container's runs have taken, from its cgroup's counters before they go."""

from __future__ import annotations

from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.runtime.container import Container


def final_usage(container: Container, record: ContainerRecord) -> dict[str, Any]:
    """What the record holds of earlier runs, and this one.

    Returns:
        cpu_user_nanos, cpu_system_nanos, cpu_nanos, memory_peak_bytes, read_bytes, written_bytes, runs.
    """
    used = dict(record.usage)
    used["runs"] = used.get("runs", 0) + 1
    try:
        stats = container.stats()
    except (OSError, HutchError):  # no cgroup of its own
        return used
    cpu = (stats.get("cpu") or {}).get("usage") or {}
    for name, key in (("cpu_nanos", "total"), ("cpu_user_nanos", "user"), ("cpu_system_nanos", "kernel")):
        used[name] = used.get(name, 0) + int(cpu.get(key, 0))
    memory = (stats.get("memory") or {}).get("usage") or {}
    used["memory_peak_bytes"] = max(used.get("memory_peak_bytes", 0), int(memory.get("max", 0)))
    for entry in (stats.get("blkio") or {}).get("ioServiceBytesRecursive") or []:
        counted = {"read": "read_bytes", "write": "written_bytes"}.get(str(entry.get("op", "")).lower())
        if counted:
            used[counted] = used.get(counted, 0) + int(entry.get("value", 0))
    return used
