"""Layers and snapshots of an ordinary user: with subordinate ids, and with a single id."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest

from hutch.snapshot.idmap import subordinate
from tests.support import trees
from tests.support.evil import Layer, digest_of
from tests.support.host import requires
from tests.support.users import OrdinaryUser

# Root, since what belongs to a user's other ids the user's own teardown could not remove.
pytestmark = [pytest.mark.host, requires("root", "userns", "fs:overlay")]

_PROGRAM = """
import json, os, sys
from hutch.image.unpack import unpack_into
from hutch.snapshot.choose import choose
root, *chain = sys.argv[1:]
os.makedirs(root, 0o700, exist_ok=True)
layers, choice = choose(root)
below = []
for number, blob in enumerate(chain):
    chain_id = "sha256:" + f"{number:064x}"
    with layers.stage(chain_id, below) as stage, open(blob, "rb") as file:
        done = unpack_into(stage.path, file.fileno(), lowers=stage.lowers, whiteouts=stage.whiteouts)
        stage.commit(notes=done.notes)
    below.append(chain_id)
rootfs = layers.prepare("k", below)
notes = [note for one in below for note in layers.info(one).notes]
print(json.dumps([choice.name, choice.reason, rootfs.mounts, notes, layers.usage("k").inodes]))
"""
_REMOVE = """
import os, sys
from hutch.snapshot.choose import choose
layers, _ = choose(sys.argv[1])
layers.remove("k")
for chain_id in layers.layers():
    layers.remove_layer(chain_id)
print([os.listdir(f"{sys.argv[1]}/{name}") for name in ("layers", "snapshots", "tmp")])
"""

BASE = (
    Layer()
    .directory("./", 0o755, mtime=1)
    .directory("d", 0o500, uid=12, gid=34, mtime=2)
    .file("d/secret", b"s", mode=0o400, uid=12, gid=34, mtime=3)
    .file("su", b"x", mode=0o4755, uid=7, mtime=4)
    .device("null", 1, 3)
    .fifo("pipe", uid=5)
    .directory("o")
    .file("o/old")
)
UPPER = (
    Layer().whiteout("su").directory("o").opaque("o").file("o/new").file("d/more", uid=12).hardlink("again", "d/secret")
)


def unpack(user: OrdinaryUser, *contents: Layer) -> Any:
    files = []
    for content in contents:
        files.append(f"{user.home}/{digest_of(content.tar)[7:]}")
        with open(files[-1], "wb") as file:
            file.write(content.blob)
        os.chmod(files[-1], 0o644)
    return json.loads(user.run([user.python, "-c", _PROGRAM, f"{user.home}/data", *files]).stdout)


def look(user: OrdinaryUser, mounts: Any) -> trees.Tree:
    user.run(["mkdir", "-p", f"{user.home}/target"])
    tree: trees.Tree = json.loads(user.run(trees.program(mounts, f"{user.home}/target", python=user.python)).stdout)
    return tree


def test_subordinate_ids_own_the_files(ordinary_user: OrdinaryUser):
    name, reason, mounts, notes, inodes = unpack(ordinary_user, BASE, UPPER)
    assert (name, reason) == ("overlay", "overlay in a user namespace (userxattr)")
    assert "userxattr" in mounts[0]["options"]
    tree = look(ordinary_user, mounts)
    assert set(tree) == {".", "d", "d/secret", "d/more", "pipe", "o", "o/new", "again"}
    assert tree["d"][:4] == [oct(stat.S_IFDIR | 0o500), 12, 34, 2_000_000_000]
    assert tree["d/secret"][:4] == [oct(stat.S_IFREG | 0o400), 12, 34, 3_000_000_000]
    assert tree["pipe"][1] == 5
    assert tree["again"][6] == tree["d/secret"][6] == "again"
    assert notes == ["device nodes are left out in a user namespace (1)"]
    assert inodes >= 2
    if os.geteuid() == 0:
        diff = f"{ordinary_user.home}/data/layers/sha256-{0:064x}/diff"
        assert os.stat(f"{diff}/d/secret").st_uid == ordinary_user.subids[0] + 11
        assert os.stat(diff).st_uid == ordinary_user.uid


def test_d14_no_device_and_no_foreign_setuid_is_made_for_a_user(ordinary_user: OrdinaryUser):
    unpack(ordinary_user, BASE)
    diff = f"{ordinary_user.home}/data/layers/sha256-{0:064x}/diff"
    if os.geteuid() == 0:
        assert not os.path.lexists(f"{diff}/null")
        assert os.stat(f"{diff}/su").st_uid == ordinary_user.subids[0] + 6


def test_everything_is_removed_though_others_own_it(ordinary_user: OrdinaryUser):
    unpack(ordinary_user, BASE, UPPER)
    assert ordinary_user.run([ordinary_user.python, "-c", _REMOVE, f"{ordinary_user.home}/data"]).stdout.strip() == (
        "[[], [], []]"
    )


def test_a_single_id_owns_everything(single_id_user: OrdinaryUser):
    _, _, mounts, notes, _ = unpack(single_id_user, BASE, UPPER)
    tree = look(single_id_user, mounts)
    assert set(tree) == {".", "d", "d/secret", "d/more", "pipe", "o", "o/new", "again"}
    assert {row[1] for row in tree.values()} == {0}
    assert tree["d"][0] == oct(stat.S_IFDIR | 0o500)
    assert any("no subordinate ids" in note for note in notes)
    assert single_id_user.run([single_id_user.python, "-c", _REMOVE, f"{single_id_user.home}/data"]).stdout.strip() == (
        "[[], [], []]"
    )


def test_an_owner_beyond_the_subordinate_ids_is_a_clear_error(ordinary_user: OrdinaryUser):
    layer = Layer().file("f", uid=70_000)
    path = f"{ordinary_user.home}/layer"
    with open(path, "wb") as file:
        file.write(layer.blob)
    os.chmod(path, 0o644)
    done = ordinary_user.run([ordinary_user.python, "-c", _PROGRAM, f"{ordinary_user.home}/data", path], check=False)
    assert "owner 70000:0 is not mapped in the user namespace" in done.stderr
    assert os.geteuid() != 0 or os.listdir(f"{ordinary_user.home}/data/layers") == []


def test_subordinate_id_files_are_read_with_limits(tmp_path: Any):
    path = tmp_path / "subuid"
    path.write_bytes(
        b"somebody:1:2\nme:100000:65536\nbroken\nme:x:1\nme:1:\n:5:5\nme:4294967290:100\nme:0:5\n"
        b" me:200000:10 \n1000:300000:7\nme:" + b"9" * 4000 + b":1\nm\xff:1:1\n"
    )
    assert subordinate(str(path), "me", 1000) == [(100_000, 65_536), (200_000, 10), (300_000, 7)]
    assert subordinate(str(path), "", 77) == []
    assert subordinate(str(tmp_path / "missing"), "me", 1000) == []
    with open(path, "ab") as file:
        file.truncate(3 << 30)
    assert len(subordinate(str(path), "me", 1000)) == 3
