"""`Snapshot`: a container's files at one moment."""

from __future__ import annotations

from hutch.engine import snapshots
from hutch.engine.engine import Engine


class Snapshot:
    """What a container had changed at one moment. It goes with its container.

    Attributes:
        container_id: whose it is.
        name: as given, or a random one.
    """

    def __init__(self, engine: Engine, container_id: str, name: str) -> None:
        self._engine = engine
        self.container_id, self.name = container_id, name

    def __repr__(self) -> str:
        return f"<Snapshot {self.name} of {self.container_id[:12]}>"

    def remove(self) -> None:
        """Forget it.

        Raises:
            NotFound: it is gone, or its container is.
        """
        with self._engine.containers.find(self.container_id) as directory:
            snapshots.remove(self._engine, directory, self.name)
