"""Signalling every process of a cgroup so that none escapes by forking.

A list of processes is old when it has been read: a fork bomb outruns any loop over it. While the cgroup is frozen
nothing forks, so the list is whole; the signal then waits for each process until the cgroup is thawed.
"""

from __future__ import annotations

import os
import time

from hutch.errors import NotSupported, Unavailable
from hutch.runtime.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.cgroups.manager import CgroupManager

_GONE_TIMEOUT_S = 10.0


def signal_all(cgroup: CgroupManager, signal: int) -> None:
    """Freeze, signal every process, thaw.

    SIGKILL always ends thawed, or the killed would never die; after another signal a cgroup that was frozen stays so.

    Args:
        cgroup: freezes and lists; without a freezer the list is signalled until it stays empty.
        signal: a signal number.
    """
    was_frozen = cgroup.frozen()
    try:
        cgroup.freeze()
    except NotSupported:
        _signal_without_freezer(cgroup, signal)
        return
    except Unavailable:
        # Thawed again, so nothing is stuck; a process in an uninterruptible sleep cannot fork either.
        was_frozen = False
    try:
        for pid in cgroup.pids():
            _send(pid, signal)
    finally:
        if signal == SIGKILL or not was_frozen:
            cgroup.thaw()


def _signal_without_freezer(cgroup: CgroupManager, signal: int) -> None:
    """Signal what is listed; for SIGKILL until nothing is, for at most 10 s."""
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while pids := cgroup.pids():
        for pid in pids:
            _send(pid, signal)
        if signal != SIGKILL:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"kill cgroup: {len(pids)} processes are left")
        time.sleep(0.001)


def _send(pid: int, signal: int) -> None:
    try:
        os.kill(pid, signal)
    except ProcessLookupError:
        return
