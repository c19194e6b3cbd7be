"""Namespaces: making, joining and telling them apart. Python has unshare and setns only from 3.12 on."""

from __future__ import annotations

import errno
import fcntl
import os

from hutch.linux.abi import NR
from hutch.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.proc import Proc

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400

# OCI runtime-spec config-linux.md#namespaces: the type's name → the flag.
KINDS = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
# The same → the file in /proc/<pid>/ns.
FILES = {name: {"mount": "mnt", "network": "net"}.get(name, name) for name in KINDS}

_NS_GET_USERNS, _NS_GET_PARENT, _NS_GET_NSTYPE, _NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (CLONE_NEW*); PID and time apply to its children.

    Raises:
        OSError: EPERM, ENOSPC (the limit of namespaces), EINVAL (several threads and CLONE_NEWUSER).
    """
    syscall(NR.unshare, flags)


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace `fd` is of, or with a pidfd all those in `flags` at once (Linux 5.8).

    Args:
        fd: of /proc/<pid>/ns/<file>, or a pidfd; not closed.
        flags: CLONE_NEW*; 0 takes whatever kind a namespace descriptor is.

    Raises:
        OSError: EINVAL (another kind), EPERM.
    """
    syscall(NR.setns, fd, flags)


def _file(pid: int | str, kind: str) -> str:
    try:
        return f"/proc/{pid}/ns/{FILES[kind]}"
    except KeyError:
        raise OSError(errno.EINVAL, "unknown kind of namespace", kind) from None


def namespace_id(pid: int | str, kind: str) -> tuple[int, int]:
    """(device, inode): what tells the namespace of `pid` (or "self") from all others that exist."""
    found = os.stat(_file(pid, kind))
    return found.st_dev, found.st_ino


def open_namespace(pid: int | str, kind: str) -> int:
    """A descriptor of the namespace that `pid` (or "self") is in; the caller's to close."""
    return os.open(_file(pid, kind), os.O_RDONLY | os.O_CLOEXEC)


def set_time_offsets(proc: Proc, offsets: dict[str, tuple[int, int]], pid: int | str = "self") -> None:
    """Set the clocks of a new time namespace, which no process may have entered yet.

    Args:
        proc: the procfs to write through.
        offsets: "monotonic" or "boottime" → (seconds, nanoseconds), added to the host's clock.
        pid: who unshared CLONE_NEWTIME, so that its children will be in it.

    Raises:
        OSError: EACCES (somebody is in it), ERANGE (the clock would go below zero), EINVAL.

    OCI runtime-spec config-linux.md#offset-for-time-namespace.
    """
    lines = [f"{clock} {seconds} {nanos}\n" for clock, (seconds, nanos) in offsets.items()]
    proc.write(f"{pid}/timens_offsets", "".join(lines))


def kind_of(fd: int) -> int:
    """The CLONE_NEW* flag of the namespace `fd` is of; EINVAL or ENOTTY where it is of none."""
    return fcntl.ioctl(fd, _NS_GET_NSTYPE)


def owner(fd: int) -> int:
    """A descriptor of the user namespace that owns the namespace `fd`; the caller's to close."""
    return fcntl.ioctl(fd, _NS_GET_USERNS)


def parent(fd: int) -> int:
    """A descriptor of the parent of a user or PID namespace; EPERM beyond the caller's own."""
    return fcntl.ioctl(fd, _NS_GET_PARENT)
