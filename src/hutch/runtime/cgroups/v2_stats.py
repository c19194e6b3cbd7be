"""cgroup v2's accounting, in the shape of runc's ``events --stats``; see `v1_stats` for the shape."""

from __future__ import annotations

import os

from hutch.runtime.cgroups import convert, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNLIMITED = 2**64 - 1

# key of io.stat → runc's list and operation
_IO = (
    ("rbytes", "ioServiceBytesRecursive", "Read"),
    ("wbytes", "ioServiceBytesRecursive", "Write"),
    ("dbytes", "ioServiceBytesRecursive", "Discard"),
    ("rios", "ioServicedRecursive", "Read"),
    ("wios", "ioServicedRecursive", "Write"),
    ("dios", "ioServicedRecursive", "Discard"),
)


def collect(directory: str) -> dict[str, Any]:
    """Read every controller's statistics of one cgroup."""
    return {
        "cpu": _cpu(directory),
        "cpuset": _cpuset(directory),
        "memory": _memory(directory),
        "pids": _pids(directory),
        "blkio": _io(directory),
        "hugetlb": hugetlb(directory),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(directory: str) -> dict[str, Any]:
    stat = files.read_flat(f"{directory}/cpu.stat")
    cpu: dict[str, Any] = {
        "usage": {
            "total": stat.get("usage_usec", 0) * 1000,
            "kernel": stat.get("system_usec", 0) * 1000,
            "user": stat.get("user_usec", 0) * 1000,
        },
        "throttling": {
            "periods": stat.get("nr_periods", 0),
            "throttledPeriods": stat.get("nr_throttled", 0),
            "throttledTime": stat.get("throttled_usec", 0) * 1000,
        },
    }
    return _with_psi(cpu, f"{directory}/cpu.pressure")


def _with_psi(section: dict[str, Any], path: str) -> dict[str, Any]:
    """Add ``psi`` where the kernel accounts pressure (it may be compiled in and switched off)."""
    psi: dict[str, Any] = {}
    for line in files.read_or(path).splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        psi[kind] = {key: int(value) if key == "total" else float(value) for key, value in values.items()}
    if psi:
        section["psi"] = psi
    return section


def _cpuset(directory: str) -> dict[str, Any]:
    cpus = files.read_or(f"{directory}/cpuset.cpus.effective")
    mems = files.read_or(f"{directory}/cpuset.mems.effective")
    return {"cpus": convert.expand_list(cpus), "mems": convert.expand_list(mems)} if cpus else {}


def _memory(directory: str) -> dict[str, Any]:
    if not os.path.exists(f"{directory}/memory.current"):
        return {}
    raw = files.read_flat(f"{directory}/memory.stat")
    events = files.read_flat(f"{directory}/memory.events")
    usage = {
        "limit": files.read_int(f"{directory}/memory.max", _UNLIMITED),
        "usage": files.read_int(f"{directory}/memory.current"),
        "max": files.read_int(f"{directory}/memory.peak"),
        "failcnt": events.get("max", 0),
    }
    swap_limit = files.read_int(f"{directory}/memory.swap.max", _UNLIMITED)
    # v1's "swap" counts memory too, and readers of this shape expect that.
    swap = {
        "limit": _UNLIMITED if _UNLIMITED in {swap_limit, usage["limit"]} else swap_limit + usage["limit"],
        "usage": files.read_int(f"{directory}/memory.swap.current") + usage["usage"],
        "failcnt": 0,
    }
    memory: dict[str, Any] = {
        "cache": raw.get("file", 0),
        "usage": usage,
        "swap": swap,
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
    }
    return _with_psi(memory, f"{directory}/memory.pressure")


def _pids(directory: str) -> dict[str, int]:
    current = files.read_int(f"{directory}/pids.current", -1)
    if current < 0:
        return {}
    limit = files.read_int(f"{directory}/pids.max", _UNLIMITED)
    return {"current": current} if limit == _UNLIMITED else {"current": current, "limit": limit}


def _io(directory: str) -> dict[str, Any]:
    stats: dict[str, Any] = {}
    for line in files.read_or(f"{directory}/io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for key, name, operation in _IO:
            if key in values:
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[key])}
                stats.setdefault(name, []).append(entry)
    return _with_psi(stats, f"{directory}/io.pressure")


def hugetlb(directory: str) -> dict[str, Any]:
    """Return usage by page size, also for the unified half of a hybrid host."""
    sizes = {}
    for name in sorted(os.listdir(directory)):
        if name.startswith("hugetlb.") and name.endswith(".current") and ".rsvd." not in name:
            prefix = name[: -len(".current")]
            sizes[prefix[len("hugetlb.") :]] = {
                "usage": files.read_int(f"{directory}/{name}"),
                "failcnt": files.read_flat(f"{directory}/{prefix}.events").get("max", 0),
            }
    return sizes
