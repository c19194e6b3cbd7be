"""An event loop of one thread: descriptors, timers and signals, each with something to call."""

from __future__ import annotations

import os
import select
import time
from heapq import heappop, heappush

from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


def clock() -> float:
    """Seconds since boot, those in which the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timer:
    """Something to call once; `cancel` takes it back."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not call it any more."""
        self.action = None


class Loop:
    """Waits for everything at once; a context manager that gives its descriptors back."""

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._watched: dict[int, Callable[[int], None]] = {}
        self._new: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._over = False
        self._signals: dict[int, Callable[[], None]] = {}
        self._signal_fd = self._wakeup_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wakeup_fd >= 0:
            signals.set_wakeup_fd(-1)
            os.close(self._signal_fd)
            os.close(self._wakeup_fd)
        self._epoll.close()

    def on_signal(self, number: int, action: Callable[[], None]) -> None:
        """Call `action` from the loop when the signal comes."""
        if self._wakeup_fd < 0:
            self._signal_fd, self._wakeup_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signals.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
            self.watch(self._signal_fd, READ, self._dispatch_signals)
        self._signals[number] = action
        signals.handle(number, _nothing)

    def _dispatch_signals(self, _events: int) -> None:
        for number in set(os.read(self._signal_fd, 4096)):
            if action := self._signals.get(number):
                action()

    def watch(self, fd: int, events: int, action: Callable[[int], None]) -> None:
        """Call `action` with what is possible on `fd`; again for an fd that is watched, to change either."""
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._new.add(fd)
        self._watched[fd] = action

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed. Nothing happens to one that is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` once, in `seconds`."""
        timer = Timer(clock() + seconds, action)
        self._count += 1
        heappush(self._timers, (timer.at, self._count, timer))
        return timer

    def stop(self) -> None:
        """Let `run` return, or never begin."""
        self._over = True

    def run(self) -> None:
        """Wait and call until `stop`."""
        while not self._over:
            self._new.clear()
            for fd, events in self._epoll.poll(self._patience()):
                action = self._watched.get(fd)  # one action may have taken away another's
                if action is not None and fd not in self._new:  # or given its number to something else
                    action(events)
            while self._timers and self._timers[0][0] <= clock():
                timer = heappop(self._timers)[2]
                if timer.action is not None:
                    timer.action()

    def _patience(self) -> float:
        while self._timers and self._timers[0][2].action is None:
            heappop(self._timers)
        return max(0.0, self._timers[0][0] - clock()) if self._timers else -1.0


def _nothing(_number: int, _frame: object) -> None:
    """A handler must exist for set_wakeup_fd to see the signal."""
