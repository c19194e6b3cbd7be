"""`engine.images`: images, and what can be done to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hutch.engine.engine import Engine
from hutch.image import archive, progress
from hutch.image import platform as platforms
from hutch.image.image import Image as StoredImage
from hutch.image.image import Removal
from hutch.image.pull import pull
from hutch.image.reference import Reference
from hutch.library.cancelling import Cancelled, current
from hutch.library.filtering import flat, image_matcher
from hutch.library.spooling import reading, written
from hutch.library.streams import warn

Told = Callable[[dict[str, Any]], object]
Filters = Mapping[str, Any]
Removed = list[dict[str, str]]


class Image:
    """An image as it was when it was found.

    Attributes:
        id: digest of its configuration.
        tags: its names.
        labels: key → value.
        attrs: id, names, digests, size, platform, configuration, layers, as `docker inspect` has them.
    """

    def __init__(self, engine: Engine, found: StoredImage) -> None:
        self._engine, self._found = engine, found

    def __repr__(self) -> str:
        return f"<Image {', '.join(self.tags) or self.id[:19]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """Digest of its configuration."""
        return self._found.id

    @property
    def short_id(self) -> str:
        """The algorithm and the first ten digits."""
        algorithm, _, digits = self.id.partition(":")
        return f"{algorithm}:{digits[:10]}"

    @property
    def tags(self) -> list[str]:
        """Its names."""
        return [name.familiar() for name in self._found.references]

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._found.config.config.labels)

    @property
    def attrs(self) -> dict[str, Any]:
        """What is known of it, as Docker names it."""
        found = self._found
        return {
            "Id": found.id,
            "RepoTags": self.tags,
            "RepoDigests": [str(one) for one in found.digests],
            "Created": found.config.created,
            "Architecture": found.platform.architecture,
            "Os": found.platform.os,
            "Size": found.size,
            "RootFS": {"Type": "layers", "Layers": list(found.chain_ids)},
        }

    def tag(self, name: str, tag: str = "") -> bool:
        """Give it one more name."""
        text = f"{name}:{tag}" if tag else name
        self._engine.images.tag(self.id, Reference.parse(text, default_domain=self._engine.registries.default))
        return True

    def save(self, target: str | os.PathLike[str] | None = None) -> Iterator[bytes]:
        """It as an archive that `docker load` takes: written to a file, or in chunks."""
        return _saved(self._engine, [*self.tags] or [self.id], target, "docker-archive")

    def remove(self, *, force: bool = False) -> Removed:
        """Remove it with all its names."""
        return _removal(self._engine.images.remove(self.id, force=force))


class Images:
    """The images of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pull(
        self, repository: str, tag: str | None = None, *, platform: str | None = None, progress: Told | None = None
    ) -> Image:
        """Bring an image from a registry.

        Args:
            repository: a reference.
            tag: if the reference has none; ``latest`` without.
            platform: ``os/architecture[/variant]`` instead of this machine's.
            progress: called with ``{"status", "id", "current", "total"}`` of each layer, from several threads.

        Raises:
            ImageNotFound: there is none.
            HutchError: see `hutch.image.pull.pull`.
        """
        engine = self._engine
        engine.prepare_directories()
        text = f"{repository}:{tag}" if tag else repository
        found = pull(
            Reference.parse(text, default_domain=engine.registries.default),
            store=engine.images,
            layers=engine.snapshots,
            registries=engine.registries,
            platform=_platform(platform),
            progress=Teller(progress),
        )
        return Image(engine, found)

    def get(self, name: str) -> Image:
        """An image by name, id or an unambiguous beginning of an id.

        Raises:
            ImageNotFound: there is none.
        """
        return Image(self._engine, self._engine.images.get(name))

    def list(self, name: str | None = None, *, filters: Filters | None = None) -> list[Image]:
        """Images.

        Args:
            name: a pattern for their names.
            filters: Docker's: ``before``, ``dangling``, ``label``, ``reference``, ``since``, ``until``.
        """
        matches = image_matcher(self._engine, flat(filters), pattern=name or "")
        return [Image(self._engine, found) for found in self._engine.images.images() if matches(found)]

    def load(
        self, data: bytes | Iterable[bytes] | str | os.PathLike[str], *, platform: str | None = None
    ) -> Sequence[Image]:
        """Load the images of an archive.

        Args:
            data: bytes or chunks of it, or the path of a file or an OCI directory.
            platform: which to take where there are several.

        Raises:
            InvalidLayer, InvalidConfig, DigestMismatch: it is not what it says it is.
        """
        engine = self._engine
        engine.prepare_directories()
        with reading(data) as source:
            found = archive.load(
                source, store=engine.images, layers=engine.snapshots, platform=_platform(platform), told=Teller(None)
            )
        return [Image(engine, one.image) for one in found]

    def save(
        self,
        names: str | Sequence[str],
        target: str | os.PathLike[str] | None = None,
        *,
        kind: str = "docker-archive",
    ) -> Iterator[bytes]:
        """Images as one archive.

        Args:
            names: names or ids.
            target: file to write; None returns the archive in chunks.
            kind: docker-archive, oci-archive, or with a target oci-dir.

        Raises:
            ImageNotFound: one is not here.
        """
        return _saved(self._engine, [names] if isinstance(names, str) else list(names), target, kind)

    def import_(
        self,
        data: bytes | Iterable[bytes] | str | os.PathLike[str],
        repository: str | None = None,
        tag: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Make an image of a root file system.

        Args:
            data: bytes or chunks of a tar, or the path of one, compressed or not.
            repository: name of the image; None for none.
            tag: of that name.
            changes: Dockerfile instructions.
            message: for the history.
            platform: what it is for.
        """
        engine = self._engine
        engine.prepare_directories()
        reference = None
        if repository:
            text = f"{repository}:{tag}" if tag else repository
            reference = Reference.parse(text, default_domain=engine.registries.default).with_default_tag()
        with reading(data) as source:
            found = archive.import_(
                source,
                reference,
                store=engine.images,
                layers=engine.snapshots,
                changes=changes,
                message=message,
                platform=_platform(platform),
            )
        return Image(engine, found)

    def tag(self, name: str, repository: str, tag: str = "") -> None:
        """Give an image one more name.

        Raises:
            ImageNotFound: there is none.
        """
        self.get(name).tag(repository, tag)

    def remove(self, name: str, *, force: bool = False) -> Removed:
        """Take a name away, and with the last one the image.

        Args:
            name: a name; or an id, which stands for all of the image's names.
            force: even if stopped containers use it.

        Returns:
            ``Untagged`` and ``Deleted``, one each.

        Raises:
            ImageNotFound: there is none.
            Conflict: a container uses it.
        """
        return _removal(self._engine.images.remove(name, force=force))

    def prune(self, *, filters: Filters | None = None) -> dict[str, Any]:
        """Remove images that have no name, or with ``{"dangling": False}`` all that no container uses.

        Returns:
            ``ImagesDeleted`` and ``SpaceReclaimed``, bytes.
        """
        given = dict(filters or {})
        everything = str(given.pop("dangling", True)).lower() in ("false", "0")
        matches = image_matcher(self._engine, flat(given))
        removal = self._engine.images.prune(everything=everything, matches=matches)
        return {"ImagesDeleted": _removal(removal), "SpaceReclaimed": removal.freed}


class Teller(progress.Progress):
    """Tells a caller's function; warnings are Python's."""

    def __init__(self, told: Told | None) -> None:
        self._told = told
        self._scope = current.get()  # calls come from other threads

    def layer(self, digest: str, phase: str, done: int, total: int) -> None:
        """A layer's phase."""
        if self._scope is not None and self._scope.cancelled:
            raise Cancelled("cancelled")
        if self._told is not None:
            self._told({"status": phase, "id": digest, "current": done, "total": total})

    def warning(self, text: str) -> None:
        """What stops nothing."""
        warn(text)


def _platform(text: str | None) -> platforms.Platform | None:
    return platforms.parse(text) if text else None


def _removal(removal: Removal) -> Removed:
    untagged = [{"Untagged": str(name)} for name in removal.untagged]
    return untagged + [{"Deleted": str(one)} for one in removal.deleted]


def _saved(engine: Engine, names: list[str], target: str | os.PathLike[str] | None, kind: str) -> Iterator[bytes]:
    if target is not None:
        archive.save(names, os.fspath(target), store=engine.images, kind=kind)
        return iter(())
    for name in names:
        engine.images.get(name)  # a missing one is told now, not in the middle
    return written(lambda fd: archive.save(names, fd, store=engine.images, kind=kind))
