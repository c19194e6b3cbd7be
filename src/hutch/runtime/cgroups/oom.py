"""Hearing of out-of-memory kills as they happen.

cgroup v1 signals an eventfd when a cgroup runs out of memory; cgroup v2 modifies memory.events, which inotify sees.
Either way the descriptor only says "look": `OomEvents.kills` says how many processes were killed.
"""

from __future__ import annotations

import os
from ctypes import c_char_p, c_uint32, get_errno

from hutch.errors import NotSupported
from hutch.linux.libc import libc
from hutch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_IN_MODIFY = 0x2


class OomEvents:
    """A descriptor that becomes readable when something was, or may have been, killed for want of memory."""

    def __init__(self, paths: dict[str, str]) -> None:
        """Watch the cgroup at `paths`, as `CgroupManager.paths` returns them.

        Raises:
            NotSupported: the cgroup has no memory controller.
            OSError: as the kernel says.
        """
        memory = paths.get("memory")
        if memory is not None:
            self._events = f"{memory}/memory.oom_control"
            self._fd = _eventfd(memory)
        elif "" in paths and os.path.exists(f"{paths['']}/memory.events"):
            self._events = f"{paths['']}/memory.events"
            self._fd = _inotify(self._events)
        else:
            raise NotSupported("watch for out of memory: the cgroup has no memory controller")

    def fileno(self) -> int:
        """Return the descriptor to poll for reading; it is closed by `close`."""
        return self._fd

    def acknowledge(self) -> None:
        """Empty the descriptor, so that it becomes readable only for what comes next."""
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return

    def kills(self) -> int:
        """Return how many processes have been killed since the cgroup was made; 0 once it is gone."""
        return files.read_flat(self._events).get("oom_kill", 0)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _eventfd(directory: str) -> int:
    event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control_fd = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.write(f"{directory}/cgroup.event_control", f"{event_fd} {control_fd}")
        finally:
            os.close(control_fd)
    except BaseException:
        os.close(event_fd)
        raise
    return event_fd


def _inotify(path: str) -> int:
    watch_fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if watch_fd < 0:
        raise OSError(get_errno(), os.strerror(get_errno()))
    if libc.inotify_add_watch(watch_fd, c_char_p(os.fsencode(path)), c_uint32(_IN_MODIFY)) < 0:
        error = OSError(get_errno(), os.strerror(get_errno()), path)
        os.close(watch_fd)
        raise error
    return watch_fd
