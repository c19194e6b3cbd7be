"""Unpack a hostile layer through the real child process, beside a canary that must not change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from hutch.image.limits import Limits
from hutch.image.unpack import Unpacked, unpack_into
from tests.conftest import Roots
from tests.support import trees
from tests.support.evil import Layer


@dataclass
class Place:
    """A directory to unpack into, and a canary outside of it."""

    directory: str
    canary: str

    def unpack(self, layer: Layer, *, lowers: tuple[str, ...] = (), limits: Limits | None = None) -> Unpacked:
        """Unpack; the directory must be empty."""
        return self.unpack_blob(layer.blob, lowers=lowers, limits=limits)

    def unpack_blob(self, blob: bytes, *, lowers: tuple[str, ...] = (), limits: Limits | None = None) -> Unpacked:
        """Unpack bytes as they are."""
        blob_fd = os.memfd_create("layer")
        try:
            with open(blob_fd, "wb", closefd=False) as file:
                file.write(blob)
            os.lseek(blob_fd, 0, os.SEEK_SET)
            return unpack_into(self.directory, blob_fd, lowers=lowers, limits=limits)
        finally:
            os.close(blob_fd)

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def read(self, name: str) -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read()


@pytest.fixture
def another(tmp_root: Roots) -> Callable[[str], Place]:
    """Further directories, all with the one canary."""

    def make(name: str) -> Place:
        os.mkdir(f"{tmp_root.data}/{name}", 0o700)
        return Place(f"{tmp_root.data}/{name}", f"{tmp_root.base}/canary")

    return make


@pytest.fixture
def place(tmp_root: Roots) -> Iterator[Place]:
    canary = f"{tmp_root.base}/canary"
    os.makedirs(f"{canary}/directory")
    with open(f"{canary}/file", "w") as file:
        file.write("canary")
    os.symlink("file", f"{canary}/link")
    os.mkdir(f"{tmp_root.data}/layer", 0o700)
    before = trees.describe(canary), sorted(os.listdir("/dev")), sorted(os.listdir(tmp_root.data))
    yield Place(f"{tmp_root.data}/layer", canary)
    ours = [name for name in sorted(os.listdir(tmp_root.data)) if not name.startswith("lower")]
    assert (trees.describe(canary), sorted(os.listdir("/dev")), ours) == before
