"""The systemd driver: a container is a transient scope, its cgroup delegated to us.

systemd owns the tree: it makes the cgroup, puts the first process in (a scope cannot exist without one) and keeps the
limits it was told over a reload. Within the scope everything is as on plain cgroup v2, done by `V2Manager`; limits go
both to systemd, as properties, and to the files, which know more than systemd does.

root talks to the system manager, an ordinary user to the user's own, which is how a user's container gets limits.
"""

from __future__ import annotations

import errno
import os
import time

from hutch.errors import HutchError, InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.runtime.cgroups import convert, dbus, files, hierarchy
from hutch.runtime.cgroups.v2 import V2Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from hutch.spec.runtime import LinuxResources

    Property = tuple[str, tuple[str, Any]]  # name, (signature, value)

_JOB_TIMEOUT_S = 30.0
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
_SERVICE, _OBJECT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_GONE = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitNotLoaded")
_UNIT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\@")


class SystemdManager:
    """A container's cgroup as a scope unit of systemd."""

    def __init__(self, slice_unit: str, unit: str, cgroup: V2Manager, *, rootless: bool) -> None:
        """Manage scope `unit` in `slice_unit`, whose cgroup is `cgroup`."""
        self._slice = slice_unit
        self._unit = unit
        self._cgroup = cgroup
        self._rootless = rootless
        self._pending: LinuxResources = {}
        self.explain = cgroup.explain

    @classmethod
    def locate(
        cls,
        cgroups_path: str,
        container_id: str,
        found: hierarchy.Hierarchies,
        *,
        rootless: bool,
        stored: dict[str, str] | None = None,
    ) -> SystemdManager:
        """Choose slice and scope from ``slice:prefix:name``; empty is ``hutch-ID.scope`` in the default slice.

        Raises:
            InvalidArgument: a path of another form, or names that no unit can have.
            NotSupported: the host is not on cgroup v2, or has no systemd to talk to.
        """
        slice_unit, unit = unit_names(cgroups_path or f":hutch:{container_id}", rootless=rootless)
        if found.unified is None or not found.is_v2:
            raise NotSupported("systemd cgroup driver: needs a host on cgroup v2 alone")
        if stored and "" in stored:
            directory = stored[""]
        else:
            base = _user_manager_cgroup() if rootless else ""
            directory = f"{found.unified.path}{base}{expand_slice(slice_unit)}/{unit}"
        cgroup = V2Manager(directory, rootless=rootless, top=found.unified.path)
        return cls(slice_unit, unit, cgroup, rootless=rootless)

    def paths(self) -> dict[str, str]:
        """Return the scope's directory, under ""."""
        return self._cgroup.paths()

    # --- life ---------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Clear what a failed unit of that name left; the scope itself starts with the first process (`add`)."""
        with _Systemd(rootless=self._rootless) as systemd:
            systemd.reset_failed(self._unit)
        self._cgroup.adopt()

    def preload(self) -> None:
        """Import what `apply` needs."""
        self._cgroup.preload()

    def apply(self, resources: LinuxResources) -> None:
        """Set what `resources` names; before the scope has started it is kept and becomes the scope's properties.

        Raises:
            HutchError: as `V2Manager.apply`, or systemd refused a property.
        """
        if not os.path.isdir(self._cgroup.paths()[""]):
            self._pending = resources
            return
        properties = resource_properties(resources)
        if properties:
            with _Systemd(rootless=self._rootless) as systemd:
                systemd.call("SetUnitProperties", "sba(sv)", self._unit, True, properties)
            self.explain("systemd", self._unit, " ".join(name for name, _ in properties))
        self._cgroup.apply(resources)

    def add(self, pid: int) -> None:
        """Start the scope with its first process; move a later one in.

        Raises:
            HutchError: systemd or the kernel refused.
        """
        if os.path.isdir(self._cgroup.paths()[""]):
            self._join(pid)
            return
        properties: list[Property] = [
            ("Description", ("s", f"hutch container {self._unit.removesuffix('.scope')}")),
            ("Slice", ("s", self._slice)),
            ("Delegate", ("b", True)),
            ("DefaultDependencies", ("b", False)),
            ("PIDs", ("au", [pid])),
            *((f"{kind}Accounting", ("b", True)) for kind in ("CPU", "IO", "Memory", "Tasks")),
            *resource_properties(self._pending),
        ]
        with _Systemd(rootless=self._rootless) as systemd:
            systemd.job("StartTransientUnit", "ssa(sv)a(sa(sv))", self._unit, "fail", properties, [])
        self.explain("systemd", self._unit, f"StartTransientUnit PIDs={pid}")
        self._cgroup.apply(self._pending)

    def _join(self, pid: int) -> None:
        """Move a process in; a user may not move it out of its session's cgroup, but systemd may for it."""
        try:
            self._cgroup.add(pid)
        except PermissionDenied:
            with _Systemd(rootless=self._rootless) as systemd:
                systemd.call("AttachProcessesToUnit", "ssau", self._unit, "", [pid])
            self.explain("systemd", self._unit, f"AttachProcessesToUnit {pid}")

    def destroy(self) -> None:
        """Stop the scope and remove what is left of its cgroup; does nothing where it is gone.

        Raises:
            Unavailable: systemd did not stop it in time, or a process still lived in it after 10 s.
        """
        with _Systemd(rootless=self._rootless) as systemd:
            if os.path.isdir(self._cgroup.paths()[""]):
                try:
                    systemd.job("StopUnit", "ss", self._unit, "replace")
                except _NoSuchUnit:
                    pass  # a scope ends by itself with its last process
            systemd.reset_failed(self._unit)
        try:
            self._cgroup.destroy()
        except OSError as error:
            if error.errno not in {errno.ENOENT, *files.NOT_ALLOWED}:
                raise

    # --- the cgroup itself --------------------------------------------------------------------------------------

    def pids(self, recursive: bool = True) -> list[int]:
        """Return the processes in the scope (and below)."""
        return self._cgroup.pids(recursive)

    def freeze(self) -> None:
        """Stop every process; see `V2Manager.freeze`."""
        self._cgroup.freeze()

    def thaw(self) -> None:
        """Let every process run again."""
        self._cgroup.thaw()

    def frozen(self) -> bool:
        """Whether the scope's cgroup is, or is being, frozen."""
        return self._cgroup.frozen()

    def kill(self, signal: int) -> None:
        """Send `signal` to every process; see `V2Manager.kill`."""
        self._cgroup.kill(signal)

    def stats(self) -> dict[str, Any]:
        """Return usage in the shape of runc's ``events --stats``."""
        return self._cgroup.stats()

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        return self._cgroup.oom_kills()


