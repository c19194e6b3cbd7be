"""From what the OCI specification says to what cgroup files take: pure functions, no files.

A *format* takes one value of `LinuxResources` and returns the texts to write, in order. No text at all means the
value is the specification's "unset", which is skipped as runc skips it.
"""

from __future__ import annotations

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.spec.runtime import (
        LinuxInterfacePriority,
        LinuxRdma,
        LinuxThrottleDevice,
        LinuxWeightDevice,
    )

U64_MAX = 2**64 - 1

# cpuset lists: the longest the kernel itself takes is 100 + 6 * NR_CPUS bytes (cpuset_write_resmask), and NR_CPUS
# is 8192 at most. A bound on text and numbers is all we need: the kernel knows which processors there are.
_MAX_LIST_TEXT = 100 + 6 * 8192
_MAX_LIST_NUMBER = 65535


def number(value: int) -> tuple[str, ...]:
    """Format a limit where 0 is unset and -1 (or any negative number) is the kernel's -1."""
    return (str(value),) if value else ()


def plain(value: int) -> tuple[str, ...]:
    """Format a number of which 0 is a value like any other."""
    return (str(value),)


def number_or_max(value: int) -> tuple[str, ...]:
    """Format a limit where 0 is unset and a negative number is ``max``."""
    if not value:
        return ()
    return (str(value) if value > 0 else "max",)


def flag(value: bool) -> tuple[str, ...]:
    """Format a switch of which False is unset."""
    return ("1",) if value else ()


def swappiness(value: int) -> tuple[str, ...]:
    """Format memory.swappiness; Docker's "unset" is the largest unsigned number.

    Raises:
        InvalidArgument: not in 0 to 100.
    """
    if value in {-1, U64_MAX}:
        return ()
    if not 0 <= value <= 100:
        raise InvalidArgument(f"memory swappiness {value}: must be between 0 and 100")
    return (str(value),)


def cpu_list(text: str) -> tuple[str, ...]:
    """Check a list of processors or memory nodes such as ``0-3,8`` and return it for the kernel.

    The list is never expanded: ``1-4294967295`` costs what ``1`` costs (CVE-2018-20699).

    Raises:
        InvalidArgument: the text is too long, is not such a list, or names a number no kernel has.
    """
    if not text:
        return ()
    if len(text) > _MAX_LIST_TEXT:
        raise InvalidArgument(f"cpuset list of {len(text)} characters: at most {_MAX_LIST_TEXT} are allowed")
    for item in text.split(","):
        first, dash, last = item.strip(" \n").partition("-")
        bounds = (first, last) if dash else (first,)
        for bound in bounds:
            if not (bound.isascii() and bound.isdigit()):
                raise InvalidArgument(f"cpuset list: {item[:40]!r} is not a number or a range of numbers")
            if len(bound) > 9 or int(bound) > _MAX_LIST_NUMBER:
                raise InvalidArgument(f"cpuset list: {bound[:40]} is larger than {_MAX_LIST_NUMBER}")
        if dash and int(first) > int(last):
            raise InvalidArgument(f"cpuset list: {item[:40]!r} counts down")
    return (text,)


def expand_list(text: str) -> list[int]:
    """Expand a list *of the kernel* (trusted, such as cpuset.cpus.effective) to its numbers."""
    numbers: list[int] = []
    for item in text.strip().split(","):
        if item:
            first, _, last = item.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


# --- cpu --------------------------------------------------------------------------------------------------------


def cpu_weight(shares: int) -> int:
    """Convert cpu.shares (2 to 262144, default 1024) to cpu.weight (1 to 10000, default 100).

    The curve goes through both ends and, unlike the straight line used before 2025, through both defaults;
    runc 1.4 and crun 1.23 use the same. 0 (unset) stays 0.
    """
    if shares <= 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2  # cgroup v2 only: not worth its place at start-up

    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612.0 - 7.0 / 34.0))


def cpu_max(quota: int | None, period: int | None, current: str) -> str | None:
    """Return what to write to cpu.max, or None when neither quota nor period is set.

    Args:
        quota: microseconds; 0 or None is unset, negative is no limit.
        period: microseconds; 0 or None is unset.
        current: what the file holds, for whichever of the two is unset.
    """
    if not quota and not period:
        return None
    had_quota, _, had_period = (current.strip() or "max 100000").partition(" ")
    new_quota = had_quota if not quota else str(quota) if quota > 0 else "max"
    return f"{new_quota} {period or had_period or 100000}"


# --- memory -----------------------------------------------------------------------------------------------------


def v1_memsw(limit: int, swap: int) -> int:
    """Return memory+swap for cgroup v1; no memory limit (-1) and no word on swap means no limit on either."""
    return -1 if limit == -1 and not swap else swap


def v2_swap(limit: int, swap: int) -> str | None:
    """Return memory.swap.max: the specification's `swap` counts memory and swap, cgroup v2's swap alone.

    Returns:
        The text to write, or None when swap is unset.

    Raises:
        InvalidArgument: a swap limit without a memory limit, or below it.
    """
    if limit == -1 and not swap:
        return "max"
    if not swap:
        return None
    if swap < 0:
        return "max"
    if limit <= 0:
        raise InvalidArgument(
            "memory swap: a limit on memory and swap needs a limit on memory",
            hint="on cgroup v2 swap is limited alone; set the memory limit too",
        )
    if swap < limit:
        raise InvalidArgument(f"memory swap {swap}: must not be smaller than the memory limit {limit}")
    return str(swap - limit)


