"""cgroup v2's files as a table: which field of LinuxResources goes to which file, in which format."""

from __future__ import annotations

from hutch.errors import NotSupported
from hutch.runtime.cgroups import convert
from hutch.runtime.cgroups.files import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.spec.runtime import LinuxResources

# controller, section and field of LinuxResources, file, format
KNOBS: tuple[tuple[str, str, str, str, Callable[[Any], tuple[str, ...]]], ...] = (
    ("cpu", "cpu", "shares", "cpu.weight", lambda shares: convert.number(convert.cpu_weight(shares))),
    ("cpu", "cpu", "burst", "cpu.max.burst", convert.plain),
    ("cpu", "cpu", "idle", "cpu.idle", convert.plain),
    ("cpuset", "cpu", "cpus", "cpuset.cpus", convert.cpu_list),
    ("cpuset", "cpu", "mems", "cpuset.mems", convert.cpu_list),
    ("memory", "memory", "limit", "memory.max", convert.number_or_max),
    ("memory", "memory", "reservation", "memory.low", convert.number_or_max),
    ("pids", "pids", "limit", "pids.max", convert.number_or_max),
    ("io", "blockIO", "throttleReadBpsDevice", "io.max", lambda devices: convert.io_max("rbps", devices)),
    ("io", "blockIO", "throttleWriteBpsDevice", "io.max", lambda devices: convert.io_max("wbps", devices)),
    ("io", "blockIO", "throttleReadIOPSDevice", "io.max", lambda devices: convert.io_max("riops", devices)),
    ("io", "blockIO", "throttleWriteIOPSDevice", "io.max", lambda devices: convert.io_max("wiops", devices)),
    ("rdma", "", "rdma", "rdma.max", convert.rdma_limits),
)

# What cgroup v2 has no file for: an error when set to anything but the value that changes nothing.
MISSING: tuple[tuple[str, str, tuple[Any, ...], str], ...] = (
    ("cpu", "realtimePeriod", (0,), "cpu.rt_period_us"),
    ("cpu", "realtimeRuntime", (0,), "cpu.rt_runtime_us"),
    ("memory", "kernel", (0, -1), "memory.kmem.limit_in_bytes"),
    ("memory", "kernelTCP", (0, -1), "memory.kmem.tcp.limit_in_bytes"),
    ("memory", "swappiness", (-1, convert.U64_MAX), "memory.swappiness"),
    ("memory", "disableOOMKiller", (False,), "memory.oom_control"),
    ("memory", "useHierarchy", (True,), "memory.use_hierarchy"),
    ("blockIO", "leafWeight", (0,), "blkio.leaf_weight"),
    ("network", "classID", (0,), "net_cls.classid"),
    ("network", "priorities", ([],), "net_prio.ifpriomap"),
)

# Set to their default on a kernel without them, these change nothing.
_DEFAULTS = {("cpu", "idle"): 0, ("cpu", "burst"): 0}


def writes(resources: LinuxResources, has: Callable[[str], bool], current: Callable[[str], str]) -> list[Write]:
    """Return what to write for `resources`, devices excepted; `unified` comes last and so wins.

    Args:
        resources: the specification's values; unset ones make no write.
        has: whether the cgroup has a file of that name.
        current: what a file holds, "" if absent.

    Raises:
        NotSupported: a value for which cgroup v2 has no file.
        InvalidArgument: a value outside what the specification or the kernel's format allows.
    """
    sections: dict[str, Any] = dict(resources)
    for section, field, neutral, name in MISSING:
        value = (sections.get(section) or {}).get(field)
        if value is not None and value not in neutral:
            raise NotSupported(f"cgroup: cannot set {section} {field}: cgroup v2 has no {name}")
    made: list[Write] = []
    for controller, section, field, name, form in KNOBS:
        values = sections.get(section) or {} if section else sections
        value = values.get(field)
        if value is None or (_DEFAULTS.get((section, field)) == value and not has(name)):
            continue
        made += [Write(controller, (name,), text) for text in form(value)]
    cpu = sections.get("cpu") or {}
    quota = convert.cpu_max(cpu.get("quota"), cpu.get("period"), current("cpu.max"))
    if quota is not None:
        made.append(Write("cpu", ("cpu.max",), quota))
    made += _swap(sections.get("memory") or {}, has)
    made += _weights(sections.get("blockIO") or {}, has)
    for each in sections.get("hugepageLimits") or ():
        name = f"hugetlb.{convert.page_size(each['pageSize'])}.max"
        made.append(Write("hugetlb", (name,), str(each["limit"])))
    for name, text in (sections.get("unified") or {}).items():
        made.append(Write(convert.unified_name(name), (name,), text))
    return made


def _swap(memory: dict[str, Any], has: Callable[[str], bool]) -> list[Write]:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    text = convert.v2_swap(limit, swap)
    if text is None or (text == "max" and not has("memory.swap.max")):
        return []
    return [Write("memory", ("memory.swap.max",), text)]


def _weights(block_io: dict[str, Any], has: Callable[[str], bool]) -> list[Write]:
    """BFQ's own weight where that scheduler is loaded, io.weight (another scale) elsewhere."""
    weight, devices = block_io.get("weight") or 0, block_io.get("weightDevice") or ()
    bfq = has("io.bfq.weight")
    name = "io.bfq.weight" if bfq else "io.weight"
    texts = (convert.blkio_weight if bfq else convert.io_weight_text)(weight)
    texts += (convert.device_weights if bfq else convert.device_io_weights)(devices)
    if convert.device_leaf_weights(devices):
        raise NotSupported("cgroup: cannot set blockIO leafWeight: cgroup v2 has no blkio.leaf_weight_device")
    return [Write("io", (name,), text) for text in texts]