# --- names ------------------------------------------------------------------------------------------------------


def unit_names(cgroups_path: str, *, rootless: bool) -> tuple[str, str]:
    """Return slice and scope of a ``slice:prefix:name`` path.

    Raises:
        InvalidArgument: another form, or names that no unit can have.
    """
    parts = cgroups_path.split(":")
    if len(parts) != 3 or not parts[2]:
        raise InvalidArgument(
            f"cgroup path {cgroups_path[:200]!r}: with systemd it must have the form slice:prefix:name"
        )
    slice_unit = parts[0] or ("user.slice" if rootless else "system.slice")
    unit = f"{parts[1]}-{parts[2]}.scope" if parts[1] else f"{parts[2]}.scope"
    for name in (slice_unit, unit):
        if not set(name) <= _UNIT_CHARACTERS or len(name) > 255 or ".." in name:
            raise InvalidArgument(f"cgroup path {cgroups_path[:200]!r}: {name[:80]!r} is not a unit's name")
    expand_slice(slice_unit)
    return slice_unit, unit


def expand_slice(slice_unit: str) -> str:
    """Return the cgroup of a slice: ``a-b.slice`` is ``/a.slice/a-b.slice``, ``-.slice`` the top.

    Raises:
        InvalidArgument: not the name of a slice.

    systemd.slice(5).
    """
    if slice_unit == "-.slice":
        return ""
    name = slice_unit.removesuffix(".slice")
    parts = name.split("-")
    if name == slice_unit or not all(parts):
        raise InvalidArgument(f"cgroup path: {slice_unit[:80]!r} is not a slice's name")
    return "".join(f"/{'-'.join(parts[: i + 1])}.slice" for i in range(len(parts)))


