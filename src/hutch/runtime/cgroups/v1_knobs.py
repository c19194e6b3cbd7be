"""cgroup v1's files as a table: which field of LinuxResources goes to which file, in which format."""

from __future__ import annotations

from hutch.errors import NotSupported
from hutch.runtime.cgroups import convert
from hutch.runtime.cgroups.files import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.spec.runtime import LinuxResources

# controller, section and field of LinuxResources, files (the first that exists), format
KNOBS: tuple[tuple[str, str, str, tuple[str, ...], Callable[[Any], tuple[str, ...]]], ...] = (
    ("cpu", "cpu", "shares", ("cpu.shares",), convert.number),
    ("cpu", "cpu", "period", ("cpu.cfs_period_us",), convert.number),
    ("cpu", "cpu", "quota", ("cpu.cfs_quota_us",), convert.number),
    ("cpu", "cpu", "burst", ("cpu.cfs_burst_us",), convert.plain),
    ("cpu", "cpu", "realtimePeriod", ("cpu.rt_period_us",), convert.number),
    ("cpu", "cpu", "realtimeRuntime", ("cpu.rt_runtime_us",), convert.number),
    ("cpu", "cpu", "idle", ("cpu.idle",), convert.plain),
    ("cpuset", "cpu", "cpus", ("cpuset.cpus",), convert.cpu_list),
    ("cpuset", "cpu", "mems", ("cpuset.mems",), convert.cpu_list),
    ("memory", "memory", "limit", ("memory.limit_in_bytes",), convert.number),
    ("memory", "memory", "reservation", ("memory.soft_limit_in_bytes",), convert.number),
    ("memory", "memory", "kernel", ("memory.kmem.limit_in_bytes",), convert.number),
    ("memory", "memory", "kernelTCP", ("memory.kmem.tcp.limit_in_bytes",), convert.number),
    ("memory", "memory", "swappiness", ("memory.swappiness",), convert.swappiness),
    ("memory", "memory", "disableOOMKiller", ("memory.oom_control",), convert.flag),
    ("memory", "memory", "useHierarchy", ("memory.use_hierarchy",), convert.flag),
    ("pids", "pids", "limit", ("pids.max",), convert.number_or_max),
    ("blkio", "blockIO", "weight", ("blkio.weight", "blkio.bfq.weight"), convert.blkio_weight),
    ("blkio", "blockIO", "leafWeight", ("blkio.leaf_weight",), convert.blkio_weight),
    (
        "blkio",
        "blockIO",
        "weightDevice",
        ("blkio.weight_device", "blkio.bfq.weight_device"),
        convert.device_weights,
    ),
    ("blkio", "blockIO", "weightDevice", ("blkio.leaf_weight_device",), convert.device_leaf_weights),
    ("blkio", "blockIO", "throttleReadBpsDevice", ("blkio.throttle.read_bps_device",), convert.throttles),
    ("blkio", "blockIO", "throttleWriteBpsDevice", ("blkio.throttle.write_bps_device",), convert.throttles),
    ("blkio", "blockIO", "throttleReadIOPSDevice", ("blkio.throttle.read_iops_device",), convert.throttles),
    ("blkio", "blockIO", "throttleWriteIOPSDevice", ("blkio.throttle.write_iops_device",), convert.throttles),
    ("net_cls", "network", "classID", ("net_cls.classid",), convert.number),
    ("net_prio", "network", "priorities", ("net_prio.ifpriomap",), convert.interface_priorities),
)

# Set to their default on a kernel without them, these change nothing.
_DEFAULTS = {("cpu", "idle"): 0, ("cpu", "burst"): 0}


def writes(resources: LinuxResources, has: Callable[[str], bool], unified: set[str]) -> list[Write]:
    """Return what to write for `resources`, devices excepted.

    Args:
        resources: the specification's values; unset ones make no write.
        has: whether the cgroup has a file of that name.
        unified: controllers bound to the unified hierarchy, on a hybrid host.

    Raises:
        InvalidArgument: a value outside what the specification or the kernel's format allows.
    """
    made = []
    sections: dict[str, Any] = dict(resources)
    for controller, section, field, names, form in KNOBS:
        values = sections.get(section) or {}
        value = values.get(field)
        if value is None or (_DEFAULTS.get((section, field)) == value and not has(names[0])):
            continue
        made += [Write(controller, names, text) for text in form(value)]
    made += _memsw(sections, has)
    made += _hugetlb(sections, unified)
    rdma = sections.get("rdma") or {}
    made += [Write("rdma", ("rdma.max",), text) for text in convert.rdma_limits(rdma)]
    return made + _unified(sections, unified)


def _memsw(sections: dict[str, Any], has: Callable[[str], bool]) -> list[Write]:
    memory = sections.get("memory") or {}
    asked = memory.get("swap") or 0
    swap = convert.v1_memsw(memory.get("limit") or 0, asked)
    if not swap or (not asked and not has("memory.memsw.limit_in_bytes")):
        return []
    return [Write("memory", ("memory.memsw.limit_in_bytes",), str(swap))]


def _hugetlb(sections: dict[str, Any], unified: set[str]) -> list[Write]:
    made = []
    for each in sections.get("hugepageLimits") or ():
        size = convert.page_size(each["pageSize"])
        name = f"hugetlb.{size}.max" if "hugetlb" in unified else f"hugetlb.{size}.limit_in_bytes"
        made.append(Write("hugetlb", (name,), str(each["limit"])))
    return made


def _unified(sections: dict[str, Any], unified: set[str]) -> list[Write]:
    """Write `unified` where a hybrid host has it; on plain v1 there is nothing it could mean."""
    made = []
    for name, text in (sections.get("unified") or {}).items():
        controller = convert.unified_name(name)
        if controller not in unified:
            raise NotSupported(f"cgroup: cannot set {name}: {controller} is not a controller of cgroup v2 on this host")
        made.append(Write(controller, (name,), text))
    return made
