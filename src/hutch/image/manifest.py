"""Manifests, indexes and image configurations: their shapes, and the strict readers of them.

Whatever comes from a registry, an archive or the store goes through `parse_manifest` and
`parse_config`. They accept OCI 1.x and Docker's schema 2 and refuse every document that two
readers could understand in two ways (CVE-2021-41190). Nothing here touches network or disk.

OCI image-spec manifest.md, image-index.md, config.md; Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hutch.errors import InvalidConfig, NotSupported
from hutch.image import digest as digests
from hutch.image import strictjson
from hutch.image.platform import Platform

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
SCHEMA1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
# Layer media type → how its tar is compressed.
LAYER_TYPES = {
    OCI_LAYER: "none",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "none",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
}
_FOREIGN = ("nondistributable", "foreign")

MAX_MANIFEST_BYTES = 4 << 20
MAX_CONFIG_BYTES = 4 << 20
MAX_LAYERS = 128
MAX_CHILDREN = 1000
MAX_INDEX_DEPTH = 4
_MAX_BLOB_BYTES = 1 << 40


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A promise about a blob: its type, digest and size in bytes. OCI image-spec descriptor.md."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    platform: Platform | None = None

    def __post_init__(self) -> None:
        if not digests.is_digest(self.digest):
            raise ValueError(f"digest {self.digest[:140]!r} is not sha256 or sha512 in lower case")
        if not 0 <= self.size <= _MAX_BLOB_BYTES:
            raise ValueError(f"size {self.size} of {self.digest} is out of range")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One image of one platform: a configuration and layers, base first."""

    schema_version: int
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Several manifests, mostly one per platform (Docker: a manifest list)."""

    schema_version: int
    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: dict[str, str] = {}


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How to see whether a container is well; times in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What an image proposes for its containers.

    These fields and no others are read from an image: nothing in it can name a security option,
    a host path or a namespace (CVE-2014-6408). All values are untrusted.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: dict[str, Any] = {}
    exposed_ports: dict[str, Any] = {}
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of the uncompressed layers, base first."""

    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class History(msgspec.Struct, frozen=True, kw_only=True):
    """How one layer, or one change of the configuration, came about."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration blob; its digest is the image id. OCI image-spec config.md."""

    architecture: str
    os: str
    rootfs: RootFS
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    created: str = ""
    author: str = ""
    config: RunConfig = RunConfig()
    history: tuple[History, ...] = ()

    @property
    def platform(self) -> Platform:
        """The platform the image was made for."""
        return Platform(
            os=self.os, architecture=self.architecture, variant=self.variant, os_version=self.os_version
        ).normalised()


def parse_manifest(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index.

    Args:
        data: untrusted; its digest was checked by the caller.
        media_type: what the descriptor or the Content-Type header promised; None when nothing did.

    Raises:
        InvalidConfig: not JSON, wrong shape, or in contradiction with `media_type` or itself.
        NotSupported: schema 1, foreign layers, or an artifact that is no image.
    """
    document = strictjson.loads(data, "manifest", limit=MAX_MANIFEST_BYTES)
    if not isinstance(document, dict):
        raise InvalidConfig("manifest: not a JSON object")
    if media_type in SCHEMA1_TYPES or document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise NotSupported(
            "manifest: image manifest schema 1 is not supported", hint="push the image again with a current tool"
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidConfig("manifest: both a manifest and an index")
    stated = document.get("mediaType")
    if stated is not None and media_type is not None and stated != media_type:
        raise InvalidConfig(f"manifest: says it is {str(stated)[:100]!r}, was promised as {media_type[:100]!r}")
    is_index = "manifests" in document
    effective = stated or media_type or (OCI_INDEX if is_index else OCI_MANIFEST)
    if effective not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        raise InvalidConfig(f"manifest: {str(effective)[:100]!r} does not describe {'an index' if is_index else 'it'}")
    document["mediaType"] = effective
    document = strictjson.without_nulls(document)
    parsed: Manifest | Index = _convert(document, Index if is_index else Manifest, "manifest")
    if parsed.schema_version != 2:
        raise InvalidConfig(f"manifest: schema version {parsed.schema_version}, not 2")
    if isinstance(parsed, Index):
        if len(parsed.manifests) > MAX_CHILDREN:
            raise InvalidConfig(f"index: {len(parsed.manifests)} manifests, more than {MAX_CHILDREN}")
        return parsed
    _check_image(parsed)
    return parsed


def parse_config(data: bytes) -> ImageConfig:
    """Read an image configuration; fields outside the allow-list of `RunConfig` are not looked at.

    Raises:
        InvalidConfig: not JSON, or a field of the wrong type.
    """
    document = strictjson.without_nulls(strictjson.loads(data, "image config", limit=MAX_CONFIG_BYTES))
    run = document.get("config") if isinstance(document, dict) else None
    if isinstance(run, dict):
        for key in ("Entrypoint", "Cmd", "Shell"):  # Docker 1.x wrote one word as a string
            if isinstance(run.get(key), str):
                run[key] = [run[key]]
    config: ImageConfig = _convert(document, ImageConfig, "image config")
    if config.rootfs.type != "layers":
        raise InvalidConfig(f"image config: rootfs type {config.rootfs.type[:32]!r}, not 'layers'")
    for diff_id in config.rootfs.diff_ids:
        if not digests.is_digest(diff_id):
            raise InvalidConfig(f"image config: diff id {diff_id[:140]!r} is not a digest")
    return config


def check_layers(manifest: Manifest, config: ImageConfig) -> None:
    """Refuse a configuration that speaks of another number of layers than the manifest.

    Raises:
        InvalidConfig: the counts differ.
    """
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise InvalidConfig(
            f"image config: {len(config.rootfs.diff_ids)} diff ids for {len(manifest.layers)} layers of the manifest"
        )


def _check_image(manifest: Manifest) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise NotSupported(f"manifest: {manifest.config.media_type[:100]!r} is not the configuration of an image")
    if manifest.config.size > MAX_CONFIG_BYTES:
        raise InvalidConfig(f"manifest: config of {manifest.config.size} bytes, more than {MAX_CONFIG_BYTES}")
    if len(manifest.layers) > MAX_LAYERS:
        raise InvalidConfig(f"manifest: {len(manifest.layers)} layers, more than {MAX_LAYERS}")
    for layer in manifest.layers:
        if layer.media_type in LAYER_TYPES:
            continue
        if any(word in layer.media_type for word in _FOREIGN):
            raise NotSupported(f"layer {layer.digest}: foreign layers, kept outside the registry, are not supported")
        raise NotSupported(f"layer {layer.digest}: media type {layer.media_type[:100]!r} is not supported")


def _convert(document: Any, shape: type[Any], what: str) -> Any:
    try:
        return msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{what}: {str(error)[:300].lower()}") from None
