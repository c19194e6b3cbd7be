"""Processes: pidfds, prctl, identity, scheduling. PIDs are always the caller's namespace's."""

from __future__ import annotations

import errno
import os
from ctypes import byref, create_string_buffer, sizeof

from hutch.linux.abi import NR, SchedAttr
from hutch.linux.libc import syscall

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
ALL_DESCRIPTORS = 0xFFFFFFFF  # the last of close_range

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_GET_NAME = 16
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39

# OCI runtime-spec config.md#process: scheduler.policy and ioPriority.class → the kernel's numbers.
SCHED_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER = 1, 2, 3

PER_LINUX = 0x0000
PER_LINUX32 = 0x0008

_SIGSET_BYTES = 8
_SIGACTION_BYTES = 32  # struct sigaction as the kernel has it: handler, flags, restorer (x86-64), mask

setgroups = os.setgroups
setresuid = os.setresuid
setresgid = os.setresgid
umask = os.umask


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor of process `pid`, readable when it has ended; the caller's to close."""
    return syscall(NR.pidfd_open, pid, flags)


def pidfd_send_signal(fd: int, signal: int) -> None:
    """Signal the process a pidfd is of. ProcessLookupError once it has been reaped."""
    syscall(NR.pidfd_send_signal, fd, signal, None, 0)


def pidfd_getfd(fd: int, target_fd: int) -> int:
    """A duplicate of descriptor `target_fd` of the pidfd's process; the caller's to close."""
    return syscall(NR.pidfd_getfd, fd, target_fd, 0)


def close_range(first: int, last: int = ALL_DESCRIPTORS, flags: int = 0) -> None:
    """Close the descriptors `first` to `last`, or with CLOSE_RANGE_CLOEXEC mark them."""
    syscall(NR.close_range, first, last, flags)


def _prctl(option: int, *args: object) -> int:
    return syscall(NR.prctl, option, *args)


def set_dumpable(on: bool) -> None:
    """Whether others of the same user may trace this process and read its /proc files.

    execve sets it again; clear it before entering a namespace that is not trusted (CVE-2016-9962).
    """
    _prctl(_PR_SET_DUMPABLE, on)


def dumpable() -> bool:
    """What set_dumpable set: never true of "root only" (2)."""
    return _prctl(_PR_GET_DUMPABLE) == 1


def set_no_new_privs() -> None:
    """Let no execve grant privileges any more; cannot be undone."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def no_new_privs() -> bool:
    """Whether set_no_new_privs was called here or in an ancestor."""
    return _prctl(_PR_GET_NO_NEW_PRIVS) == 1


def set_child_subreaper(on: bool) -> None:
    """Become the parent of orphaned descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, on)


def set_pdeathsig(signal: int) -> None:
    """Get `signal` when the parent *thread* ends; 0 for none. Cleared by setuid execve and by setresuid.

    The parent may have ended before the call: compare os.getppid() after it.
    """
    _prctl(_PR_SET_PDEATHSIG, signal)


def set_keepcaps(on: bool) -> None:
    """Keep the permitted capabilities over a change of all user ids away from 0."""
    _prctl(_PR_SET_KEEPCAPS, on)


def set_name(name: str) -> None:
    """Name this thread (comm); the kernel keeps 15 bytes."""
    _prctl(_PR_SET_NAME, name)


def thread_name() -> str:
    """What set_name set."""
    buffer = create_string_buffer(16)
    _prctl(_PR_GET_NAME, buffer)
    return os.fsdecode(buffer.value)


def set_scheduler(
    policy: str,
    *,
    pid: int = 0,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    runtime_nanos: int = 0,
    deadline_nanos: int = 0,
    period_nanos: int = 0,
) -> None:
    """sched_setattr(2) with the fields of OCI runtime-spec config.md#process, "scheduler".

    Args:
        policy: a name of SCHED_POLICIES.
        pid: 0 is the calling thread.
        flags: bits of SCHED_FLAGS.
        nice: for SCHED_OTHER and SCHED_BATCH.
        priority: 1 to 99 for SCHED_FIFO and SCHED_RR, else 0.
        runtime_nanos: for SCHED_DEADLINE, as are the next two.
        deadline_nanos: counted from the start of a period.
        period_nanos: 0 is the deadline.

    Raises:
        OSError: EINVAL (unknown policy, values out of range), EPERM, EBUSY (no room for the deadline).
    """
    attr = SchedAttr(
        size=48,  # without the clamps: every kernel since 3.14 takes it
        policy=_number(SCHED_POLICIES, policy, "unknown scheduling policy"),
        flags=flags,
        nice=nice,
        priority=priority,
        runtime=runtime_nanos,
        deadline=deadline_nanos,
        period=period_nanos,
    )
    syscall(NR.sched_setattr, pid, byref(attr), 0)


def scheduler(pid: int = 0) -> SchedAttr:
    """sched_getattr(2)."""
    attr = SchedAttr()
    syscall(NR.sched_getattr, pid, byref(attr), sizeof(attr), 0)
    return attr


def _number(table: dict[str, int], name: str, problem: str) -> int:
    try:
        return table[name]
    except KeyError:
        raise OSError(errno.EINVAL, problem, name) from None


def ioprio_set(io_class: str, priority: int, *, who: int = 0, which: int = IOPRIO_WHO_PROCESS) -> None:
    """Set the I/O priority: a class of IOPRIO_CLASSES and a level of 0 (first) to 7."""
    number = _number(IOPRIO_CLASSES, io_class, "unknown i/o priority class")
    if not 0 <= priority <= 7:
        raise OSError(errno.EINVAL, f"i/o priority out of range: {priority}")
    syscall(NR.ioprio_set, which, who, number << 13 | priority)


def ioprio_get(who: int = 0, which: int = IOPRIO_WHO_PROCESS) -> tuple[int, int]:
    """(class number, level)."""
    value = syscall(NR.ioprio_get, which, who)
    return value >> 13, value & 0x1FFF


def sched_setaffinity(pid: int, cpus: set[int]) -> None:
    """Run `pid` (0: the calling thread) only on `cpus`; EINVAL where none of them can be used."""
    try:
        os.sched_setaffinity(pid, cpus)
    except (ValueError, OverflowError) as problem:
        raise OSError(errno.EINVAL, str(problem)) from None


def personality(persona: int) -> int:
    """Set the execution domain (PER_*), returning the one before; 0xffffffff only asks."""
    return syscall(NR.personality, persona)


def start_time(pid: int | str) -> int:
    """When `pid` (or "self") was started, in clock ticks since boot: with the pid it names one process.

    Raises:
        OSError: ENOENT or ESRCH, no such process.
    """
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    # The name (field 2) may hold spaces and parentheses: fields are counted from its end.
    return int(text.rpartition(b")")[2].split()[22 - 3])


def default_signal(number: int) -> None:
    """Give signal `number` its default disposition, 32 and 33 too, which the C library keeps to itself.

    Raises:
        OSError: EINVAL, no such signal, or one whose disposition is fixed.
    """
    action = create_string_buffer(_SIGACTION_BYTES)  # SIG_DFL is 0
    syscall(NR.rt_sigaction, number, byref(action), None, _SIGSET_BYTES)
