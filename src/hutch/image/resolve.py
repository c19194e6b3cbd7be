"""From a name to one manifest: which host serves it, and which child of an index is for this platform."""

from __future__ import annotations

from dataclasses import dataclass

from hutch.errors import DigestMismatch, ImageNotFound, InvalidConfig
from hutch.image import platform as platforms
from hutch.image.manifest import (
    INDEX_TYPES,
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from hutch.image.platform import Platform
from hutch.image.registry import Fetched, Repository

_MAX_FETCHES = 16


@dataclass(frozen=True, slots=True)
class Resolved:
    """One manifest, and how it was reached.

    Attributes:
        descriptor: of the manifest.
        data: the manifest's own bytes.
        manifest: parsed.
        served: what the registry gave for the name: the manifest itself, or an index.
    """

    descriptor: Descriptor
    data: bytes
    manifest: Manifest
    served: Fetched

    @property
    def from_index(self) -> bool:
        """Whether the manifest was chosen from an index."""
        return self.served.digest != self.descriptor.digest


def resolve(repository: Repository, tag_or_digest: str, wanted: Platform) -> Resolved:
    """Fetch what a repository calls `tag_or_digest` and choose from it for a platform.

    Raises:
        ImageNotFound: no such name, or nothing for this platform.
        InvalidConfig: an index that is too deep or leads in a circle, and what `parse_manifest` refuses.
        DigestMismatch, Unauthorized, RegistryUnavailable: as `Repository.manifest`.
    """
    served = repository.manifest(tag_or_digest)
    parsed = parse_manifest(served.data, served.media_type)
    if isinstance(parsed, Manifest):
        return _resolved(parsed, served.data, served.digest, served)
    walk = _Walk(repository, served, wanted)
    found = walk.search(parsed, depth=1)
    if found is None:
        offered = ", ".join(sorted(walk.offered)) or "none that names its platform"
        raise ImageNotFound(
            f"image {repository.host}/{repository.path}: no manifest for platform {wanted}", hint=f"it has {offered}"
        )
    return found


class _Walk:
    """A bounded search through an index and the indexes in it."""

    def __init__(self, repository: Repository, served: Fetched, wanted: Platform) -> None:
        self.offered: set[str] = set()
        self._repository = repository
        self._served = served
        self._wanted = wanted
        self._visited = {served.digest}

    def search(self, index: Index, depth: int) -> Resolved | None:
        if depth > MAX_INDEX_DEPTH:
            raise InvalidConfig(f"index {self._served.digest}: nested deeper than {MAX_INDEX_DEPTH} levels")
        children = index.manifests
        self.offered |= {str(child.platform) for child in children if _is_named(child)}
        best = platforms.choose(self._wanted, [child.platform for child in children])
        if best is not None:
            return self._enter(children[best], depth)
        unnamed = [child for child in children if child.platform is None]
        if len(children) == 1 and unnamed:
            return self._enter(unnamed[0], depth)
        for child in unnamed:
            if child.media_type in INDEX_TYPES and (found := self._enter(child, depth)) is not None:
                return found
        return None

    def _enter(self, child: Descriptor, depth: int) -> Resolved | None:
        if child.digest in self._visited:
            raise InvalidConfig(f"index {self._served.digest}: leads in a circle by {child.digest}")
        if len(self._visited) > _MAX_FETCHES:
            raise InvalidConfig(f"index {self._served.digest}: more than {_MAX_FETCHES} indexes in it")
        if child.size > MAX_MANIFEST_BYTES:
            raise InvalidConfig(f"manifest {child.digest}: larger than {MAX_MANIFEST_BYTES} bytes")
        self._visited.add(child.digest)
        fetched = self._repository.manifest(child.digest)
        if len(fetched.data) != child.size:
            raise DigestMismatch(
                f"manifest {child.digest}", wanted=f"{child.size} bytes", got=f"{len(fetched.data)} bytes"
            )
        if fetched.media_type not in {None, child.media_type}:
            raise InvalidConfig(
                f"manifest {child.digest}: served as {fetched.media_type}, promised as {child.media_type[:100]!r}"
            )
        parsed = parse_manifest(fetched.data, child.media_type)
        if isinstance(parsed, Index):
            return self.search(parsed, depth + 1)
        return _resolved(parsed, fetched.data, fetched.digest, self._served)


def _is_named(child: Descriptor) -> bool:
    return child.platform is not None and child.platform.os != "unknown"


def _resolved(manifest: Manifest, data: bytes, digest: str, served: Fetched) -> Resolved:
    descriptor = Descriptor(media_type=manifest.media_type, digest=digest, size=len(data))
    return Resolved(descriptor, data, manifest, served)
