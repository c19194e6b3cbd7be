"""Resource limits: what the user asked for and the defaults → `linux.resources` and `process.rlimits`, pure.

Sizes are bytes. A limit asked for that the host cannot set is an error; a default that it cannot set is left out.
"""

from __future__ import annotations

import os
import stat

from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.host import HostFacts
    from hutch.engine.options import RunOptions, ThrottleRequest, Ulimit
    from hutch.spec.runtime import (
        LinuxBlockIO,
        LinuxCPU,
        LinuxDevice,
        LinuxDeviceCgroup,
        LinuxMemory,
        LinuxResources,
        LinuxThrottleDevice,
        POSIXRlimit,
    )

DEFAULT_PIDS = 4096
_PERIOD_US = 100_000
_INFINITY = (1 << 64) - 1
DEFAULT_RLIMITS = (("core", 0, 0), ("nice", 0, 0), ("nofile", 1024, 524_288), ("rtprio", 0, 0))
_DEVICE_RULES = (("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1), ("c", 5, 2))
_PTS_MAJOR = 136
_LIMIT_FIELDS = (
    "memory memory_swap memory_reservation nano_cpus cpu_shares cpu_quota cpu_period cpuset_cpus cpuset_mems "
    "pids_limit blkio_weight blkio_weight_device device_read_bps device_write_bps device_read_iops device_write_iops "
    "oom_kill_disable device_cgroup_rules".split()
)


def resources(options: RunOptions, facts: HostFacts, devices: list[LinuxDevice]) -> LinuxResources:
    """The container's cgroup settings.

    Args:
        options: already checked against each other.
        facts: the host.
        devices: nodes that --device gives, whose use is then allowed.

    Raises:
        NotSupported: a limit that this host or caller cannot set.
        InvalidArgument: one outside the machine's range.
    """
    if not facts.delegated:
        asked = next((field for field in _LIMIT_FIELDS if getattr(options, field)), "")
        if asked:
            flag = "cpus" if asked == "nano_cpus" else asked.replace("_", "-")
            raise NotSupported(
                f"--{flag}: this user has no cgroup to set limits in: {facts.undelegated}",
                hint="log in through systemd, have it keep a manager (loginctl enable-linger), or run as root",
            )
        return {}
    found: LinuxResources = {}
    if memory := _memory(options, facts):
        found["memory"] = memory
    if cpu := _cpu(options, facts):
        found["cpu"] = cpu
    limit = DEFAULT_PIDS if options.pids_limit is None else options.pids_limit
    if options.pids_limit is not None or options.security.profile != "compat":
        found["pids"] = {"limit": limit if limit > 0 else -1}
    if block := _block_io(options):
        found["blockIO"] = block
    if not facts.rootless:
        found["devices"] = _device_rules(options, devices)
    if facts.cgroup2 and options.memory and options.security.profile != "compat":
        found["unified"] = {"memory.oom.group": "1"}
    return found


def _memory(options: RunOptions, facts: HostFacts) -> LinuxMemory:
    memory: LinuxMemory = {}
    if options.memory:
        memory["limit"] = options.memory
        if options.memory_swap and not facts.swap_accounting:
            raise NotSupported("--memory-swap: this kernel does not account for swap", hint="boot with swapaccount=1")
        if facts.swap_accounting:
            memory["swap"] = options.memory_swap or 2 * options.memory
    elif options.memory_swap == -1 and facts.swap_accounting:
        memory["swap"] = -1
    if options.memory_reservation:
        memory["reservation"] = options.memory_reservation
    if options.memory_swappiness >= 0:
        if facts.cgroup2:
            raise NotSupported("--memory-swappiness: cgroup v2 has no such setting")
        memory["swappiness"] = options.memory_swappiness
    if options.oom_kill_disable:
        if facts.cgroup2:
            raise NotSupported("--oom-kill-disable: cgroup v2 has no such setting")
        memory["disableOOMKiller"] = True
    return memory


def _cpu(options: RunOptions, facts: HostFacts) -> LinuxCPU:
    cpu: LinuxCPU = {}
    if options.nano_cpus:
        if options.nano_cpus > facts.processors * 10**9 or options.nano_cpus < 10**7:
            most = facts.processors
            raise InvalidArgument(f"range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available")
        cpu["period"], cpu["quota"] = _PERIOD_US, options.nano_cpus * _PERIOD_US // 10**9
    if options.cpu_period:
        cpu["period"] = options.cpu_period
    if options.cpu_quota:
        cpu["quota"] = options.cpu_quota
    if options.cpu_shares:
        cpu["shares"] = options.cpu_shares
    if options.cpuset_cpus:
        cpu["cpus"] = options.cpuset_cpus
    if options.cpuset_mems:
        cpu["mems"] = options.cpuset_mems
    return cpu


def _block_io(options: RunOptions) -> LinuxBlockIO:
    block: Any = {}
    if options.blkio_weight:
        block["weight"] = options.blkio_weight
    if options.blkio_weight_device:
        block["weightDevice"] = [
            {"major": major, "minor": minor, "weight": request.rate}
            for request in options.blkio_weight_device
            for major, minor in [block_device(request.path)]
        ]
    for key, requests in (
        ("throttleReadBpsDevice", options.device_read_bps),
        ("throttleWriteBpsDevice", options.device_write_bps),
        ("throttleReadIOPSDevice", options.device_read_iops),
        ("throttleWriteIOPSDevice", options.device_write_iops),
    ):
        if requests:
            block[key] = [_throttle(request) for request in requests]
    found: LinuxBlockIO = block
    return found


def _throttle(request: ThrottleRequest) -> LinuxThrottleDevice:
    major, minor = block_device(request.path)
    return {"major": major, "minor": minor, "rate": request.rate}


def block_device(path: str) -> tuple[int, int]:
    """The numbers of a block device of the host.

    Raises:
        InvalidArgument: there is none at `path`.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path}: not a block device")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def _device_rules(options: RunOptions, devices: list[LinuxDevice]) -> list[LinuxDeviceCgroup]:
    if options.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[LinuxDeviceCgroup] = [{"allow": False, "access": "rwm"}]
    if options.security.profile == "compat":
        rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    rules += [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"}
        for kind, major, minor in _DEVICE_RULES
    ]
    rules.append({"allow": True, "type": "c", "major": _PTS_MAJOR, "access": "rwm"})
    access = {request.target: request.access for request in options.devices}
    for device in devices:
        under = next((wanted for target, wanted in access.items() if is_below(device["path"], target)), "rwm")
        rules.append(
            {
                "allow": True,
                "type": "b" if device["type"] == "b" else "c",
                "major": device["major"],
                "minor": device["minor"],
                "access": under,
            }
        )
    rules += [_rule(text) for text in options.device_cgroup_rules]
    return rules


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it, by components: /scratch2 is not below /scratch."""
    parts, above = path.strip("/").split("/"), folder.strip("/").split("/")
    return above == [""] or parts[: len(above)] == above


def _rule(text: str) -> LinuxDeviceCgroup:
    kind, numbers, access = text.split(" ")
    rule: LinuxDeviceCgroup = {"allow": True, "type": kind, "access": access}
    major, _, minor = numbers.partition(":")
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def rlimits(options: RunOptions, facts: HostFacts, warnings: list[str]) -> list[POSIXRlimit]:
    """The process's limits: the defaults, then --ulimit, clamped to what the caller may set (with a warning)."""
    hard_limits = dict(facts.hard_limits)
    wanted: dict[str, tuple[int, int]] = {}
    if options.security.profile != "compat":
        wanted = {name: (soft, hard) for name, soft, hard in DEFAULT_RLIMITS}
    asked: dict[str, Ulimit] = {ulimit.name: ulimit for ulimit in options.ulimits}
    wanted.update({name: (ulimit.soft, ulimit.hard) for name, ulimit in asked.items()})
    found: list[POSIXRlimit] = []
    for name, (soft, hard) in sorted(wanted.items()):
        ceiling = hard_limits.get(name, -1)
        clamped = _minimum(hard, ceiling) if not facts.raise_limits else hard
        if clamped != hard and name in asked:
            warnings.append(f"ulimit {name}: hard limit {hard} is above this system's {clamped}, which is used instead")
        low = _minimum(soft, clamped)
        found.append({"type": f"RLIMIT_{name.upper()}", "soft": low % (1 << 64), "hard": clamped % (1 << 64)})
    return found


def _minimum(one: int, other: int) -> int:
    """The lower of two limits, where -1 is none."""
    return min(one % (1 << 64), other % (1 << 64)) if -1 not in (one, other) else max(one, other)
