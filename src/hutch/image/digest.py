"""Content digests: their grammar, and hashing by them.

A digest names a file of the store and a URL of a registry, so nothing may use one that did not
pass `check` (CVE-2024-3727: a digest with ``../`` in it).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hutch.errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

_GRAMMAR = re.compile(r"\A(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})\Z")


def is_digest(text: str) -> bool:
    """Whether `text` is ``sha256:`` or ``sha512:`` and so many lower-case hexadecimal digits."""
    return len(text) <= 135 and _GRAMMAR.match(text) is not None


def check(text: str) -> str:
    """Return `text`, a digest, or raise InvalidArgument.

    OCI image-spec descriptor.md#digests; only the two registered algorithms are known.
    """
    if not is_digest(text):
        raise InvalidArgument(f"digest {text[:140]!r}: not sha256 or sha512 with lower-case hexadecimal digits")
    return text


def split(digest: str) -> tuple[str, str]:
    """Return the algorithm and the hexadecimal part of a digest; checks it first."""
    algorithm, _, encoded = check(digest).partition(":")
    return algorithm, encoded


def hasher(digest: str) -> _Hash:
    """Return a new hash object of the algorithm of `digest`."""
    return hashlib.new(split(digest)[0], usedforsecurity=True)


def of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of `data`."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the chain id of each layer, base first.

    A chain id names a layer *and* everything below it. OCI image-spec config.md#layer-chainid.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else check(diff_id))
    return tuple(chain)
