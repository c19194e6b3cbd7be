"""The seam between unpacked layers and the mounts that a container's root is made of.

    layer      committed, read-only, named by its chain id: the digest of it and of everything below
    stage      a layer being unpacked; nobody sees it before commit
    snapshot   active, named by a key (a container's id): layers with something writable on top

A snapshotter returns mounts and mounts nothing itself: the runtime mounts them in the container's namespace.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Protocol, Self

    from hutch.spec.runtime import Mount


class Part:
    """One overlay of several that make up a root.

    Attributes:
        destination: where it is mounted, relative to the container's root.
        upper: directory that gets what the container writes below it.
        lowers: directories below that, top first.
    """

    __slots__ = ("destination", "lowers", "upper")

    def __init__(self, destination: str, upper: str, lowers: tuple[str, ...]) -> None:
        self.destination = destination
        self.upper = upper
        self.lowers = lowers


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

    __slots__ = ("lowers", "mounts", "parts", "upper", "whiteouts")

    def __init__(
        self,
        mounts: tuple[Mount, ...],
        upper: str = "",
        lowers: tuple[str, ...] = (),
        whiteouts: str = "trusted",
        parts: tuple[Part, ...] = (),
    ) -> None:
        self.mounts = mounts
        self.upper = upper
        self.lowers = lowers
        self.whiteouts = whiteouts
        self.parts = parts


class Usage:
    """What one snapshot takes on disk, without the layers below it.

    Attributes:
        size: bytes allocated.
        inodes: files and directories.
    """

    __slots__ = ("inodes", "size")

    def __init__(self, size: int, inodes: int) -> None:
        self.size = size
        self.inodes = inodes


class LayerInfo:
    """What is recorded beside a layer.

    Attributes:
        chain_id, diff_id: digests; the second of the uncompressed tar.
        parent: chain id of the layer below, or "".
        size: bytes of the uncompressed tar.
        whiteouts: the form of its whiteouts.
        opaque: True if it hides everything below it.
    """

    __slots__ = ("chain_id", "diff_id", "notes", "opaque", "parent", "size", "whiteouts")

    def __init__(self, chain_id: str, *, parent: str = "", whiteouts: str = "") -> None:
        self.chain_id = chain_id
        self.diff_id = ""
        self.parent = parent
        self.size = 0
        self.whiteouts = whiteouts
        self.opaque = False
        self.notes: list[str] = []

    @classmethod
    def parse(cls, found: dict[str, Any]) -> Self:
        """The information in a parsed layer.json; ValueError when a field is missing or has another type."""
        info = cls("")
        for name in cls.__slots__:
            value = found.get(name)
            if type(value) is not type(getattr(info, name)):
                raise ValueError(f"field {name}")
            setattr(info, name, value)
        return info

    def to_dict(self) -> dict[str, Any]:
        """The content of layer.json."""
        return {name: getattr(self, name) for name in self.__slots__}


if TYPE_CHECKING:

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
