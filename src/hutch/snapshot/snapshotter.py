"""The seam between unpacked layers and the mounts that a container's root is made of.

    layer      committed, read-only, named by its chain id: the digest of it and of everything below
    stage      a layer being unpacked; nobody sees it before commit
    snapshot   active, named by a key (a container's id): layers with something writable on top

A snapshotter returns mounts and mounts nothing itself: the runtime mounts them in the container's namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from hutch.spec.runtime import Mount


@dataclass(frozen=True)
class Part:
    """One overlay of several that make up a root.

    Attributes:
        destination: where it is mounted, relative to the container's root.
        upper: directory that gets what the container writes below it.
        lowers: directories below that, top first.
    """

    destination: str
    upper: str
    lowers: tuple[str, ...]


@dataclass(frozen=True)
class Rootfs:
    """What a container's root is made of.

    Attributes:
        mounts: for the runtime's `root_mounts`, destinations relative to the new root, in order. An overlay's options
            may be longer than a page: the runtime passes `lowerdir` layer by layer.
        upper: directory that gets what the container writes, in the form `whiteouts`; "" if the root is a plain copy.
        lowers: directories below it, top first; for `diff` and `commit`.
        whiteouts: how `upper` and `lowers` say that a file is gone (`hutch.snapshot.whiteouts`).
        parts: all overlays, where there may be several (`@host`).
    """

    mounts: tuple[Mount, ...]
    upper: str = ""
    lowers: tuple[str, ...] = ()
    whiteouts: str = "trusted"
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What one snapshot takes on disk, without the layers below it.

    Attributes:
        size: bytes allocated.
        inodes: files and directories.
    """

    size: int
    inodes: int


@dataclass
class LayerInfo:
    """What is recorded beside a layer.

    Attributes:
        chain_id, diff_id: digests; the second of the uncompressed tar.
        parent: chain id of the layer below, or "".
        size: bytes of the uncompressed tar.
        whiteouts: the form of its whiteouts.
        opaque: True if it hides everything below it.
    """

    chain_id: str
    diff_id: str = ""
    parent: str = ""
    size: int = 0
    whiteouts: str = ""
    opaque: bool = False
    notes: list[str] = field(default_factory=list)


class Stage(Protocol):
    """A layer being unpacked. A context manager: left without `commit`, everything is removed."""

    @property
    def path(self) -> str:
        """An empty directory, 0700, to unpack into."""

    @property
    def lowers(self) -> tuple[str, ...]:
        """Directories of the layers below, nearest first."""

    @property
    def whiteouts(self) -> str:
        """The form that whiteouts must have."""

    def commit(self, *, diff_id: str = "", size: int = 0, opaque: bool = False, notes: Sequence[str] = ()) -> None:
        """Make the layer durable, then visible. If another process was faster, its layer stays."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Snapshotter(Protocol):
    """Keeps layers and makes snapshots of them; safe for any number of processes at once."""

    @property
    def name(self) -> str:
        """How users know it: overlay, copy."""

    def has(self, chain_id: str) -> bool:
        """True if the layer is whole."""

    def stage(self, chain_id: str, parents: Sequence[str]) -> Stage:
        """Begin a layer on top of `parents` (chain ids, base first)."""

    def info(self, chain_id: str) -> LayerInfo:
        """What is recorded about a layer; NotFound if it is not whole."""

    def prepare(self, key: str, chain_ids: Sequence[str]) -> Rootfs:
        """Make, or find again, the writable snapshot `key` on top of the layers (base first)."""

    def remove(self, key: str) -> None:
        """Delete a snapshot, unless something is mounted in it; one that is not there is no error."""

    def remove_layer(self, chain_id: str) -> None:
        """Delete a layer; one that is not there is no error. That nothing uses it is the caller's to know."""

    def layers(self) -> list[str]:
        """The chain ids of all whole layers."""

    def snapshots(self) -> list[str]:
        """The keys of all snapshots."""

    def usage(self, key: str) -> Usage:
        """What the snapshot takes; NotFound if there is none."""

    def sweep(self) -> int:
        """Delete what crashed processes left half done; returns how many things that were."""
