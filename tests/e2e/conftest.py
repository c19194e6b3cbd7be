"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.images import Image
from tests.support.library import Library, library
from tests.support.registries import Registry
from tests.support.runner import Runner


@pytest.fixture
def own_hutch(tmp_root: Roots) -> Cli:
    """`hutch` over a private root."""
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


@pytest.fixture
def box(own_hutch: Cli, cgroup_parent: str, registry: Registry, busybox_image: Image) -> Runner:
    """Containers of busybox."""
    name = busybox_image.push(registry, "e2e/busybox:latest")
    own_hutch("pull", "-q", name)
    return Runner(own_hutch, cgroup_parent, name)


@pytest.fixture
def lib(tmp_root: Roots, cgroup_parent: str, busybox_image: Image) -> Iterator[Library]:
    """`import hutch` over a private root."""
    with library(tmp_root, cgroup_parent, busybox_image) as found:
        yield found
