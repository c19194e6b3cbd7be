"""`hutch save`: images into one archive that docker, podman, skopeo and hutch load.

A docker-archive is an OCI layout with docker's manifest.json beside, as docker has written it since version 25; blobs
are stored once, as they are in the store (zstd layers a second time, uncompressed, for old versions of docker). What
is written is the same for the same images: no times, no owners.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from hutch.errors import AlreadyExists, DigestMismatch, InvalidArgument
from hutch.image import decompress
from hutch.image import digest as digests
from hutch.image.content import ContentStore
from hutch.image.image import Image
from hutch.image.limits import Limits, Meter
from hutch.image.manifest import OCI_INDEX, Descriptor
from hutch.image.reference import Reference
from hutch.image.store import ImageStore

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_BLOCK = 512
_COUNT_MAX = 1 << 30


@dataclass(frozen=True)
class _Chosen:
    image: Image
    names: tuple[Reference, ...]


class _Target(Protocol):
    def directory(self, name: str) -> None: ...
    def data(self, name: str, data: bytes) -> None: ...
    def blob(self, name: str, blob_fd: int, size: int) -> None: ...


def save(texts: Sequence[str], target: str | int, *, store: ImageStore, kind: str = "docker-archive") -> None:
    """Write images to an archive.

    Args:
        texts: names, or ids (saved without a name); a name without a tag means its `latest`.
        target: path of the file (replaced when it is whole) or of the directory (must be empty or missing), or the
            descriptor of a stream that is no terminal.
        store: has the images.
        kind: one of FORMATS.

    Raises:
        ImageNotFound: one of them is not here; nothing is written.
        InvalidArgument: a terminal, or an unknown kind.
        AlreadyExists: the directory is not empty.
    """
    if kind not in FORMATS:
        raise InvalidArgument(f"format {kind[:50]!r}: not one of {', '.join(FORMATS)}")
    if not texts:
        raise InvalidArgument("save: no image is named")
    if isinstance(target, int):
        if os.isatty(target):
            raise InvalidArgument("save: refusing to write an archive to a terminal", hint="use -o FILE or redirect")
        if kind == "oci-dir":
            raise InvalidArgument("save: a directory cannot go to standard output", hint="use -o DIRECTORY")
    with store.lease() as lease:
        chosen = _choose(texts, store)
        for one in chosen:
            lease.add(
                [one.image.descriptor.digest, one.image.id, *(layer.digest for layer in one.image.manifest.layers)]
            )
        chosen = _choose(texts, store)  # again: one may have gone before it was claimed
        with _opened(target, kind) as place:
            _write(place, chosen, store.content, docker=kind == "docker-archive")
    for one in chosen:
        store.happened("save", one.image)


def _choose(texts: Sequence[str], store: ImageStore) -> list[_Chosen]:
    """The images, each once, with the names they are asked for by."""
    found: dict[str, _Chosen] = {}
    for text in texts:
        image = store.get(text)
        names = [name for name in image.references if str(name) == _full(text)]
        before = found.get(image.descriptor.digest)
        known = before.names if before else ()
        found[image.descriptor.digest] = _Chosen(image, (*known, *(name for name in names if name not in known)))
    return list(found.values())


def _full(text: str) -> str:
    try:
        return str(Reference.parse(text).with_default_tag())
    except InvalidArgument:
        return ""  # an id


def _write(place: _Target, chosen: Sequence[_Chosen], content: ContentStore, *, docker: bool) -> None:
    blobs: dict[str, int] = {}
    for one in chosen:
        blobs[one.image.descriptor.digest] = content.size(one.image.descriptor.digest)
        blobs[one.image.manifest.config.digest] = one.image.manifest.config.size
        blobs.update((layer.digest, layer.size) for layer in one.image.manifest.layers)
    place.directory("blobs")
    for algorithm in sorted({digests.split(digest)[0] for digest in blobs}):
        place.directory(f"blobs/{algorithm}")
    for digest, size in sorted(blobs.items()):
        blob_fd = content.open(digest)
        try:
            place.blob(_name(digest), blob_fd, size)
        finally:
            os.close(blob_fd)
    if docker:
        for diff_id, digest in sorted(_unpacked_layers(chosen).items()):
            if diff_id not in blobs:
                _write_unpacked(place, content, digest, diff_id)
    place.data("index.json", msgspec.json.encode(_index(chosen, blobs)))
    if docker:
        place.data("manifest.json", msgspec.json.encode([_docker_entry(one) for one in chosen]))
    place.data("oci-layout", _LAYOUT)


def _index(chosen: Sequence[_Chosen], sizes: dict[str, int]) -> dict[str, Any]:
    manifests = []
    for one in chosen:
        digest = one.image.descriptor.digest
        plain = {"mediaType": one.image.manifest.media_type, "digest": digest, "size": sizes[digest]}
        for name in one.names:
            annotations = {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag}
            manifests.append({**plain, "annotations": annotations})
        if not one.names:
            manifests.append(plain)
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


def _docker_entry(one: _Chosen) -> dict[str, Any]:
    layers = zip(one.image.manifest.layers, one.image.config.rootfs.diff_ids, strict=True)
    return {
        "Config": _name(one.image.manifest.config.digest),
        "RepoTags": [name.familiar() for name in one.names] or None,
        "Layers": [_name(diff_id if _is_zstd(layer) else layer.digest) for layer, diff_id in layers],
    }


def _is_zstd(layer: Descriptor) -> bool:
    return layer.media_type.endswith("zstd")


def _unpacked_layers(chosen: Sequence[_Chosen]) -> dict[str, str]:
    """Diff id → blob of the layers that manifest.json names uncompressed: docker before 23 knows gzip, not zstd."""
    return {
        diff_id: layer.digest
        for one in chosen
        for layer, diff_id in zip(one.image.manifest.layers, one.image.config.rootfs.diff_ids, strict=True)
        if _is_zstd(layer)
    }


def _write_unpacked(place: _Target, content: ContentStore, digest: str, diff_id: str) -> None:
    spool = f"{os.path.dirname(content.root)}/tmp"
    os.makedirs(spool, mode=0o700, exist_ok=True)
    limits = Limits()
    blob_fd = content.open(digest)
    try:
        with open(spool, "w+b", opener=_nameless) as plain:
            read = decompress.reader(blob_fd, "auto", limits, Meter(limits))
            hasher = digests.hasher(diff_id)
            while chunk := read():
                hasher.update(chunk)
                plain.write(chunk)
            plain.flush()
            got = f"{digests.split(diff_id)[0]}:{hasher.hexdigest()}"
            if got != diff_id:
                raise DigestMismatch(f"layer {digest}: diff id", wanted=diff_id, got=got)
            place.blob(_name(diff_id), plain.fileno(), plain.tell())
    finally:
        os.close(blob_fd)


def _nameless(path: str, flags: int) -> int:
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC) | os.O_TMPFILE, 0o600)


def _name(digest: str) -> str:
    return "blobs/" + "/".join(digests.split(digest))


@contextmanager
def _opened(target: str | int, kind: str) -> Iterator[_Target]:
    if isinstance(target, int):
        archive = _Tar(target)
        yield archive
        archive.end()
    elif kind == "oci-dir":
        try:
            os.makedirs(target, exist_ok=True)
            occupied = bool(os.listdir(target))
        except OSError as problem:
            raise InvalidArgument(f"save: {target}: {(problem.strerror or '').lower()}") from None
        if occupied:
            raise AlreadyExists(f"save: {target}: directory is not empty")
        yield _Directory(target)
    elif os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb", buffering=0) as stream:  # a pipe or a device: nothing to replace
            archive = _Tar(stream.fileno())
            yield archive
            archive.end()
    else:
        new = f"{target}.{os.urandom(4).hex()}.part"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise InvalidArgument(f"save: {target}: {(problem.strerror or '').lower()}") from None
        try:
            archive = _Tar(fd)
            yield archive
            archive.end()
            os.fsync(fd)
            os.rename(new, target)
        except BaseException:
            os.unlink(new)
            raise
        finally:
            os.close(fd)


class _Tar:
    """A ustar archive on a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def directory(self, name: str) -> None:
        self._all(_header(f"{name}/", 0, b"5", 0o755))

    def data(self, name: str, data: bytes) -> None:
        self._all(_header(name, len(data), b"0", 0o644) + data + bytes(-len(data) % _BLOCK))

    def blob(self, name: str, blob_fd: int, size: int) -> None:
        self._all(_header(name, size, b"0", 0o644))
        _send(self._fd, blob_fd, size)
        self._all(bytes(-size % _BLOCK))

    def end(self) -> None:
        self._all(bytes(2 * _BLOCK))

    def _all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]


class _Directory:
    """An OCI directory."""

    def __init__(self, path: str) -> None:
        self._path = path

    def directory(self, name: str) -> None:
        os.mkdir(f"{self._path}/{name}")

    def data(self, name: str, data: bytes) -> None:
        with open(f"{self._path}/{name}", "xb") as file:
            file.write(data)

    def blob(self, name: str, blob_fd: int, size: int) -> None:
        with open(f"{self._path}/{name}", "xb", buffering=0) as file:
            _send(file.fileno(), blob_fd, size)


def _send(out_fd: int, blob_fd: int, size: int) -> None:
    offset = 0
    while offset < size:
        sent = os.sendfile(out_fd, blob_fd, offset, min(size - offset, _COUNT_MAX))
        if not sent:
            raise OSError(5, "blob is shorter than its descriptor says")
        offset += sent


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    number = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block = b"".join(
        [
            name.encode().ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            number,
            b"%011o\0" % 0,
            b" " * 8,
            kind,
            bytes(100),
            b"ustar\00000",
        ]
    ).ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