# --- properties -------------------------------------------------------------------------------------------------


def resource_properties(resources: LinuxResources) -> list[Property]:
    """Return what systemd can be told of `resources`, so that a reload does not undo it; devices excepted.

    systemd leaves alone what it was not told about; a device program would be added to ours, to no effect.
    """
    properties: list[Property] = []
    memory = resources.get("memory") or {}
    swap = convert.v2_swap(memory.get("limit") or 0, memory.get("swap") or 0)
    pids = resources.get("pids") or {"limit": 0}
    cpu = resources.get("cpu") or {}
    for name, value in (
        ("MemoryMax", memory.get("limit")),
        ("MemoryLow", memory.get("reservation")),
        ("MemorySwapMax", -1 if swap == "max" else int(swap) if swap is not None else None),
        ("TasksMax", pids["limit"]),
    ):
        if value is not None and (value or name == "MemorySwapMax"):
            properties.append((name, ("t", value if value >= 0 else convert.U64_MAX)))
    if cpu.get("shares"):
        properties.append(("CPUWeight", ("t", convert.cpu_weight(cpu["shares"]))))
    if cpu.get("quota"):
        properties += _quota_properties(cpu["quota"], cpu.get("period") or 100000)
    for name, text in (("AllowedCPUs", cpu.get("cpus")), ("AllowedMemoryNodes", cpu.get("mems"))):
        if text:
            convert.cpu_list(text)
            properties.append((name, ("ay", _bitmap(text))))
    weight = (resources.get("blockIO") or {}).get("weight") or 0
    if weight:
        properties.append(("IOWeight", ("t", convert.io_weight(weight))))
    return properties + _unified_properties(resources.get("unified") or {})


# Files that systemd writes to its default, "max", unless it is told otherwise.
_UNIFIED = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}


def _unified_properties(unified: dict[str, str]) -> list[Property]:
    """Return what systemd would overwrite of the files written by name; the kernel judges other values itself."""
    properties: list[Property] = []
    for file, name in _UNIFIED.items():
        text = unified.get(file, "").strip()
        if text == "max" or (text.isascii() and text.isdigit() and len(text) < 20):
            properties.append((name, ("t", convert.U64_MAX if text == "max" else int(text))))
    for file, name in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
        text = unified.get(file, "").strip()
        if convert.cpu_list(text):
            properties.append((name, ("ay", _bitmap(text))))
    quota = unified.get("cpu.max", "").split()
    if quota and quota[0].isdigit():
        period = int(quota[1]) if len(quota) > 1 and quota[1].isdigit() else 100000
        properties += _quota_properties(int(quota[0]), period)
    return properties


