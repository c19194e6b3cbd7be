"""Check a blob against a diff id without unpacking it."""

from __future__ import annotations

import os

from hutch.errors import DigestMismatch
from hutch.image import digest as digests
from hutch.image.content import ContentStore
from hutch.image.decompress import reader
from hutch.image.limits import Limits, Meter


def verify_diff_id(content: ContentStore, blob_digest: str, diff_id: str) -> None:
    """Decompress a layer's blob and compare the digest of what comes out.

    Args:
        content: has the blob.
        blob_digest: of the blob.
        diff_id: what the image's configuration says it is when uncompressed.

    Raises:
        DigestMismatch: it is something else.
        InvalidLayer: the compressed stream is broken or a bomb.
    """
    limits = Limits()
    hasher = digests.hasher(diff_id)
    blob_fd = content.open(blob_digest)
    try:
        read = reader(blob_fd, "auto", limits, Meter(limits))
        while chunk := read():
            hasher.update(chunk)
    finally:
        os.close(blob_fd)
    got = f"{digests.split(diff_id)[0]}:{hasher.hexdigest()}"
    if got != diff_id:
        raise DigestMismatch(f"layer {blob_digest}: diff id", wanted=diff_id, got=got)
