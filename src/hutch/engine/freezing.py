"""Letting a container stand still while its files are read."""

from __future__ import annotations

from hutch.engine.undo import Interruptions
from hutch.errors import ContainerNotFound, InvalidState
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine


class StandingStill:
    """A stretch in which a running container is frozen; a context manager. It goes on whatever happens in it.

    Args:
        engine: whose container.
        directory: the container, which may not run at all, or be paused already.
        pause: False lets it go on meanwhile.
    """

    def __init__(self, engine: Engine, directory: ContainerDirectory, *, pause: bool = True) -> None:
        self._state, self._id, self._pause = engine.runtime_state, directory.record.id, pause
        self._container: Container | None = None

    def __enter__(self) -> None:
        if not self._pause:
            return
        try:
            container = Container.load(self._state, self._id)
        except ContainerNotFound:
            return
        if container.status() != "running":
            container.close()
            return
        self._container = container  # first: an interruption may come while it freezes
        try:
            container.pause()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        with container, Interruptions(allowed=False):
            try:
                container.resume()
            except InvalidState:
                pass  # it has ended, was thawed by somebody else, or has no cgroup to freeze it in