# --- block I/O --------------------------------------------------------------------------------------------------


def io_weight(weight: int) -> int:
    """Convert blkio.weight (10 to 1000) to io.weight (1 to 10000), in a straight line; 0 (unset) stays 0."""
    return 1 + (weight - 10) * 9999 // 990 if weight else 0


def blkio_weight(weight: int) -> tuple[str, ...]:
    """Format a weight of blkio or of BFQ.

    Raises:
        InvalidArgument: not in 10 to 1000.
    """
    _check_weight(weight)
    return (str(weight),) if weight else ()


def io_weight_text(weight: int) -> tuple[str, ...]:
    """Format a blkio weight for io.weight."""
    _check_weight(weight)
    return (f"default {io_weight(weight)}",) if weight else ()


def _check_weight(weight: int) -> None:
    if weight and not 10 <= weight <= 1000:
        raise InvalidArgument(f"block I/O weight {weight}: must be between 10 and 1000")


def device_weights(devices: Sequence[LinuxWeightDevice]) -> tuple[str, ...]:
    """Format the weights of single block devices, for blkio.weight_device and io.bfq.weight."""
    for device in devices:
        _check_weight(device.get("weight", 0))
    return tuple(f"{d['major']}:{d['minor']} {d['weight']}" for d in devices if d.get("weight"))


def device_io_weights(devices: Sequence[LinuxWeightDevice]) -> tuple[str, ...]:
    """Format the weights of single block devices for io.weight."""
    for device in devices:
        _check_weight(device.get("weight", 0))
    return tuple(f"{d['major']}:{d['minor']} {io_weight(d['weight'])}" for d in devices if d.get("weight"))


def device_leaf_weights(devices: Sequence[LinuxWeightDevice]) -> tuple[str, ...]:
    """Format the leaf weights of single block devices, for blkio.leaf_weight_device."""
    return tuple(f"{d['major']}:{d['minor']} {d['leafWeight']}" for d in devices if d.get("leafWeight"))


def throttles(devices: Sequence[LinuxThrottleDevice]) -> tuple[str, ...]:
    """Format rates for blkio.throttle.*, where 0 lifts the limit."""
    return tuple(f"{d['major']}:{d['minor']} {d.get('rate', 0)}" for d in devices)


def io_max(key: str, devices: Sequence[LinuxThrottleDevice]) -> tuple[str, ...]:
    """Format rates for io.max; `key` is one of rbps, wbps, riops, wiops."""
    return tuple(f"{d['major']}:{d['minor']} {key}={d.get('rate') or 'max'}" for d in devices)


# --- the rest ---------------------------------------------------------------------------------------------------


def page_size(text: str) -> str:
    """Check a huge page size such as ``2MB``, which becomes part of a file name.

    Raises:
        InvalidArgument: anything else.
    """
    digits, unit = text[:-2], text[-2:]
    if unit not in {"KB", "MB", "GB"} or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        raise InvalidArgument(f"huge page size {text[:40]!r}: not of the form 2MB")
    return text


def interface_priorities(priorities: Sequence[LinuxInterfacePriority]) -> tuple[str, ...]:
    """Format net_prio.ifpriomap.

    Raises:
        InvalidArgument: an interface name no interface can have.
    """
    for each in priorities:
        name = each["name"]
        if not name or len(name) > 15 or any(c.isspace() or c in "/\0" for c in name):
            raise InvalidArgument(f"network priority: {name[:40]!r} is not an interface name")
    return tuple(f"{each['name']} {each['priority']}" for each in priorities)


def rdma_limits(devices: dict[str, LinuxRdma]) -> tuple[str, ...]:
    """Format rdma.max.

    Raises:
        InvalidArgument: a device name with white space.
    """
    texts = []
    for name, limits in devices.items():
        if not name or any(c.isspace() or c == "\0" for c in name):
            raise InvalidArgument(f"rdma: {name[:40]!r} is not a device name")
        pairs = [f"hca_handle={limits['hcaHandles']}"] if "hcaHandles" in limits else []
        pairs += [f"hca_object={limits['hcaObjects']}"] if "hcaObjects" in limits else []
        if pairs:
            texts.append(f"{name} {' '.join(pairs)}")
    return tuple(texts)


def unified_name(name: str) -> str:
    """Check the name of a file in `unified` and return its controller.

    Raises:
        InvalidArgument: not the name of one file, or one that moves processes or delegates controllers.
    """
    controller, dot, _ = name.partition(".")
    if not dot or "/" in name or "\0" in name or len(name) > 255:
        raise InvalidArgument(f"unified resource {name[:80]!r}: must be the name of a file of cgroup v2")
    if controller == "cgroup" and not name.startswith("cgroup.max."):
        raise InvalidArgument(f"unified resource {name[:80]!r}: is not a limit")
    return controller
