"""`engine.volumes`: volumes, and what can be done to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hutch.engine.engine import Engine
from hutch.engine.storage import remove_volume, volumes_in_use
from hutch.engine.volume_filters import describe
from hutch.errors import NotFound, NotSupported
from hutch.library.filtering import flat, volume_matcher
from hutch.volume.store import Volume as StoredVolume

Filters = Mapping[str, Any]


class Volume:
    """A volume.

    Attributes:
        name: unique.
        path: of its data on the host.
        labels: key → value.
        attrs: as `docker volume inspect` has them.
    """

    def __init__(self, engine: Engine, found: StoredVolume) -> None:
        self._engine, self._found = engine, found

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def name(self) -> str:
        """Its name, which is its id."""
        return self._found.name

    @property
    def id(self) -> str:
        """Its name."""
        return self._found.name

    @property
    def path(self) -> str:
        """Where its data lie on the host."""
        return self._found.path

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._found.labels)

    @property
    def attrs(self) -> dict[str, Any]:
        """What is known of it, as Docker names it."""
        return describe(self._found)

    def remove(self, *, force: bool = False) -> None:
        """Remove it and its data.

        Args:
            force: one that is gone is no error.

        Raises:
            Conflict: a container uses it.
        """
        try:
            remove_volume(self._engine, self.name)
        except NotFound:
            if not force:
                raise


class Volumes:
    """The volumes of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume of that name, made if there is none; without a name, a new one.

        Args:
            name: empty for a random one.
            driver: local is the only one.
            driver_opts: ``type``, ``device``, ``o``: what is mounted instead of a directory.
            labels: of one that is made.

        Raises:
            Conflict: it is there with other options.
        """
        if driver != "local":
            raise NotSupported(f"volume driver {driver[:64]}: there is only local")
        self._engine.prepare_directories()
        found = self._engine.volumes.create(name, labels=dict(labels or {}), options=dict(driver_opts or {}))
        return Volume(self._engine, found)

    def get(self, name: str) -> Volume:
        """A volume by name.

        Raises:
            NotFound: there is none.
        """
        return Volume(self._engine, self._engine.volumes.get(name))

    def list(self, *, filters: Filters | None = None) -> list[Volume]:
        """Volumes.

        Args:
            filters: ``dangling``, ``driver``, ``label``, ``name``.
        """
        matches = volume_matcher(self._engine, flat(filters))
        return [Volume(self._engine, found) for found in self._engine.volumes.list() if matches(found)]

    def prune(self, *, filters: Filters | None = None) -> dict[str, Any]:
        """Remove anonymous volumes that no container uses; with ``{"all": True}`` those with a name too.

        Returns:
            ``VolumesDeleted`` and ``SpaceReclaimed``, bytes.
        """
        given = dict(filters or {})
        everything = bool(given.pop("all", False))
        matches = volume_matcher(self._engine, flat(given))
        pruned = self._engine.volumes.prune(
            lambda: volumes_in_use(self._engine), lambda volume: (everything or volume.anonymous) and matches(volume)
        )
        return {"VolumesDeleted": list(pruned.names), "SpaceReclaimed": pruned.freed}
