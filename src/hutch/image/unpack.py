"""Unpack one layer into a snapshotter's stage, in a process of its own.

The process has no network, sees no file but the layer's directory and those of the layers below, holds few
capabilities and bounded memory (`hutch.snapshot.confine`), and few system calls are left to it
(`hutch.snapshot.restrict`); for an ordinary user it is in a user namespace with the subordinate ids
(`hutch.snapshot.idmap`). May be called from any thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hutch.errors import DigestMismatch, NotSupported, Unavailable
from hutch.image.content import ContentStore
from hutch.image.limits import Limits
from hutch.image.manifest import LAYER_TYPES, Descriptor
from hutch.snapshot import helper

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Unpacked:
    """What came out of a layer.

    Attributes:
        diff_id: digest of the uncompressed tar, as computed.
        size: its bytes.
        compressed_size: bytes read.
        file_bytes, inodes: what was written.
        opaque: True if the layer hides everything below it.
        notes: what was left out, and why.
    """

    diff_id: str
    size: int
    compressed_size: int
    file_bytes: int
    inodes: int
    opaque: bool
    notes: tuple[str, ...] = ()


def unpack_layer(
    content: ContentStore,
    blob: Descriptor,
    diff_id: str,
    layers: Snapshotter,
    chain_id: str,
    parents: Sequence[str],
    *,
    limits: Limits | None = None,
) -> Unpacked | None:
    """Unpack, verify and commit one layer.

    Args:
        content: has the blob.
        blob: its descriptor. Media types lie (some builders label gzip as plain and plain as gzip), so once the type is
            known at all, the first bytes decide about the compression.
        diff_id: what the image's configuration promises of the uncompressed tar.
        layers: where it goes.
        chain_id: name of the layer.
        parents: chain ids of the layers below, base first; they must be committed.
        limits: the defaults if None.

    Returns:
        What came out; None if the layer was there already, and then nothing is read.

    Raises:
        InvalidLayer: malformed, hostile or over a limit.
        DigestMismatch: the tar is not the one promised.
        NotSupported: the media type.
        Unavailable: the disk is full.
        OSError: the machine failed otherwise.

    Whatever is raised, nothing of the layer stays.
    """
    if blob.media_type not in LAYER_TYPES:
        raise NotSupported(f"layer {blob.digest}: media type {blob.media_type[:200]!r} is not supported")
    if layers.has(chain_id):
        return None
    blob_fd = content.open(blob.digest)
    try:
        with layers.stage(chain_id, parents) as stage:
            unpacked = unpack_into(
                stage.path,
                blob_fd,
                lowers=stage.lowers,
                whiteouts=stage.whiteouts,
                algorithm=diff_id.partition(":")[0],
                limits=limits,
            )
            if unpacked.diff_id != diff_id:
                raise DigestMismatch(f"layer {blob.digest}: diff id", wanted=diff_id, got=unpacked.diff_id)
            stage.commit(diff_id=diff_id, size=unpacked.size, opaque=unpacked.opaque, notes=unpacked.notes)
    finally:
        os.close(blob_fd)
    return unpacked


def unpack_into(
    directory: str,
    blob_fd: int,
    *,
    lowers: Sequence[str] = (),
    whiteouts: str = "trusted",
    compression: str = "auto",
    algorithm: str = "sha256",
    limits: Limits | None = None,
) -> Unpacked:
    """Unpack a layer's blob into an empty directory; see `unpack_layer`.

    Args:
        directory: trusted host path, 0700, empty.
        blob_fd: the blob; stays the caller's.
        lowers: directories of the layers below, nearest first.
        whiteouts: form of whiteouts, here and in `lowers`.
        compression: gzip, zstd, none, or auto: by the first bytes.
        algorithm: sha256 or sha512, for the diff id.
        limits: the defaults if None.
    """
    if algorithm not in ("sha256", "sha512"):
        raise NotSupported(f"layer: digest algorithm {algorithm[:50]!r} is not supported")
    numbers = ",".join(map(str, (limits or Limits()).values()))
    arguments = [whiteouts, compression, algorithm, numbers, directory, *lowers]
    try:
        digest, size, read, written, inodes, opaque, *notes = helper.run(
            "hutch.image.unpack_child", arguments, stdin=blob_fd
        )
    except OSError as problem:
        if problem.errno in _FULL:
            raise Unavailable(
                f"unpack {problem.filename}: {(problem.strerror or '').lower()}", hint=f"free space for {directory}"
            ) from problem
        raise
    return Unpacked(
        f"{algorithm}:{digest.decode()}", int(size), int(read), int(written), int(inodes), opaque == b"1",
        tuple(note.decode("utf-8", "replace") for note in notes),
    )  # fmt: skip
