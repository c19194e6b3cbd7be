"""The same image unpacked by umoci and by hutch is the same tree."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hutch.image.archive import load
from hutch.image.content import ContentStore
from hutch.image.store import ImageStore
from hutch.snapshot.copy import CopySnapshotter
from hutch.snapshot.overlay import OverlaySnapshotter
from tests.conftest import Roots
from tests.support import trees
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import run

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

pytestmark = requires("root", "program:umoci", "program:skopeo")


def by_hutch(layers: Snapshotter, roots: Roots, layout: str) -> trees.Tree:
    store = ImageStore(ContentStore(f"{roots.data}/content"), layers=layers)
    image = load(layout, store=store, layers=layers)[0].image
    os.mkdir(f"{roots.base}/target")
    rootfs = layers.prepare("k", image.chain_ids)
    tree: trees.Tree = trees.through(rootfs.mounts, f"{roots.base}/target")
    layers.remove("k")
    return tree


def by_umoci(roots: Roots, layout: str, tag: str) -> trees.Tree:
    run(["umoci", "raw", "unpack", "--image", f"{layout}:{tag}", f"{roots.base}/umoci"])
    return trees.describe(f"{roots.base}/umoci")


@pytest.mark.parametrize("snapshotter", ["overlay", "copy"])
@pytest.mark.parametrize("through_skopeo", [False, True])
def test_umoci_makes_the_same_tree(tmp_root: Roots, layered_image: Image, snapshotter: str, through_skopeo: bool):
    layout, tag = layered_image.path, layered_image.tag
    if through_skopeo:  # compressed anew
        layout, tag = f"{tmp_root.base}/layout", "again"
        layered_image.copy_to(f"oci:{layout}:{tag}", "--dest-compress-format=gzip", "--dest-compress-level=1")
    layers: Snapshotter
    layers = (
        OverlaySnapshotter(tmp_root.data, user=False) if snapshotter == "overlay" else CopySnapshotter(tmp_root.data)
    )
    ours, theirs = by_hutch(layers, tmp_root, layout), by_umoci(tmp_root, layout, tag)
    assert set(ours) == set(theirs)
    for name, row in ours.items():
        assert row == theirs[name], name


def test_umoci_makes_the_same_tree_of_a_distribution(tmp_root: Roots, debian_image: Image):
    layers = OverlaySnapshotter(tmp_root.data, user=False)
    ours = by_hutch(layers, tmp_root, debian_image.path)
    theirs = by_umoci(tmp_root, debian_image.path, debian_image.tag)
    differing = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    assert differing == []
