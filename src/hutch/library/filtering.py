"""Filters as callers give them, compiled as the command line's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hutch.engine import mountrecord
from hutch.engine.container_filters import KEYS, PRUNE_KEYS, container_filter
from hutch.engine.containers import ContainerDirectory
from hutch.engine.engine import Engine
from hutch.engine.image_filters import ImageFilter, image_filter
from hutch.engine.volume_filters import volume_filter
from hutch.errors import HutchError
from hutch.volume.store import Volume


def flat(filters: Mapping[str, Any] | None) -> list[str]:
    """``{"status": "exited", "label": ["a", "b=c"]}`` as ``key=value`` each; truth values as words."""
    found = []
    for key, given in (filters or {}).items():
        many = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
        found += [f"{key}={str(one).lower() if isinstance(one, bool) else one}" for one in many]
    return found


class _Row:
    """A container as filters ask for it."""

    def __init__(self, directory: ContainerDirectory, status: str) -> None:
        record = directory.record
        self._directory, self._record, self.status = directory, record, status
        self.id, self.name, self.created, self.image = record.id, record.name, record.created, record.image
        self.image_id, self.chain_ids, self.labels = record.image_id, record.chain_ids, record.labels
        self.exit_code, self.ports = record.exit_code, record.ports
        self.health: str = record.health.get("Status", "")
        self.networks: tuple[str, ...] = tuple(record.networks)

    @property
    def volumes(self) -> set[str]:
        """Names, sources and destinations of what is mounted."""
        try:
            mounts = mountrecord.read(self._directory)
        except HutchError:
            mounts = []  # of a damaged record nothing can be said
        named = {text for mount in mounts for text in (mount.source, mount.target) if text}
        return named | {*self._record.volumes, *self._record.mounted_volumes}


def container_matcher(
    engine: Engine, given: list[str], *, prune: bool = False
) -> tuple[Callable[[ContainerDirectory, str], bool], bool]:
    """What a container with a status must be; and whether those that do not run are meant too.

    Raises:
        InvalidArgument: no such filter.
    """

    def find(text: str) -> _Row:
        with engine.containers.find(text) as directory:
            return _Row(directory, directory.record.status)

    matches = container_filter(
        given,
        find=find,
        layers=lambda text: engine.images.get(text).chain_ids,
        allowed=PRUNE_KEYS if prune else KEYS,
    )
    return (lambda directory, status: matches(_Row(directory, status))), matches.everything


def image_matcher(engine: Engine, given: list[str], *, pattern: str = "") -> ImageFilter:
    """What an image must be."""
    return image_filter(engine, given, pattern=pattern)


def volume_matcher(engine: Engine, given: list[str]) -> Callable[[Volume], bool]:
    """What a volume must be."""
    return volume_filter(engine, given, ("dangling", "driver", "label", "label!", "name"))
