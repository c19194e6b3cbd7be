"""`HostFacts`: what this machine and this caller can do, looked up once, so that making a spec stays pure."""

from __future__ import annotations

import os

from hutch.engine.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.engine.selinux import Contexts

_CGROUP = "/sys/fs/cgroup"
_LIMITED_READ = 1 << 20


class HostFacts(Record):
    """Facts of the host.

    Attributes:
        euid, egid: of the caller; anything but 0 means an unprivileged user.
        permitted: capability names that the caller could give away.
        processors: how many the machine has online.
        cgroup2: whether cgroup v2 carries the resource controllers.
        swap_accounting: whether memory plus swap can be limited.
        hard_limits: RLIMIT name → the caller's hard limit, -1 for infinity.
        raise_limits: whether the caller may exceed them (CAP_SYS_RESOURCE).
        undelegated: why the caller cannot limit resources; empty for root, and for a user whom systemd gives cgroups.
        apparmor, selinux: whether the kernel enforces that LSM.
        selinux_contexts: what the SELinux policy sets aside for containers; None without SELinux.
        thermal: paths of the processors' throttle counters, which tell about the host.
    """

    euid: int = 0
    egid: int = 0
    permitted: frozenset[str] = frozenset()
    processors: int = 1
    cgroup2: bool = False
    swap_accounting: bool = True
    hard_limits: tuple[tuple[str, int], ...] = ()
    raise_limits: bool = True
    undelegated: str = ""
    apparmor: bool = False
    selinux: bool = False
    selinux_contexts: Contexts | None = None
    thermal: tuple[str, ...] = ()

    @property
    def rootless(self) -> bool:
        """Whether the caller is an ordinary user."""
        return self.euid != 0

    @property
    def delegated(self) -> bool:
        """Whether the caller may limit resources."""
        return not self.undelegated


def _exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def _first_bytes(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _LIMITED_READ)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _hard_limits(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    import resource

    found = []
    for name in names:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            found.append((name, -1 if hard == resource.RLIM_INFINITY else hard))
    return tuple(found)


def host_facts() -> HostFacts:
    """Look at this machine."""
    from hutch.engine.delegation import obstacle
    from hutch.engine.options import RLIMITS
    from hutch.linux.caps import NAMES

    selinux = _exists("/sys/fs/selinux/enforce")
    euid = os.geteuid()
    status = _first_bytes("/proc/self/status").decode("ascii", "replace")
    bounding = next((int(line[7:], 16) for line in status.splitlines() if line.startswith("CapBnd:")), 0)
    effective = next((int(line[7:], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    everything = (1 << (int(_first_bytes("/proc/sys/kernel/cap_last_cap") or b"40") + 1)) - 1
    mask = bounding & effective if euid == 0 else everything  # a user namespace of one's own grants all of them
    cgroup2 = _exists(f"{_CGROUP}/cgroup.controllers")
    swap = f"{_CGROUP}/memory/memory.memsw.limit_in_bytes"
    return HostFacts(
        euid=euid,
        egid=os.getegid(),
        permitted=frozenset(name for bit, name in enumerate(NAMES) if mask >> bit & 1),
        processors=os.cpu_count() or 1,
        cgroup2=cgroup2,
        swap_accounting=cgroup2 or _exists(swap),
        hard_limits=_hard_limits(RLIMITS),
        raise_limits=bool(effective >> 24 & 1),
        undelegated=obstacle(euid) if euid else "",
        apparmor=_first_bytes("/sys/module/apparmor/parameters/enabled")[:1] == b"Y",
        selinux=selinux,
        selinux_contexts=_contexts() if selinux else None,
        thermal=_thermal(),
    )


def _contexts() -> Contexts:
    from hutch.engine.selinux import host_contexts

    return host_contexts()


def _thermal() -> tuple[str, ...]:
    if not _exists("/sys/devices/system/cpu/cpu0/thermal_throttle"):
        return ()
    names = (name for name in os.listdir("/sys/devices/system/cpu") if name[:3] == "cpu" and name[3:].isdigit())
    paths = (f"/sys/devices/system/cpu/{name}/thermal_throttle" for name in sorted(names))
    return tuple(path for path in paths if _exists(path))
