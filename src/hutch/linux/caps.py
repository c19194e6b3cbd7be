"""Capabilities: the five sets of a thread, as integers with one bit per capability."""

from __future__ import annotations

import errno
import os
from ctypes import byref

from hutch.linux.abi import NR, CapData, CapHeader
from hutch.linux.libc import syscall

_VERSION_3 = 0x20080522
_LOW = 0xFFFFFFFF
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT = 47
_AMBIENT_IS_SET, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 1, 2, 4

# The index is the bit.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
BITS = {name: bit for bit, name in enumerate(NAMES)}


class Caps:
    """The capability sets of a thread; each attribute is a mask."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(
        self, effective: int = 0, permitted: int = 0, inheritable: int = 0, *, bounding: int = 0, ambient: int = 0
    ) -> None:
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.bounding = bounding
        self.ambient = ambient

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Caps) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it changes: what typeshed calls a method is how Python says so

    def __repr__(self) -> str:
        return f"Caps({', '.join(f'{name}={getattr(self, name):#x}' for name in self.__slots__)})"


def mask(names: tuple[str, ...] | list[str]) -> int:
    """The mask of capabilities by their names.

    Raises:
        OSError: EINVAL, a name this version does not know.
    """
    result = 0
    for name in names:
        if name not in BITS:
            raise OSError(errno.EINVAL, "unknown capability", name)
        result |= 1 << BITS[name]
    return result


def names(mask: int) -> list[str]:
    """The names in a mask, in the order of bits; "CAP_<bit>" for one newer than this list."""
    bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return [NAMES[bit] if bit < len(NAMES) else f"CAP_{bit}" for bit in bits]


def last_cap() -> int:
    """The number of the last capability this kernel knows."""
    last = len(NAMES) - 1
    while last >= 0 and not _known(last):
        last -= 1
    while last < 63 and _known(last + 1):
        last += 1
    return last


def _known(capability: int) -> bool:
    try:
        syscall(NR.prctl, _PR_CAPBSET_READ, capability)
    except OSError as problem:
        if problem.errno == errno.EINVAL:
            return False
        raise
    return True


def get(pid: int = 0) -> Caps:
    """The sets of the calling thread, or of the process `pid`.

    Raises:
        OSError: ESRCH or ENOENT, no such process.
    """
    data = (CapData * 2)()
    syscall(NR.capget, byref(CapHeader(_VERSION_3, pid)), byref(data))
    low, high = data
    result = Caps(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )
    if pid:
        result.bounding, result.ambient = _from_status(pid)
        return result
    for bit in range(last_cap() + 1):
        result.bounding |= syscall(NR.prctl, _PR_CAPBSET_READ, bit) << bit
        result.ambient |= syscall(NR.prctl, _PR_CAP_AMBIENT, _AMBIENT_IS_SET, bit) << bit
    return result


def _from_status(pid: int) -> tuple[int, int]:
    """The bounding and ambient sets of another process, which only procfs tells."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    # The name, the only line a process writes itself, comes first and its newlines are escaped.
    fields = dict(line.split(b":\t", 1) for line in text.split(b"\n") if b":\t" in line)
    return int(fields[b"CapBnd"], 16), int(fields[b"CapAmb"], 16)


def set(effective: int, permitted: int, inheritable: int) -> None:  # noqa: A001 (capset; callers write caps.set)
    """Set three sets of the calling thread. What leaves the permitted set leaves the ambient set too.

    Raises:
        OSError: EPERM, something is asked for that is not permitted.
    """
    data = (CapData * 2)(
        CapData(effective & _LOW, permitted & _LOW, inheritable & _LOW),
        CapData(effective >> 32, permitted >> 32, inheritable >> 32),
    )
    syscall(NR.capset, byref(CapHeader(_VERSION_3, 0)), byref(data))


def drop_bounding(mask: int) -> None:
    """Drop the capabilities in `mask` from the bounding set, for good; those already out do not matter.

    Raises:
        OSError: EPERM, without CAP_SETPCAP while one of them is still in.
    """
    for bit in range(last_cap() + 1):
        if mask >> bit & 1 and syscall(NR.prctl, _PR_CAPBSET_READ, bit):
            syscall(NR.prctl, _PR_CAPBSET_DROP, bit)


def set_ambient(mask: int) -> None:
    """Make the ambient set exactly `mask`.

    Raises:
        OSError: EPERM, one of them is not both permitted and inheritable; EINVAL, the kernel does not
            know one of them. The set is then a part of `mask`.
    """
    syscall(NR.prctl, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            syscall(NR.prctl, _PR_CAP_AMBIENT, _AMBIENT_RAISE, bit)
