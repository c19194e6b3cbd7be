"""Forking a process straight into a cgroup.

Moving a process into a cgroup by pid makes the kernel wait for an RCU grace period, 10 to 20 ms: more than everything
else in a container's creation. Two ways avoid it. Of cgroup v2 the child is born there (clone3 with CLONE_INTO_CGROUP,
Linux 5.7); into those of v1 a single-threaded process moves itself, by writing 0 to `tasks`.

clone3 instead of fork(3) passes the C library by. Python's own at-fork functions are called around it, as os.fork does;
the C library's only trace is a stale thread id in the child, which used by nothing we call and is put right by the
os.fork that makes init. The caller must have one thread.
"""

from __future__ import annotations

import ctypes
import errno
import os

from hutch.linux.abi import NR

_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
_UNAVAILABLE = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EBUSY, errno.ENODEV)


class _CloneArgs(ctypes.Structure):
    """struct clone_args, version 2."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    )  # fmt: skip


_python = ctypes.PyDLL(None, use_errno=True)  # unlike CDLL it keeps the interpreter locked over the call


def fork_into(cgroup: str) -> int:
    """Fork; the child is in the v2 cgroup from its first instruction.

    Args:
        cgroup: the directory of a v2 cgroup.

    Returns:
        0 in the child, its pid in the parent; -1 if this kernel or this cgroup does not allow it: fork and move then.

    Raises:
        OSError: EAGAIN (the pids limit), ENOMEM.
    """
    try:
        fd = os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    args = _CloneArgs(flags=_CLONE_INTO_CGROUP, exit_signal=_SIGCHLD, cgroup=fd)
    call = _python.syscall
    call.restype = ctypes.c_long
    number, size, pointer = ctypes.c_long(NR.clone3), ctypes.c_size_t(ctypes.sizeof(args)), ctypes.byref(args)
    _python.PyOS_BeforeFork()
    pid: int = call(number, pointer, size)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        os.close(fd)
        return 0
    problem = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    os.close(fd)
    if pid > 0:
        return pid
    if problem in _UNAVAILABLE:
        return -1
    raise OSError(problem, os.strerror(problem))


def join_v1(directories: list[str]) -> None:
    """Move this process, which must have one thread, into cgroups of v1.

    Raises:
        OSError: ENOSPC (a cpuset without CPUs or memory nodes), EACCES, ENOENT.
    """
    for directory in directories:
        fd = os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from None
        finally:
            os.close(fd)