def _quota_properties(quota: int, period: int) -> list[Property]:
    """Tell systemd of a quota: it thinks in whole percents of a processor; the file gets the exact value after it."""
    per_second = -(-quota * 1000000 // period // 10000) * 10000 if quota > 0 else convert.U64_MAX
    return [("CPUQuotaPeriodUSec", ("t", period)), ("CPUQuotaPerSecUSec", ("t", per_second))]


def _bitmap(text: str) -> bytes:
    """Turn a checked list of numbers into bytes, the lowest number in the lowest bit of the first."""
    bits = 0
    for number in convert.expand_list(text.replace(" ", "")):
        bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


# --- talking to systemd -----------------------------------------------------------------------------------------


class _NoSuchUnit(Exception):
    """The unit is not there, or not any more."""


class _Systemd:
    """A connection to the system's manager or the user's."""

    def __init__(self, *, rootless: bool) -> None:
        self._bus = dbus.Connection(user_bus() if rootless else _SYSTEM_BUS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def call(self, member: str, signature: str, *values: Any) -> tuple[Any, ...]:
        """Call a method of systemd's manager object."""
        try:
            return self._bus.call(_SERVICE, _OBJECT, _MANAGER, member, signature, *values)
        except dbus.DBusError as error:
            raise _translate(member, error) from error

    def manager_property(self, name: str) -> Any:
        """Return a property of systemd's manager object."""
        try:
            return self._bus.call(_SERVICE, _OBJECT, _PROPERTIES, "Get", "ss", _MANAGER, name)[0]
        except dbus.DBusError as error:
            raise _translate(f"get {name}", error) from error

    def reset_failed(self, unit: str) -> None:
        """Forget a failed unit, whose name could not be used again otherwise."""
        try:
            self.call("ResetFailedUnit", "s", unit)
        except _NoSuchUnit:
            return

    def job(self, member: str, signature: str, *values: Any) -> None:
        """Call a method that queues a job, and wait until that is done.

        Raises:
            Unavailable: it was not done in 30 s, or not with success.
        """
        match = f"type='signal',sender='{_SERVICE}',interface='{_MANAGER}',member='JobRemoved'"
        try:
            self._bus.call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", match
            )
        except dbus.DBusError as error:
            raise _translate("AddMatch", error) from error
        self.call("Subscribe", "")
        (job,) = self.call(member, signature, *values)
        deadline = time.monotonic() + _JOB_TIMEOUT_S
        while True:
            signal = self._bus.signal(deadline)
            if signal.member != "JobRemoved" or signal.values[1] != job:
                continue
            if signal.values[3] != "done":
                raise Unavailable(f"systemd: {member} {values[0]}: the job ended as {signal.values[3]}")
            return


def _translate(member: str, error: dbus.DBusError) -> HutchError | _NoSuchUnit:
    if error.name in _GONE:
        return _NoSuchUnit(str(error))
    if error.name in {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    }:
        return PermissionDenied(f"systemd: {member}: {error}", hint="without root use the user's own manager")
    if error.name in {"org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.PropertyReadOnly"}:
        return InvalidArgument(f"systemd: {member}: {error}")
    if error.name in {"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.UnknownMethod"}:
        return NotSupported(f"systemd: {member}: {error}")
    return Unavailable(f"systemd: {member}: {error}")


def user_bus() -> str:
    """Return the user's bus: what the session says if it is a plain path, else where systemd puts it."""
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address.startswith("unix:path="):
        return address.removeprefix("unix:path=").partition(",")[0]
    return os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}") + "/bus"


def enter_scope(unit: str, slice_unit: str) -> str:
    """Move this process into a new scope of the user's manager, delegated to us; it ends with its last process.

    Args:
        unit: the scope's name.
        slice_unit: the slice it goes into.

    Returns:
        The scope's cgroup, as in /proc/self/cgroup.

    Raises:
        HutchError: systemd cannot be asked, or refused.
    """
    properties: list[Property] = [
        ("Description", ("s", f"hutch {unit.removesuffix('.scope')}")),
        ("Slice", ("s", slice_unit)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [os.getpid()])),
    ]
    with _Systemd(rootless=True) as systemd:
        systemd.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", properties, [])
    return hierarchy.check_path(hierarchy.own_cgroups()[""])


def _user_manager_cgroup() -> str:
    """Ask the user's manager for its own cgroup, below which its slices are."""
    with _Systemd(rootless=True) as systemd:
        cgroup: str = systemd.manager_property("ControlGroup")
    return hierarchy.check_path(cgroup)
