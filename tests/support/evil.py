"""A raw writer of tar archives, OCI layouts and docker archives, for layers and images no honest tool makes.

Nothing is validated: names, sizes, checksums, records and documents go out as given.

    layer = Layer().symlink("etc", "/tmp/canary").file("etc/passwd", b"x")
    EvilImage([layer]).push(registry, "evil/climb:latest")
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.registries import Registry

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (bytes([byte]) for byte in b"0123456")
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def number(value: int, width: int) -> bytes:
    """A numeric header field: octal, or GNU's base 256 where that does not fit or it is negative."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    sign = 0xFF if value < 0 else 0x80
    return bytes([sign]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


def header(
    name: bytes | str,
    *,
    typeflag: bytes = REGULAR,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    linkname: bytes | str = b"",
    magic: bytes = b"ustar\00000",
    uname: bytes = b"",
    gname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    checksum: int | bytes | None = None,
) -> bytes:
    """One 512-byte header; a field given as bytes is written as it is, cut or padded to its width."""

    def field(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0")[:width] if isinstance(value, bytes) else number(value, width)

    parts = [
        _bytes(name).ljust(100, b"\0")[:100],
        field(mode, 8),
        field(uid, 8),
        field(gid, 8),
        field(size, 12),
        field(mtime, 12),
        b" " * 8,
        typeflag,
        _bytes(linkname).ljust(100, b"\0")[:100],
        magic,
        uname.ljust(32, b"\0"),
        gname.ljust(32, b"\0"),
        number(device[0], 8),
        number(device[1], 8),
        prefix.ljust(155, b"\0")[:155],
    ]
    block = b"".join(parts).ljust(BLOCK, b"\0")
    if checksum is None:
        checksum = b"%06o\0 " % sum(block)
    return block[:148] + field(checksum, 8) + block[156:]


def pad(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def pax_record(key: bytes | str, value: bytes | str) -> bytes:
    """One record of an extended header; the length counts itself."""
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


class Layer:
    """A tar archive in the making; every method returns the layer, so calls chain.

    Args:
        compression: "gzip", "zstd" or "" for none.
    """

    def __init__(self, compression: str = "gzip") -> None:
        self._out = io.BytesIO()
        self._ended = False
        self.compression = compression

    def entry(
        self,
        name: bytes | str,
        data: bytes = b"",
        *,
        pax: Mapping[str | bytes, str | bytes] | None = None,
        size: int | bytes | None = None,
        **fields: Any,
    ) -> Layer:
        """Any entry: `fields` are `header`'s; `size` may lie about `data`; a name over 100 bytes goes into `pax`."""
        records = dict(pax or {})
        for key, value in (("path", _bytes(name)), ("linkpath", _bytes(fields.get("linkname", b"")))):
            if len(value) > 100:
                records.setdefault(key, value)
        if records:
            self.pax(b"".join(pax_record(key, value) for key, value in records.items()))
        self.raw(header(name, size=len(data) if size is None else size, **fields))
        return self.raw(pad(data))

    def pax(self, records: bytes, *, typeflag: bytes = PAX, size: int | None = None) -> Layer:
        """An extended header with these raw records."""
        self.raw(header(b"PaxHeaders/0", typeflag=typeflag, size=len(records) if size is None else size))
        return self.raw(pad(records))

    def gnu_long(self, typeflag: bytes, value: bytes) -> Layer:
        """GNU's long name ("L") or long link ("K") for the next entry."""
        return self.entry(b"././@LongLink", value + b"\0", typeflag=typeflag)

    def file(self, name: bytes | str, data: bytes = b"", **fields: Any) -> Layer:
        return self.entry(name, data, **fields)

    def directory(self, name: bytes | str, mode: int = 0o755, **fields: Any) -> Layer:
        return self.entry(name, typeflag=DIRECTORY, mode=mode, **fields)

    def symlink(self, name: bytes | str, target: bytes | str, **fields: Any) -> Layer:
        return self.entry(name, typeflag=SYMLINK, linkname=target, mode=0o777, **fields)

    def hardlink(self, name: bytes | str, target: bytes | str, **fields: Any) -> Layer:
        return self.entry(name, typeflag=HARD_LINK, linkname=target, **fields)

    def device(self, name: bytes | str, major: int, minor: int, *, block: bool = False, **fields: Any) -> Layer:
        return self.entry(name, typeflag=BLOCK_DEVICE if block else CHARACTER, device=(major, minor), **fields)

    def fifo(self, name: bytes | str, **fields: Any) -> Layer:
        return self.entry(name, typeflag=FIFO, **fields)

    def whiteout(self, name: str) -> Layer:
        """`name` is not there any more."""
        parent, _, last = name.rpartition("/")
        return self.file(f"{parent}/.wh.{last}" if parent else f".wh.{last}")

    def opaque(self, directory: str) -> Layer:
        """Nothing of the lower layers shows in `directory`."""
        return self.file(f"{directory}/.wh..wh..opq")

    def raw(self, data: bytes) -> Layer:
        """Bytes as they are."""
        self._out.write(data)
        return self

    def unended(self) -> Layer:
        """Leave out the two zero blocks at the end."""
        self._ended = True
        return self

    @property
    def tar(self) -> bytes:
        """The archive, uncompressed."""
        return self._out.getvalue() + (b"" if self._ended else bytes(2 * BLOCK))

    @property
    def diff_id(self) -> str:
        return digest_of(self.tar)

    @property
    def blob(self) -> bytes:
        """The archive as transferred."""
        if self.compression == "gzip":
            return gzip.compress(self.tar, compresslevel=6, mtime=0)
        if self.compression == "zstd":
            import zstandard

            return zstandard.compress(self.tar)
        return self.tar

    @property
    def media_type(self) -> str:
        return f"{OCI_LAYER}+{self.compression}" if self.compression else OCI_LAYER

    @property
    def digest(self) -> str:
        return digest_of(self.blob)


class EvilImage:
    """An image of any layers whose documents may say anything.

    Args:
        layers: base first.
        config: merged over the container section of the configuration ("Volumes", "User", "WorkingDir", …).
        config_document: merged over the whole configuration ("rootfs", "architecture", …).
        manifest_document: merged over the manifest.
        descriptors: merged over the layers' descriptors, one mapping a layer ({} for none), to lie about them.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        config: Mapping[str, Any] | None = None,
        config_document: Mapping[str, Any] | None = None,
        manifest_document: Mapping[str, Any] | None = None,
        descriptors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.layers = list(layers)
        section = {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"], **(config or {})}
        document = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": section,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created_by": "evil"} for _ in self.layers],
            **(config_document or {}),
        }
        self.config = json.dumps(document).encode()
        rows: list[dict[str, Any]] = [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": len(layer.blob)} for layer in self.layers
        ]
        for row, change in zip(rows, descriptors, strict=False):
            row.update(change)
        self.manifest_document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(self.config), "size": len(self.config)},
            "layers": rows,
            **(manifest_document or {}),
        }
        self.manifest = json.dumps(self.manifest_document).encode()

    @property
    def blobs(self) -> dict[str, bytes]:
        """Configuration and layers by their true digests."""
        return {digest_of(data): data for data in (self.config, *(layer.blob for layer in self.layers))}

    def write_layout(self, path: str, tag: str = "latest") -> str:
        """Write an OCI image layout; returns its path."""
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": self.manifest_document.get("mediaType", OCI_MANIFEST),
                    "digest": digest_of(self.manifest),
                    "size": len(self.manifest),
                    "annotations": {"org.opencontainers.image.ref.name": tag},
                }
            ],
        }
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        files = {f"blobs/{digest.replace(':', '/')}": data for digest, data in self.blobs.items()}
        files[f"blobs/{digest_of(self.manifest).replace(':', '/')}"] = self.manifest
        files |= {"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        for name, data in files.items():
            with open(f"{path}/{name}", "wb") as file:
                file.write(data)
        return path

    def write_docker_archive(self, path: str, *tags: str, manifest: Any = None) -> str:
        """Write what `docker save` writes (the old form: manifest.json, ID.json, N/layer.tar); returns its path.

        Args:
            path: of the archive.
            tags: RepoTags.
            manifest: in the place of manifest.json's document, to lie.
        """
        archive = Layer("")
        name = f"{digest_of(self.config)[7:]}.json"
        rows = [{"Config": name, "RepoTags": list(tags), "Layers": [f"{i}/layer.tar" for i in range(len(self.layers))]}]
        archive.file(name, self.config)
        for place, layer in enumerate(self.layers):
            archive.file(f"{place}/layer.tar", layer.tar)
        archive.file("manifest.json", json.dumps(rows if manifest is None else manifest).encode())
        with open(path, "wb") as file:
            file.write(archive.tar)
        return path

    def push(self, registry: Registry, name: str, *, without: Sequence[str] = ()) -> str:
        """Push blobs and manifest by plain HTTP as "repository:tag"; returns the reference to pull.

        A real registry refuses a manifest whose blobs are not there; `without` names digests not to push, for a
        registry that does not look. To serve other bytes than a digest promises, overwrite `registry.blob_path`.
        """
        repository, _, tag = name.rpartition(":")
        for digest, data in self.blobs.items():
            if digest not in without:
                registry.push_blob(repository, data, digest)
        registry.push_manifest(repository, tag, self.manifest, self.manifest_document.get("mediaType", OCI_MANIFEST))
        return registry.reference(name)


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else os.fsencode(text)
