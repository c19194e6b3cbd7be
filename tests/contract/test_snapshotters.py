"""What every Snapshotter promises, on the same layers, against a model that applies them in plain Python."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from hutch.errors import InvalidArgument, InvalidState, NotFound
from hutch.image.unpack import unpack_into
from hutch.linux import mount
from hutch.snapshot.copy import CopySnapshotter
from hutch.snapshot.layers import LayerStore
from hutch.snapshot.overlay import OverlaySnapshotter
from tests.conftest import Roots
from tests.support import trees
from tests.support.evil import Layer, digest_of
from tests.support.files import unmount_below
from tests.support.host import requires

if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

pytestmark = [requires("root"), pytest.mark.leaks_nothing]

KINDS: dict[str, Callable[[str], Snapshotter]] = {
    "overlay": lambda root: OverlaySnapshotter(root, user=False),
    "overlay-user": lambda root: OverlaySnapshotter(root, user=True),
    "copy": CopySnapshotter,
}


@pytest.fixture(params=KINDS)
def layers(request: pytest.FixtureRequest, tmp_root: Roots) -> Snapshotter:
    if request.param.startswith("overlay") and (reason := _no_overlay()):
        pytest.skip(reason)
    return KINDS[request.param](tmp_root.data)


def _no_overlay() -> str:
    with open("/proc/filesystems") as file:
        return "" if "overlay" in file.read() else "the kernel has no overlay"


def commit(layers: Snapshotter, *contents: Layer) -> list[str]:
    """Unpack and commit a chain; returns its chain ids."""
    chain: list[str] = []
    for content in contents:
        chain_id = digest_of(f"{chain} {content.diff_id}".encode())
        if not layers.has(chain_id):
            with layers.stage(chain_id, chain) as stage:
                blob_fd = os.memfd_create("layer")
                os.write(blob_fd, content.tar)
                os.lseek(blob_fd, 0, os.SEEK_SET)
                done = unpack_into(stage.path, blob_fd, lowers=stage.lowers, whiteouts=stage.whiteouts)
                os.close(blob_fd)
                stage.commit(diff_id=done.diff_id, size=done.size, opaque=done.opaque)
        chain.append(chain_id)
    return chain


def view(layers: Snapshotter, tmp_root: Roots, chain: Sequence[str]) -> trees.Tree:
    target = f"{tmp_root.base}/target"
    os.makedirs(target, exist_ok=True)
    rootfs = layers.prepare("view", chain)
    tree: trees.Tree = trees.through(rootfs.mounts, target)
    layers.remove("view")
    return tree


def names(tree: trees.Tree) -> set[str]:
    return set(tree) - {"."}


BASE = (
    Layer("").directory("./", mtime=1).directory("d", 0o711, uid=1, mtime=2).file("d/keep", b"k").file("d/hide", b"h")
    .directory("d/sub").file("d/sub/x", b"x").directory("o").file("o/old", b"o").symlink("l", "d").file("f", b"f")
)  # fmt: skip


EVERYTHING = {"d", "d/keep", "d/hide", "d/sub", "d/sub/x", "o", "o/old", "l", "f"}
IN_D = {"d/keep", "d/hide", "d/sub", "d/sub/x"}
# A second layer; what of the first is then gone; what is new.
CASES: list[tuple[Layer, set[str], set[str]]] = [
    (Layer("").whiteout("d/hide"), {"d/hide"}, set()),
    (Layer("").whiteout("d"), IN_D | {"d"}, set()),
    (Layer("").whiteout("l"), {"l"}, set()),
    (Layer("").whiteout("missing"), set(), set()),
    (Layer("").directory("o").opaque("o").file("o/new", b"n"), {"o/old"}, {"o/new"}),
    (Layer("").directory("o").file("o/new", b"n").opaque("o"), {"o/old"}, {"o/new"}),
    (Layer("").opaque("o"), {"o/old"}, set()),
    (Layer("").whiteout("d").directory("d").file("d/new", b"n"), IN_D, {"d/new"}),
    (Layer("").directory("d").file("d/new", b"n").whiteout("d"), IN_D, {"d/new"}),
    (Layer("").whiteout("d").file("d/new", b"n"), IN_D, {"d/new"}),
    (Layer("").file("d", b"now a file"), IN_D, set()),
    (Layer("").directory("f").file("f/in", b"i"), set(), {"f/in"}),
    (Layer("").file("f", b"n").directory("f").file("f/in", b"i"), set(), {"f/in"}),
    (Layer("").file("d", b"n").directory("d"), IN_D, set()),
    (Layer("").directory("l").file("l/in", b"i"), set(), {"l/in"}),
    (Layer("").whiteout("f").file("f", b"again"), set(), set()),
    (Layer("").file("f", b"again").whiteout("f"), set(), set()),
    (Layer("").opaque(""), EVERYTHING, set()),
    (Layer("").opaque("").file("only", b"1"), EVERYTHING, {"only"}),
    (Layer("").hardlink("again", "d/keep"), set(), {"again"}),
    (Layer("").file("d/sub/deep/new", b"n"), set(), {"d/sub/deep", "d/sub/deep/new"}),
    (Layer("").directory("d", 0o700, uid=5, mtime=9), set(), set()),
]  # fmt: skip


def test_d12_the_merged_view_is_what_the_layers_say(layers: Snapshotter, tmp_root: Roots):
    target = f"{tmp_root.base}/target"
    os.mkdir(target)
    mounts = []
    for number, (upper, _, _) in enumerate(CASES):
        os.mkdir(f"{target}/{number}")
        rootfs = layers.prepare(f"case{number}", commit(layers, BASE, upper))
        mounts += [{**one, "destination": f"/{number}{one['destination']}"} for one in rootfs.mounts]
    tree: trees.Tree = trees.through(mounts, target)
    for number, (_, gone, new) in enumerate(CASES):
        found = {name.partition("/")[2] for name in tree if name.startswith(f"{number}/")}
        assert found == EVERYTHING - gone | new, f"case {number}"
        layers.remove(f"case{number}")


def test_metadata_survive_the_snapshotter(layers: Snapshotter, tmp_root: Roots):
    upper = (
        Layer("")
        .file("d/new", b"n")
        .file("s", b"x", mode=0o4755, uid=7, gid=8, mtime=3, pax={"SCHILY.xattr.user.a": "b"})
    )
    tree = view(layers, tmp_root, commit(layers, BASE, upper))
    assert tree["d"][:4] == [oct(stat.S_IFDIR | 0o711), 1, 0, 2_000_000_000]  # a parent the second layer does not list
    assert tree["."][3] == 1_000_000_000
    assert tree["s"][:4] == [oct(stat.S_IFREG | 0o4755), 7, 8, 3_000_000_000]
    assert tree["s"][5] == {"user.a": b"b".hex()}


def test_a_hundred_layers(layers: Snapshotter, tmp_root: Roots):
    contents = [Layer("").file(f"f{number}", b"x").file("top", b"%d" % number) for number in range(100)]
    chain: list[str] = []
    for content in contents:  # by hand: unpacking each in a process of its own is not what this is about
        chain_id = digest_of(content.tar)
        with layers.stage(chain_id, chain) as stage:
            for name in (f"f{len(chain)}", "top"):
                with open(f"{stage.path}/{name}", "w") as file:
                    file.write(str(len(chain)))
            stage.commit()
        chain.append(chain_id)
    tree = view(layers, tmp_root, chain)
    assert names(tree) == {"top", *(f"f{number}" for number in range(100))}
    assert tree["top"][4][0] == 2


def test_writes_stay_in_the_snapshot(layers: Snapshotter, tmp_root: Roots):
    chain = commit(layers, BASE)
    target = f"{tmp_root.base}/target"
    os.mkdir(target)
    script = "import os; os.unlink('f'); open('d/keep','w').write('changed'); open('new','w').close()"
    rootfs = layers.prepare("one", chain)
    mounts = [*rootfs.mounts]
    program = trees.program(mounts, target, "/unused")
    program[2] = program[2].replace("os.chroot(target)", "os.chdir(target); exec(command[0]); raise SystemExit")
    subprocess.run([*program[:-1], script], check=True)
    tree: trees.Tree = trees.through(
        layers.prepare("one", chain).mounts, target
    )  # prepared again: what was written is there
    assert names(tree) == {"d", "d/keep", "d/hide", "d/sub", "d/sub/x", "o", "o/old", "l", "new"}
    assert layers.usage("one").inodes >= 3
    assert names(view(layers, tmp_root, chain)) == EVERYTHING
    assert layers.snapshots() == ["one"]
    layers.remove("one")
    layers.remove("one")
    assert layers.snapshots() == []
    with pytest.raises(NotFound):
        layers.usage("one")


def test_d14_device_nodes_of_an_image_cannot_be_opened(layers: Snapshotter, tmp_root: Roots):
    chain = commit(layers, Layer("").device("null", 1, 3, mode=0o666).device("disk", 7, 0, block=True, mode=0o666))
    target = f"{tmp_root.base}/target"
    os.mkdir(target)
    program = trees.program(layers.prepare("k", chain).mounts, target, "/unused")
    program[2] = program[2].replace("os.chroot(target)", "os.chdir(target); exec(command[0]); raise SystemExit")
    for name in ("null", "disk"):
        script = f"os.lstat({name!r}); os.open({name!r}, os.O_RDONLY)"
        done = subprocess.run([*program[:-1], script], capture_output=True, text=True, check=False)
        assert "PermissionError: [Errno 13]" in done.stderr
    layers.remove("k")


def test_an_image_without_layers(layers: Snapshotter, tmp_root: Roots):
    tree = view(layers, tmp_root, [])
    assert list(tree) == ["."]
    assert tree["."][0] == oct(stat.S_IFDIR | 0o755)


def test_a_stage_that_is_not_committed_leaves_nothing(layers: Snapshotter, tmp_root: Roots):
    chain_id = digest_of(b"x")
    with pytest.raises(RuntimeError), layers.stage(chain_id, []) as stage:
        os.mkdir(f"{stage.path}/directory")
        raise RuntimeError
    with layers.stage(chain_id, []):
        pass
    assert not layers.has(chain_id)
    assert os.listdir(f"{tmp_root.data}/tmp") == os.listdir(f"{tmp_root.data}/layers") == []


def test_two_that_commit_the_same_layer(layers: Snapshotter, tmp_root: Roots):
    chain_id = digest_of(b"x")
    with layers.stage(chain_id, []) as one, layers.stage(chain_id, []) as other:
        other.commit(size=1)
        one.commit(size=2)
    assert layers.info(chain_id).size == 1
    assert layers.layers() == [chain_id]
    assert os.listdir(f"{tmp_root.data}/tmp") == []


def test_layers_go_when_they_are_removed(layers: Snapshotter, tmp_root: Roots):
    chain = commit(layers, BASE)
    assert layers.layers() == chain
    layers.remove_layer(chain[0])
    layers.remove_layer(chain[0])
    assert layers.layers() == []
    assert os.listdir(f"{tmp_root.data}/layers") == []
    with pytest.raises(NotFound):
        layers.prepare("k", chain)


def test_a_layer_without_its_marker_is_none(layers: Snapshotter, tmp_root: Roots):
    chain = commit(layers, BASE)
    marker = f"{tmp_root.data}/layers/{chain[0].replace(':', '-')}/layer.json"
    for content in (b"", b"{", b'{"chain_id": 1}', b"[]"):
        with open(marker, "wb") as file:
            file.write(content)
        assert not layers.has(chain[0])
        assert layers.layers() == []
    commit(layers, BASE)
    assert layers.has(chain[0])
    os.unlink(marker)
    assert layers.sweep() == 1
    assert os.listdir(f"{tmp_root.data}/layers") == []


def test_what_a_crash_left_is_swept_and_what_is_alive_is_not(layers: Snapshotter, tmp_root: Roots):
    with layers.stage(digest_of(b"x"), []) as stage:
        for name in ("layer-dead", "gone-dead", "gone-dead/deep"):
            os.mkdir(f"{tmp_root.data}/tmp/{name}")
        assert layers.sweep() == 2
        assert os.path.isdir(stage.path)


@pytest.mark.parametrize("name", ["", "x", "sha256:..", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "../" + "0" * 64])
def test_d01_chain_ids_are_digests(layers: Snapshotter, name: str):
    for call in (layers.has, layers.info, layers.remove_layer, lambda chain_id: layers.stage(chain_id, [])):
        with pytest.raises(InvalidArgument):
            call(name)


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "/a", "-a", "a" * 256, "a\n", "a\0"])
def test_d01_keys_are_file_names(layers: Snapshotter, key: str):
    for call in (lambda key: layers.prepare(key, []), layers.remove, layers.usage):
        with pytest.raises(InvalidArgument):
            call(key)


@pytest.mark.parametrize("root", ["relative", "/a:b", "/a,b", "/a\\b"])
def test_a_data_root_that_mount_options_cannot_name_is_refused(root: str):
    with pytest.raises(InvalidArgument):
        LayerStore(root, "trusted")


def test_e06_what_is_mounted_in_a_snapshot_is_not_deleted(layers: Snapshotter, tmp_root: Roots):
    precious = f"{tmp_root.base}/precious"
    os.makedirs(f"{precious}/below")
    with open(f"{precious}/file", "w") as file:
        file.write("precious")
    layers.prepare("k", [])
    inside = f"{tmp_root.data}/snapshots/k/a/b"
    os.makedirs(f"{inside}/mounted")
    os.close(os.open(f"{inside}/file", os.O_CREAT))
    mount.mount(precious, f"{inside}/mounted", None, mount.MS_BIND)
    mount.mount(f"{precious}/file", f"{inside}/file", None, mount.MS_BIND)
    try:
        with pytest.raises(InvalidState, match="something is mounted in it"):
            layers.remove("k")
        assert sorted(os.listdir(precious)) == ["below", "file"]
    finally:
        unmount_below(tmp_root.data)
    with open(f"{precious}/file") as file:
        assert file.read() == "precious"
    layers.sweep()
    assert os.listdir(f"{tmp_root.data}/tmp") == []


def test_h03_nobody_else_reaches_layers_or_snapshots(layers: Snapshotter, tmp_root: Roots):
    os.chmod(tmp_root.base, 0o755)
    chain = commit(layers, Layer("").file("su", b"x", mode=0o4755))
    layers.prepare("k", chain)
    with layers.stage(digest_of(b"other"), []) as stage:
        paths = [
            f"{tmp_root.data}/layers/{chain[0].replace(':', '-')}/diff/su",
            f"{tmp_root.data}/snapshots/k",
            stage.path,
        ]
        for path in paths:
            assert os.path.lexists(path)
        done: list[Any] = []

        def look() -> None:
            script = " || ".join(f"test -e {path}" for path in paths)
            argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]
            child = os.posix_spawnp(argv[0], argv, os.environ)
            done.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert done == [1]
    layers.remove("k")
