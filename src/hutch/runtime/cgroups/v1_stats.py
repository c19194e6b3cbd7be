"""cgroup v1's accounting, in the shape of runc's ``events --stats``.

Names and units are runc's (``types/events.go``): nanoseconds, bytes, camelCase; a controller the host lacks leaves
its section empty.
"""

from __future__ import annotations

import os

from hutch.runtime.cgroups import convert, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NANOS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")

# runc's name of a blkio statistic → files, of which the first with content is reported: BFQ's, CFQ's, the throttler's
_BLKIO = (
    (
        "ioServiceBytesRecursive",
        (
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ),
    ),
    (
        "ioServicedRecursive",
        (
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ),
    ),
    ("ioQueueRecursive", ("blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive")),
    ("ioServiceTimeRecursive", ("blkio.bfq.io_service_time_recursive", "blkio.io_service_time_recursive")),
    ("ioWaitTimeRecursive", ("blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive")),
    ("ioMergedRecursive", ("blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive")),
    ("ioTimeRecursive", ("blkio.bfq.time_recursive", "blkio.time_recursive")),
    ("sectorsRecursive", ("blkio.bfq.sectors_recursive", "blkio.sectors_recursive")),
)

_CPUSET_NUMBERS = (
    ("cpu_exclusive", "cpuset.cpu_exclusive"),
    ("mem_exclusive", "cpuset.mem_exclusive"),
    ("mem_hardwall", "cpuset.mem_hardwall"),
    ("memory_migrate", "cpuset.memory_migrate"),
    ("memory_pressure", "cpuset.memory_pressure"),
    ("memory_spread_page", "cpuset.memory_spread_page"),
    ("memory_spread_slab", "cpuset.memory_spread_slab"),
    ("sched_load_balance", "cpuset.sched_load_balance"),
    ("sched_relax_domain_level", "cpuset.sched_relax_domain_level"),
)


def collect(paths: dict[str, str]) -> dict[str, Any]:
    """Read every controller's statistics; `paths` is controller → directory."""
    stats: dict[str, Any] = {
        "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
        "cpuset": {},
        "memory": {},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }
    if "cpuacct" in paths:
        stats["cpu"]["usage"] = _cpu_usage(paths["cpuacct"])
    if "cpu" in paths:
        stats["cpu"]["throttling"] = _throttling(paths["cpu"])
    for name, reader in (("cpuset", _cpuset), ("memory", _memory), ("pids", _pids), ("blkio", _blkio)):
        if name in paths:
            stats[name] = reader(paths[name])
    hugetlb = paths.get("hugetlb")
    if hugetlb:
        stats["hugetlb"] = _hugetlb(hugetlb)
    elif "" in paths:
        from hutch.runtime.cgroups import v2_stats

        stats["hugetlb"] = v2_stats.hugetlb(paths[""])
    return stats


def _cpu_usage(directory: str) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total": files.read_int(f"{directory}/cpuacct.usage"),
        "percpu": [int(word) for word in files.read_or(f"{directory}/cpuacct.usage_percpu").split()],
    }
    by_cpu = [line.split() for line in files.read_or(f"{directory}/cpuacct.usage_all").splitlines()[1:]]
    if by_cpu:
        usage["percpu_user"] = [int(words[1]) for words in by_cpu]
        usage["percpu_kernel"] = [int(words[2]) for words in by_cpu]
    ticks = files.read_flat(f"{directory}/cpuacct.stat")
    usage["kernel"] = ticks.get("system", 0) * _NANOS_PER_TICK
    usage["user"] = ticks.get("user", 0) * _NANOS_PER_TICK
    return usage


def _throttling(directory: str) -> dict[str, int]:
    stat = files.read_flat(f"{directory}/cpu.stat")
    return {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_time", 0),
    }


def _cpuset(directory: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "cpus": convert.expand_list(files.read_or(f"{directory}/cpuset.cpus")),
        "mems": convert.expand_list(files.read_or(f"{directory}/cpuset.mems")),
    }
    for name, file in _CPUSET_NUMBERS:
        numbers[name] = files.read_int(f"{directory}/{file}")
    return numbers


def _memory(directory: str) -> dict[str, Any]:
    raw = files.read_flat(f"{directory}/memory.stat")
    memory: dict[str, Any] = {"cache": raw.get("cache", 0)}
    for name, prefix in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp.")):
        memory[name] = _memory_entry(directory, prefix)
    memory["raw"] = raw
    return memory


def _memory_entry(directory: str, prefix: str) -> dict[str, int]:
    if not os.path.exists(f"{directory}/memory.{prefix}usage_in_bytes"):
        return {"limit": 0, "failcnt": 0}
    return {
        "limit": files.read_int(f"{directory}/memory.{prefix}limit_in_bytes"),
        "usage": files.read_int(f"{directory}/memory.{prefix}usage_in_bytes"),
        "max": files.read_int(f"{directory}/memory.{prefix}max_usage_in_bytes"),
        "failcnt": files.read_int(f"{directory}/memory.{prefix}failcnt"),
    }


def _pids(directory: str) -> dict[str, int]:
    limit = files.read_or(f"{directory}/pids.max").strip()
    current = {"current": files.read_int(f"{directory}/pids.current")}
    return current if limit in {"", "max"} else {**current, "limit": int(limit)}


def _blkio(directory: str) -> dict[str, Any]:
    stats = {}
    for name, candidates in _BLKIO:
        for file in candidates:
            entries = _blkio_entries(files.read_or(f"{directory}/{file}"))
            if entries:
                stats[name] = entries
                break
    return stats


def _blkio_entries(text: str) -> list[dict[str, Any]]:
    """Parse ``8:0 Read 4096`` and ``8:0 4096`` lines; the last line, a total over devices, has no device."""
    entries = []
    for line in text.splitlines():
        device, *rest = line.split()
        major, colon, minor = device.partition(":")
        if not colon or not rest:
            continue
        entry: dict[str, Any] = {"major": int(major), "minor": int(minor)}
        if len(rest) == 2:
            entry["op"] = rest[0]
        entry["value"] = int(rest[-1])
        entries.append(entry)
    return entries


def _hugetlb(directory: str) -> dict[str, Any]:
    sizes = {}
    for name in sorted(os.listdir(directory)):
        if name.startswith("hugetlb.") and name.endswith(".usage_in_bytes") and ".rsvd." not in name:
            prefix = name[: -len(".usage_in_bytes")]
            sizes[prefix[len("hugetlb.") :]] = {
                "usage": files.read_int(f"{directory}/{name}"),
                "max": files.read_int(f"{directory}/{prefix}.max_usage_in_bytes"),
                "failcnt": files.read_int(f"{directory}/{prefix}.failcnt"),
            }
    return sizes
