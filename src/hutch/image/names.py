"""The list of images: index.json of the OCI layout, an entry for each name.

An entry is the descriptor of a manifest; the name stands in its annotations. The annotations
are ours alone: those that came with a manifest are dropped on the way in.

OCI image-spec image-layout.md#indexjson-file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from hutch.errors import InvalidConfig, InvalidReference
from hutch.image import digest as digests
from hutch.image import strictjson
from hutch.image.content import write_file
from hutch.image.manifest import OCI_INDEX, Descriptor, Index
from hutch.image.reference import Reference

_NAME = "org.opencontainers.image.ref.name"
_SOURCE = "dev.hutch.source.index"
_MAX_INDEX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list.

    Attributes:
        name: None for an image that lost its last name.
        descriptor: of the manifest.
        source: digest of the index the manifest was chosen from, if it was.
    """

    name: Reference | None
    descriptor: Descriptor
    source: str | None = None


class NameList:
    """Reads and replaces the list; who writes holds the lock of the store.

    Args:
        root: directory of the layout.
    """

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, "index.json")

    def exists(self) -> bool:
        """Whether the list was ever written."""
        return os.path.exists(self.path)

    def read(self) -> list[Entry]:
        """Return the entries; none if there is no file.

        Raises:
            InvalidConfig: the file is damaged.
        """
        try:
            with open(self.path, "rb") as stream:
                data = stream.read(_MAX_INDEX_BYTES + 1)
        except FileNotFoundError:
            return []
        document = strictjson.loads(data, self.path, limit=_MAX_INDEX_BYTES)
        try:
            index = msgspec.convert(document, Index)
        except msgspec.ValidationError as error:
            raise InvalidConfig(f"{self.path}: {str(error).lower()}") from None
        return [_entry(descriptor) for descriptor in index.manifests]

    def write(self, entries: Sequence[Entry]) -> None:
        """Replace the list, durably."""
        manifests = []
        for entry in entries:
            annotations = {_NAME: str(entry.name)} if entry.name else {}
            if entry.source:
                annotations[_SOURCE] = entry.source
            manifests.append(msgspec.structs.replace(entry.descriptor, annotations=annotations))
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        write_file(self.path, msgspec.json.encode(document))


def put(entries: Sequence[Entry], new: Entry) -> list[Entry]:
    """Enter `new`; whoever had its name keeps an entry without one."""
    displaced = [entry for entry in entries if entry.name == new.name]
    kept = [
        entry
        for entry in entries
        if entry.name != new.name and not (entry.name is None and entry.descriptor.digest == new.descriptor.digest)
    ]
    held = {entry.descriptor.digest for entry in kept} | {new.descriptor.digest}
    orphans = [
        Entry(None, entry.descriptor, entry.source) for entry in displaced if entry.descriptor.digest not in held
    ]
    return [*kept, *orphans, new]


def _entry(descriptor: Descriptor) -> Entry:
    name: Reference | None = None
    if _NAME in descriptor.annotations:
        with suppress(InvalidReference):
            name = Reference.parse(descriptor.annotations[_NAME])
    source = descriptor.annotations.get(_SOURCE, "")
    plain = msgspec.structs.replace(descriptor, annotations={}, urls=())
    return Entry(name, plain, source if digests.is_digest(source) else None)
