"""What everything that can be done to a container stands on: its engine and its record."""

from __future__ import annotations

from typing import Any

from hutch.engine import lifecycle
from hutch.engine.containers import ContainerDirectory, ContainerRecord
from hutch.engine.engine import Engine


class Handle:
    """One container, as of the last `reload`."""

    def __init__(self, engine: Engine, record: ContainerRecord) -> None:
        self._engine, self._record = engine, record

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id and other._engine.root == self._engine.root

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """Its id."""
        return self._record.id

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self._record.id[:12]

    @property
    def name(self) -> str:
        """Its name, as of the last `reload`."""
        return self._record.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels and its image's."""
        return dict(self._record.labels)

    @property
    def image(self) -> str:
        """The image's name as it was given."""
        return self._record.image

    @property
    def status(self) -> str:
        """created, running, paused, restarting, removing, exited or dead, as it is now.

        Raises:
            ContainerNotFound: it was removed.
        """
        with self._directory() as directory:
            return lifecycle.status_of(self._engine, directory)

    @property
    def attrs(self) -> dict[str, Any]:
        """Everything, in the shape of `docker inspect`, as it is now."""
        from hutch.engine.inspecting import inspect_container

        return inspect_container(self._engine, self.id)

    def reload(self) -> None:
        """Read again what others may have changed.

        Raises:
            ContainerNotFound: it was removed.
        """
        with self._directory() as directory:
            self._record = directory.record

    def _directory(self) -> ContainerDirectory:
        return self._engine.containers.find(self.id)
