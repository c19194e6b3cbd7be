"""Resource limits, by the names of OCI runtime-spec config.md#process."""

from __future__ import annotations

import errno
from ctypes import byref

from hutch.linux.abi import NR, Rlimit
from hutch.linux.libc import syscall

INFINITY = 0xFFFFFFFFFFFFFFFF

NUMBERS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}


def _number(name: str) -> int:
    try:
        return NUMBERS[name]
    except KeyError:
        raise OSError(errno.EINVAL, "unknown resource limit", name) from None


def get(name: str, pid: int = 0) -> tuple[int, int]:
    """(soft, hard) of a process, 0 being the caller; INFINITY for none."""
    limit = Rlimit()
    syscall(NR.prlimit64, pid, _number(name), None, byref(limit), path=name)
    return limit.soft, limit.hard


def set(name: str, soft: int, hard: int, pid: int = 0) -> None:  # noqa: A001 (callers write rlimits.set)
    """Set a limit of a process, 0 being the caller.

    Args:
        name: of NUMBERS.
        soft: in the limit's own unit (bytes, seconds, a count); INFINITY for none.
        hard: likewise; at least `soft`.
        pid: whose.

    Raises:
        OSError: EINVAL (unknown name, out of 64 bits, soft over hard), EPERM (raising the hard limit),
            with the name as filename.
    """
    number = _number(name)
    if not 0 <= soft <= INFINITY or not 0 <= hard <= INFINITY:
        raise OSError(errno.EINVAL, "limit out of range", name)
    syscall(NR.prlimit64, pid, number, byref(Rlimit(soft, hard)), None, path=name)
