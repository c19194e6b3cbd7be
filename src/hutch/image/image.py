"""What the store says of an image, and what the engine says of its users."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hutch.image import digest as digests
from hutch.image.manifest import Descriptor, History, ImageConfig, Manifest
from hutch.image.platform import Platform
from hutch.image.reference import Reference


@dataclass(frozen=True, slots=True)
class Use:
    """A container that stands on an image; the engine tells.

    Attributes:
        container_id: of the container.
        image_id: the image it was made from.
        chain_ids: the layers its root file system needs.
        running: whether it runs now.
    """

    container_id: str
    image_id: str
    chain_ids: tuple[str, ...] = ()
    running: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the store.

    Attributes:
        id: digest of the configuration.
        references: its names with a tag, sorted.
        digests: its names with a digest (RepoDigests), sorted.
        descriptor: of the manifest.
        chain_ids: of its layers, base first.
    """

    id: str
    references: tuple[Reference, ...]
    digests: tuple[Reference, ...]
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    chain_ids: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of its layers as they are stored (compressed) and of its configuration."""
        return self.manifest.config.size + sum(layer.size for layer in self.manifest.layers)

    @property
    def platform(self) -> Platform:
        """The platform it was made for."""
        return self.config.platform

    def history(self) -> list[tuple[History, Descriptor | None]]:
        """Return the steps it was made by, newest first, each with the layer it added, if any."""
        layers = iter(self.manifest.layers)
        steps = [(step, None if step.empty_layer else next(layers, None)) for step in self.config.history]
        return steps[::-1]


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal did.

    Attributes:
        untagged: names taken away, in their familiar form.
        deleted: image ids, and chain ids of layers, that are gone.
        freed: bytes of blobs.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    freed: int = 0


def image_of(descriptor: Descriptor, manifest: Manifest, config: ImageConfig, names: Iterable[Reference]) -> Image:
    """Put an image together from its parsed parts."""
    ordered = sorted(names, key=str)
    return Image(
        id=manifest.config.digest,
        references=tuple(name for name in ordered if name.tag is not None),
        digests=tuple(name for name in ordered if name.tag is None and name.digest is not None),
        descriptor=descriptor,
        manifest=manifest,
        config=config,
        chain_ids=digests.chain_ids(config.rootfs.diff_ids),
    )
