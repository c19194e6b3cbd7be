"""A new image of one more layer on top of another: `hutch commit`.

The layer arrives uncompressed and once. It is compressed and hashed on the way into a nameless file of the data root,
and enters the store from there, since a blob there is named by its digest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from hutch.image import digest as digests
from hutch.image import strictjson
from hutch.image.image import Image
from hutch.image.manifest import (
    LAYER_TYPES,
    MAX_CONFIG_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
)  # fmt: skip
from hutch.image.reference import Reference
from hutch.image.store import ImageStore
from hutch.image.unpack import unpack_layer

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

_CHUNK = 1 << 20
_GZIP_WINDOW = 16 + 15
_KEPT = ("architecture", "os", "os.version", "os.features", "variant")
_SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


@dataclass(frozen=True)
class Layer:
    """A layer in a nameless file.

    Attributes:
        fd: of the compressed blob.
        blob: what the manifest says of it.
        diff_id: digest of the uncompressed tar.
    """

    fd: int
    blob: Descriptor
    diff_id: str


@contextmanager
def compressed(store: ImageStore, read: Callable[[], bytes]) -> Iterator[Layer]:
    """Compress a layer as it comes.

    Args:
        store: on whose file system.
        read: returns the next bytes of the uncompressed tar, b"" at its end; what it raises is let through.
    """
    spool = f"{os.path.dirname(store.content.root)}/tmp"
    os.makedirs(spool, mode=0o700, exist_ok=True)
    fd = os.open(spool, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        plain, packed, size = sha256(), sha256(), 0
        compressor = _compressor()
        ended = False
        while not ended:
            chunk = read()
            plain.update(chunk)
            ended = not chunk
            data: bytes = compressor.flush() if ended else compressor.compress(chunk)
            packed.update(data)
            size += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        blob = Descriptor(media_type=f"{OCI_LAYER}+gzip", digest=f"sha256:{packed.hexdigest()}", size=size)
        yield Layer(fd, blob, f"sha256:{plain.hexdigest()}")
    finally:
        os.close(fd)


def settings_of(store: ImageStore, image: Image) -> dict[str, Any]:
    """What an image proposes for its containers, as plain data that may be changed."""
    return dict(_document(store, image).get("config") or {})


def commit(
    store: ImageStore,
    layers: Snapshotter,
    base: Image,
    layer: Layer,
    *,
    config: dict[str, Any],
    created_by: str = "",
    author: str = "",
    comment: str = "",
    reference: Reference | None = None,
) -> Image:
    """Enter a layer, and the image that it makes of another.

    Args:
        store: has `base`, kept from collection by the caller; gets the image.
        layers: gets the layer.
        base: what is below.
        layer: of `compressed`.
        config: the "config" object of the image configuration.
        created_by: for the history: what made the layer.
        author: for the history.
        comment: for the history.
        reference: name of the image, or None.

    Raises:
        InvalidConfig: the configuration does not hold together.
        OSError, Unavailable: the machine failed, or the disk is full; nothing of the image stays.
    """
    before = _document(store, base)
    created = _now()
    history = {"created": created, "created_by": created_by, "author": author, "comment": comment}
    document = {
        **{key: before[key] for key in _KEPT if key in before},
        "created": created,
        **({"author": author} if author else {}),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [*base.config.rootfs.diff_ids, layer.diff_id]},
        "history": [*(before.get("history") or []), {key: text for key, text in history.items() if text}],
    }
    data = msgspec.json.encode(document)
    described = Descriptor(media_type=OCI_CONFIG, digest=digests.of(data), size=len(data))
    blobs = [*map(_as_oci, base.manifest.layers), layer.blob]
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described,
            "layers": blobs,
        }
    )
    digest = digests.of(manifest)
    chain_id = digests.of(f"{base.chain_ids[-1]} {layer.diff_id}".encode()) if base.chain_ids else layer.diff_id
    content = store.content
    with store.bringing() as lease:
        lease.add([digest, described.digest, layer.blob.digest, chain_id])
        _store(store, layer)
        with content.claim(f"unpack-{chain_id.replace(':', '-')}"):
            unpack_layer(content, layer.blob, layer.diff_id, layers, chain_id, base.chain_ids)
        content.add(data, described.digest)
        content.add(manifest, digest)
        names = [reference.with_default_tag()] if reference else []
        entered = Descriptor(media_type=OCI_MANIFEST, digest=digest, size=len(manifest))
        return store.add(names, entered, action="create")


def _store(store: ImageStore, layer: Layer) -> None:
    with store.content.ingest(layer.blob.digest, layer.blob.size) as ingest:
        if ingest.present:
            return
        ingest.restart()
        os.lseek(layer.fd, 0, os.SEEK_SET)
        while chunk := os.read(layer.fd, _CHUNK):
            ingest.write(chunk)
        ingest.commit()


def _document(store: ImageStore, image: Image) -> dict[str, Any]:
    data = store.content.read(image.id, MAX_CONFIG_BYTES)
    found = strictjson.without_nulls(strictjson.loads(data, "image configuration", limit=MAX_CONFIG_BYTES))
    return dict(found)


def _as_oci(blob: Descriptor) -> Descriptor:
    """A layer of the base under OCI's name for what it is: one manifest does not mix two vocabularies."""
    media_type = OCI_LAYER + _SUFFIX[LAYER_TYPES[blob.media_type]]
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)


def _compressor() -> Any:
    """A gzip stream without a name or a time in it: the same layer gives the same blob."""
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    return isal_zlib.compressobj(2, isal_zlib.DEFLATED, _GZIP_WINDOW)


def _now() -> str:
    nanos = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(nanos // 10**9))}.{nanos % 10**9:09d}Z"
