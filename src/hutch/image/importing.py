"""`hutch import`: a root file system in a tar becomes an image of one layer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from hutch.errors import InvalidArgument, Unavailable
from hutch.image import decompress
from hutch.image import digest as digests
from hutch.image import platform as platforms
from hutch.image.changes import apply_changes
from hutch.image.image import Image
from hutch.image.limits import Limits, Meter
from hutch.image.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from hutch.image.platform import Platform
from hutch.image.reference import Reference
from hutch.image.store import ImageStore
from hutch.image.unpack import unpack_layer

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

_CHUNK = 1 << 20
_REDIRECTS_MAX = 5
_TIMEOUT_S = 60.0


def import_(
    source: str | int,
    reference: Reference | None,
    *,
    store: ImageStore,
    layers: Snapshotter,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    limits: Limits | None = None,
) -> Image:
    """Make an image of a root file system.

    Args:
        source: path of a tar, an http or https URL, or descriptor of a stream; compressed by gzip, zstd, bzip2, xz or
            not at all; untrusted content.
        reference: its name, or None.
        store: gets the image.
        layers: gets its layer.
        changes: Dockerfile instructions; see `hutch.image.changes`.
        message: comment for the history.
        platform: what it is for; this host's if None.
        limits: against bombs.

    Raises:
        InvalidLayer: not a tar, hostile, or over a limit.
        InvalidArgument: `source` or a change is not right.
        Unavailable: the URL cannot be fetched.
    """
    limits = limits or Limits()
    config: dict[str, Any] = {}
    apply_changes(config, list(changes))  # before the long part
    with _opened(source) as (read, origin), _spooled(store, read, limits) as (spool_fd, blob):
        diff_id = _diff_id(spool_fd, limits)
        wanted = (platform or platforms.host()).normalised()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        history = {"created": created, "comment": message or f"Imported from {origin}"}
        document = {
            "created": created,
            "architecture": wanted.architecture,
            "os": wanted.os,
            **({"variant": wanted.variant} if wanted.variant else {}),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [history],
        }
        return _enter(store, layers, reference, spool_fd, blob, diff_id, msgspec.json.encode(document), limits)


def _enter(
    store: ImageStore,
    layers: Snapshotter,
    reference: Reference | None,
    spool_fd: int,
    blob: Descriptor,
    diff_id: str,
    config: bytes,
    limits: Limits,
) -> Image:
    content = store.content
    described = Descriptor(media_type=OCI_CONFIG, digest=digests.of(config), size=len(config))
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": described.digest, "size": described.size},
            "layers": [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}],
        }
    )
    digest = digests.of(manifest)
    with store.bringing() as lease:
        lease.add([digest, described.digest, blob.digest, diff_id])
        with content.ingest(blob.digest, blob.size) as ingest:
            if not ingest.present:
                ingest.restart()
                os.lseek(spool_fd, 0, os.SEEK_SET)
                while chunk := os.read(spool_fd, _CHUNK):
                    ingest.write(chunk)
                ingest.commit()
        with content.claim(f"unpack-{diff_id.replace(':', '-')}"):
            unpack_layer(content, blob, diff_id, layers, diff_id, (), limits=limits)
        content.add(config, described.digest)
        content.add(manifest, digest)
        names = [reference.with_default_tag()] if reference else []
        entered = Descriptor(media_type=OCI_MANIFEST, digest=digest, size=len(manifest))
        return store.add(names, entered, action="import")


def _diff_id(spool_fd: int, limits: Limits) -> str:
    os.lseek(spool_fd, 0, os.SEEK_SET)
    hasher = digests.hasher("sha256:" + "0" * 64)
    read = decompress.reader(spool_fd, "auto", limits, Meter(limits))
    while chunk := read():
        hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}"


@contextmanager
def _spooled(store: ImageStore, read: Callable[[], bytes], limits: Limits) -> Iterator[tuple[int, Descriptor]]:
    """Keep the stream in a nameless file, in a compression that layers may have."""
    spool = f"{os.path.dirname(store.content.root)}/tmp"
    os.makedirs(spool, mode=0o700, exist_ok=True)
    spool_fd = os.open(spool, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _copy(read, spool_fd, limits)
        os.lseek(spool_fd, 0, os.SEEK_SET)
        compression = decompress.guess(os.read(spool_fd, 16))
        if compression in ("bzip2", "xz"):  # no media type for these: stored uncompressed
            os.lseek(spool_fd, 0, os.SEEK_SET)
            plain_fd = os.open(spool, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            _copy(decompress.reader(spool_fd, compression, limits, Meter(limits)), plain_fd, limits)
            os.close(spool_fd)
            spool_fd, compression = plain_fd, "none"
        os.lseek(spool_fd, 0, os.SEEK_SET)
        hasher = digests.hasher("sha256:" + "0" * 64)
        while chunk := os.read(spool_fd, _CHUNK):
            hasher.update(chunk)
        media_type = OCI_LAYER if compression == "none" else f"{OCI_LAYER}+{compression}"
        digest = f"sha256:{hasher.hexdigest()}"
        yield spool_fd, Descriptor(media_type=media_type, digest=digest, size=os.fstat(spool_fd).st_size)
    finally:
        os.close(spool_fd)


def _copy(read: Callable[[], bytes], target_fd: int, limits: Limits) -> None:
    size = 0
    while chunk := read():
        size += len(chunk)
        if size > limits.bytes_max:
            raise InvalidArgument(f"import: more than {limits.bytes_max} bytes")
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(target_fd, rest) :]


@contextmanager
def _opened(source: str | int) -> Iterator[tuple[Callable[[], bytes], str]]:
    """A function that reads the source, and how to call it in the history."""
    if isinstance(source, int):
        yield (lambda: os.read(source, _CHUNK)), "-"
    elif source.startswith(("http://", "https://")):
        with _fetched(source) as read:
            yield read, source.partition("?")[0]
    else:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise InvalidArgument(f"import: {source}: {(problem.strerror or '').lower()}") from None
        try:
            yield (lambda: os.read(fd, _CHUNK)), os.path.basename(source)
        except IsADirectoryError:
            raise InvalidArgument(f"import: {source}: is a directory") from None
        finally:
            os.close(fd)


@contextmanager
def _fetched(url: str) -> Iterator[Callable[[], bytes]]:
    import urllib3

    timeout = urllib3.Timeout(connect=_TIMEOUT_S, read=_TIMEOUT_S)
    retries = urllib3.Retry(total=_REDIRECTS_MAX, redirect=_REDIRECTS_MAX, raise_on_redirect=True)
    with urllib3.PoolManager(timeout=timeout, retries=retries) as pool:
        try:
            response = pool.request("GET", url, preload_content=False, decode_content=False)
        except urllib3.exceptions.HTTPError as problem:
            raise Unavailable(f"import: {url[:200]}: {problem}") from None
        try:
            if response.status != 200:
                raise Unavailable(f"import: {url[:200]}: the server answered {response.status}")

            def read() -> bytes:
                try:
                    return response.read(_CHUNK)
                except urllib3.exceptions.HTTPError as problem:
                    raise Unavailable(f"import: {url[:200]}: {problem}") from None

            yield read
        finally:
            response.close()
