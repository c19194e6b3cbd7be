"""Cancellation: how a call that waits in one thread is ended from another. `hutch.aio` is who does that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from hutch.engine.database import Database
from hutch.errors import HutchError


class Cancelled(HutchError):
    """The call was cancelled; nobody sees this but who did that."""


class Scope:
    """What a call waits for just now, and whether it is still wanted. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aborts: list[Callable[[], None]] = []
        self.cancelled = False

    def cancel(self) -> None:
        """End what is waited for, and refuse to wait for anything else."""
        with self._lock:
            self.cancelled = True
            aborts, self._aborts = self._aborts, []
        for abort in aborts:
            abort()

    def enter(self, abort: Callable[[], None]) -> None:
        """Register what ends a wait; raises Cancelled if it is too late."""
        with self._lock:
            if not self.cancelled:
                self._aborts.append(abort)
                return
        abort()
        raise Cancelled("cancelled")

    def leave(self, abort: Callable[[], None]) -> None:
        """The wait is over."""
        with self._lock:
            if abort in self._aborts:
                self._aborts.remove(abort)


current: ContextVar[Scope | None] = ContextVar("hutch_scope", default=None)


@contextmanager
def abortable(abort: Callable[[], None]) -> Iterator[None]:
    """A wait that `abort`, called in another thread, ends."""
    scope = current.get()
    if scope is None:
        yield
        return
    scope.enter(abort)
    try:
        yield
    finally:
        scope.leave(abort)


def is_cancelled() -> bool:
    """Whether the call that we are part of is not wanted any more."""
    scope = current.get()
    return scope is not None and scope.cancelled


def check() -> None:
    """Raise Cancelled if the call that we are part of is not wanted any more."""
    if is_cancelled():
        raise Cancelled("cancelled")


class WatchedDatabase(Database):
    """A connection to the store for who waits for what others enter there, until that is cancelled."""

    def read(self, statement: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """As `Database.read`; raises Cancelled once nobody waits any more."""
        check()
        return super().read(statement, arguments)
