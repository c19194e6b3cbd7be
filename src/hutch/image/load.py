"""`hutch load`: images of a docker-archive, an OCI archive or an OCI directory, into the store.

An archive that is both (docker has written such since version 25) is read as the OCI layout it is, which keeps the
manifests' digests; names come from either. OCI image-spec image-layout.md; Docker image specification v1.2, "Combined
Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from hutch.errors import InvalidConfig, InvalidLayer, InvalidReference
from hutch.image import decompress, progress, strictjson
from hutch.image import digest as digests
from hutch.image import platform as platforms
from hutch.image.diffid import verify_diff_id
from hutch.image.image import Image
from hutch.image.limits import Limits
from hutch.image.manifest import (
    INDEX_TYPES,
    MAX_CONFIG_BYTES,
    MAX_INDEX_DEPTH,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    check_layers,
    parse_config,
    parse_manifest,
)
from hutch.image.members import Members, members_of, read_member
from hutch.image.platform import Platform
from hutch.image.reference import Reference
from hutch.image.store import ImageStore
from hutch.image.unpack import unpack_layer

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_IMAGES_MAX = 1000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """One image of an archive.

    Attributes:
        image: as the store has it now.
        names: those it had in the archive.
    """

    image: Image
    names: tuple[Reference, ...]


@dataclass
class _Found:
    """An image in an archive: its manifest, and where its blobs are."""

    manifest: bytes
    parsed: Manifest
    names: list[Reference] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # digest → member


def load(
    source: str | int,
    *,
    store: ImageStore,
    layers: Snapshotter,
    platform: Platform | None = None,
    told: progress.Progress | None = None,
    limits: Limits | None = None,
) -> list[Loaded]:
    """Load every image of an archive.

    Args:
        source: path of a file or directory, or descriptor of a stream; untrusted content.
        store: gets the images.
        layers: gets the unpacked layers.
        platform: which to take where there are several; this host's if None.
        told: is told how it goes.
        limits: of the archive, and of each layer.

    Raises:
        InvalidLayer, InvalidConfig, DigestMismatch: the archive is not what it says it is. Images before the broken one
            stay; of that one nothing does.
        NotSupported: it has something hutch does not know.
    """
    spool = f"{os.path.dirname(store.content.root)}/tmp"
    with members_of(source, spool, limits) as members:
        loader = _Loader(members, store, layers, platform or platforms.host(), told or progress.Progress(), limits)
        found = loader.images()
        if not found:
            raise InvalidConfig("archive: no image in it")
        return [loader.take(one) for one in found]


@dataclass
class _Loader:
    members: Members
    store: ImageStore
    layers: Snapshotter
    wanted: Platform
    told: progress.Progress
    limits: Limits | None

    def images(self) -> list[_Found]:
        """What the archive holds."""
        if self.members.has("oci-layout"):
            found = self._layout()
            if self.members.has("manifest.json"):
                self._add_names(found)
            return found
        if self.members.has("manifest.json"):
            return [self._docker_image(entry) for entry in self._docker_list()]
        raise InvalidConfig(
            "archive: neither index.json nor manifest.json in it", hint="a root file system? use import"
        )

    def take(self, found: _Found) -> Loaded:
        """Put one image into the store."""
        content = self.store.content
        manifest = found.parsed
        digest = digests.of(found.manifest)
        with self.store.bringing() as lease:
            lease.add([digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)])
            content.add(found.manifest, digest)
            for blob in (manifest.config, *manifest.layers):
                self._ingest(blob, found.files.get(blob.digest) or _blob_name(blob.digest))
            config = parse_config(content.read(manifest.config.digest, MAX_CONFIG_BYTES))
            check_layers(manifest, config)
            chain = digests.chain_ids(config.rootfs.diff_ids)
            lease.add(chain)
            for position, blob in enumerate(manifest.layers):
                self._unpack(blob, config.rootfs.diff_ids[position], chain, position)
            descriptor = Descriptor(media_type=manifest.media_type, digest=digest, size=len(found.manifest))
            image = self.store.add(found.names, descriptor, action="load")
        return Loaded(image, tuple(found.names))

    def _ingest(self, blob: Descriptor, name: str) -> None:
        with self.store.content.ingest(blob.digest, blob.size) as ingest:
            if ingest.present:
                return
            member_fd = self.members.open(name, follow=True)
            try:
                ingest.restart()
                while chunk := os.read(member_fd, _CHUNK):
                    ingest.write(chunk)
            except BaseException:
                ingest.discard()
                raise
            finally:
                os.close(member_fd)
            ingest.commit()

    def _unpack(self, blob: Descriptor, diff_id: str, chain: Sequence[str], position: int) -> None:
        chain_id = chain[position]
        with self.store.content.claim(f"unpack-{chain_id.replace(':', '-')}"):
            self.told.layer(blob.digest, progress.EXTRACTING, 0, blob.size)
            done = unpack_layer(
                self.store.content, blob, diff_id, self.layers, chain_id, chain[:position], limits=self.limits
            )
            if done is None:  # there before: this blob must be that layer, not just say so (CVE-2026-93318)
                verify_diff_id(self.store.content, blob.digest, diff_id)
            self.told.layer(blob.digest, progress.EXISTS if done is None else progress.COMPLETE, blob.size, blob.size)

    # OCI layout

    def _layout(self) -> list[_Found]:
        layout = strictjson.loads(read_member(self.members, "oci-layout", 4096), "oci-layout", limit=4096)
        if not isinstance(layout, dict) or layout.get("imageLayoutVersion") != "1.0.0":
            raise InvalidConfig("oci-layout: version is not 1.0.0")
        index = parse_manifest(read_member(self.members, "index.json", MAX_MANIFEST_BYTES), OCI_INDEX)
        if not isinstance(index, Index):
            raise InvalidConfig("index.json: not an index")
        groups: dict[str, list[Descriptor]] = {}
        for number, child in enumerate(index.manifests[:_IMAGES_MAX]):
            name = next((child.annotations[key] for key in _NAME_ANNOTATIONS if key in child.annotations), "")
            groups.setdefault(name or f"\0{number}", []).append(child)
        found: dict[str, _Found] = {}
        for name, children in groups.items():
            one = self._choose(children, 1)
            if one is None:
                continue
            one = found.setdefault(digests.of(one.manifest), one)
            one.names += _reference_of(name)
        if not found and index.manifests:
            raise InvalidConfig(f"archive: no image for platform {self.wanted} in it")
        return list(found.values())

    def _choose(self, children: Sequence[Descriptor], depth: int) -> _Found | None:
        """The image for our platform among manifests and indexes."""
        if depth > MAX_INDEX_DEPTH:
            raise InvalidConfig(f"index: nested deeper than {MAX_INDEX_DEPTH} levels")
        rest = list(children)
        while rest:
            position = 0
            if len(rest) > 1 or rest[0].platform is not None:
                chosen = platforms.choose(self.wanted, [child.platform for child in rest])
                if chosen is None:
                    return None
                position = chosen
            child = rest.pop(position)
            name = _blob_name(child.digest)
            if not self.members.has(name) and rest:
                continue  # an index may name more platforms than were saved
            data = read_member(self.members, name, MAX_MANIFEST_BYTES)
            if digests.of(data, child.digest.partition(":")[0]) != child.digest or len(data) != child.size:
                raise InvalidConfig(f"archive: {name} is not what its name says")
            parsed = parse_manifest(data, child.media_type)
            if isinstance(parsed, Manifest):
                return _Found(data, parsed)
            if child.media_type in INDEX_TYPES:
                return self._choose(parsed.manifests, depth + 1)
        return None

    # docker-archive

    def _docker_list(self) -> list[dict[str, Any]]:
        data = read_member(self.members, "manifest.json", MAX_MANIFEST_BYTES)
        document = strictjson.loads(data, "manifest.json", limit=MAX_MANIFEST_BYTES)
        if not isinstance(document, list) or len(document) > _IMAGES_MAX:
            raise InvalidConfig("manifest.json: not a list of images")
        for entry in document:
            if (
                not isinstance(entry, dict)
                or not isinstance(entry.get("Config"), str)
                or not _is_strings(entry.get("Layers") or [])
                or not _is_strings(entry.get("RepoTags") or [])
                or len(entry.get("Layers") or []) > MAX_LAYERS
            ):
                raise InvalidConfig("manifest.json: an image without Config, Layers or RepoTags as they must be")
        return document

    def _docker_image(self, entry: dict[str, Any]) -> _Found:
        """Describe one image of manifest.json by a manifest of our own, which an archive of this kind lacks."""
        files: dict[str, str] = {}
        config = self._describe(entry["Config"], OCI_CONFIG, files)
        blobs = [self._describe(name, "", files) for name in entry.get("Layers") or []]
        manifest = Manifest(schema_version=2, config=config, layers=tuple(blobs))
        data = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _plain(config),
                "layers": [_plain(blob) for blob in blobs],
            }
        )
        names = [Reference.parse(tag).with_default_tag() for tag in entry.get("RepoTags") or []]
        return _Found(data, manifest, names, files)

    def _describe(self, name: str, media_type: str, files: dict[str, str]) -> Descriptor:
        name = name.removeprefix("./")
        member_fd = self.members.open(name, follow=True)
        try:
            hasher = digests.hasher("sha256:" + "0" * 64)
            size, head = 0, b""
            while chunk := os.read(member_fd, _CHUNK):
                head = head or chunk[:16]
                hasher.update(chunk)
                size += len(chunk)
        finally:
            os.close(member_fd)
        digest = f"sha256:{hasher.hexdigest()}"
        files[digest] = name
        if not media_type:
            compression = decompress.guess(head)
            if compression not in ("none", "gzip", "zstd"):
                raise InvalidLayer(f"archive: layer {digest} is compressed with {compression}")
            media_type = OCI_LAYER if compression == "none" else f"{OCI_LAYER}+{compression}"
        return Descriptor(media_type=media_type, digest=digest, size=size)

    def _add_names(self, found: list[_Found]) -> None:
        """Names that only manifest.json has."""
        by_config = {_blob_name(one.parsed.config.digest): one for one in found}
        for entry in self._docker_list():
            one = by_config.get(entry["Config"])
            if one is not None:
                tags = [Reference.parse(tag).with_default_tag() for tag in entry.get("RepoTags") or []]
                one.names += [tag for tag in tags if tag not in one.names]


def _blob_name(digest: str) -> str:
    return "blobs/" + "/".join(digests.split(digest))


def _reference_of(name: str) -> list[Reference]:
    """The image name that an annotation gives; a bare tag ("latest") names nothing, nor does what is no name."""
    if "/" not in name and ":" not in name:
        return []
    with suppress(InvalidReference):
        return [Reference.parse(name).with_default_tag()]
    return []


def _plain(blob: Descriptor) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
