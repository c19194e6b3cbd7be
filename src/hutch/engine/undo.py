"""`Undo`: how what was done so far is taken back when a later step fails."""

from __future__ import annotations

from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_IMPATIENT = (signals.SIGHUP, signals.SIGINT, signals.SIGTERM)


class Interruptions:
    """A stretch in which control-C and its like come through at once, or wait until its end; a context manager.

    What is made and what says how it is undone must not come apart.

    Args:
        allowed: whether they come through.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._how = signals.SIG_UNBLOCK if allowed else signals.SIG_BLOCK

    def __enter__(self) -> None:
        self._before = signals.pthread_sigmask(self._how, _IMPATIENT)

    def __exit__(self, *_: object) -> None:
        signals.pthread_sigmask(signals.SIG_SETMASK, self._before)


class Undo:
    """What to take back, last first, unless `keep` is called; a context manager."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Register how something just done is undone."""
        self._steps.append(step)

    def keep(self) -> None:
        """What was done stays."""
        self._steps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._steps:
            return
        first: Exception | None = None
        with Interruptions(allowed=False):  # a second one waits until everything is taken back
            while self._steps:
                try:
                    self._steps.pop()()
                except Exception as problem:  # the other steps must not stay undone for it
                    first = first or problem
        if first is not None:
            raise first
