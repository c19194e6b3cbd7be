"""Letting a container stand still while its files are read."""

from __future__ import annotations

import fcntl
import os

from hutch.engine.undo import Interruptions
from hutch.errors import ContainerNotFound, InvalidState
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_LOCK = "still.lock"


class StandingStill:
    """A stretch in which a running container is frozen; a context manager. It goes on whatever happens in it.

    Who comes second waits, for the first one would let it go on under his eyes.

    Args:
        engine: whose container.
        directory: the container, which may not run at all, or be paused already.
        pause: False lets it go on meanwhile.
    """

    def __init__(self, engine: Engine, directory: ContainerDirectory, *, pause: bool = True) -> None:
        self._state, self._record, self._path, self._pause = (
            engine.runtime_state,
            directory.record,
            directory.path,
            pause,
        )
        self._container: Container | None = None
        self._lock_fd = -1

    def __enter__(self) -> None:
        if not self._pause:
            return
        try:
            container = Container.load(self._state, self._record.id)
        except ContainerNotFound:
            return
        try:
            self._lock()
            status = container.status()
        except BaseException:
            container.close()
            self.__exit__()
            raise
        if status != "running":
            container.close()  # paused by its user, or ended
            return
        self._container = container  # first: an interruption may come while it freezes
        try:
            container.pause()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        container, self._container = self._container, None
        lock_fd, self._lock_fd = self._lock_fd, -1
        with Interruptions(allowed=False):
            try:
                if container is not None:
                    with container:
                        container.resume()
            except InvalidState:
                pass  # it has ended, was thawed by somebody else, or has no cgroup to freeze it in
            finally:
                if lock_fd >= 0:
                    os.close(lock_fd)

    def _lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._lock_fd = os.open(f"{self._path}/{_LOCK}", flags, 0o600)
        except FileNotFoundError:
            raise ContainerNotFound(f"no such container: {self._record.name}") from None
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
