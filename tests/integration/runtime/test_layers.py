"""Root file systems made of layers inside the container's own mount namespace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hutch.linux.mountinfo import mountinfo
from tests.integration.runtime.conftest import Box
from tests.support.host import requires

pytestmark = requires("root", "fs:overlay")


class Layers:
    """Directories for an overlay: the busybox tree at the bottom, small layers over it, upper and work."""

    def __init__(self, box: Box, count: int) -> None:
        self.base = f"{box.base}/layers"
        self.lower = [f"{self.base}/l{index}" for index in range(count)]
        for index, path in enumerate(self.lower):
            os.makedirs(f"{path}/etc")
            Path(path, "etc", f"layer{index}").write_text(str(index))
            Path(path, "etc/top").write_text(str(index))
        self.lower.append(f"{box.bundle.path}/base")
        os.rename(box.rootfs, self.lower[-1])
        os.mkdir(box.rootfs)
        for name in ("upper", "work"):
            os.mkdir(f"{self.base}/{name}")
        box.spec["root"] = {"path": "rootfs"}

    def mount(self, *options: str) -> dict[str, Any]:
        """The overlay as an OCI mount."""
        lower = ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in self.lower)
        data = [f"lowerdir={lower}", f"upperdir={self.base}/upper", f"workdir={self.base}/work"]
        return {"destination": "/", "type": "overlay", "source": "overlay", "options": [*data, *options]}


@pytest.fixture
def no_leftovers(box: Box) -> Iterator[None]:
    before = {entry.mount_point for entry in mountinfo()}
    yield
    assert {entry.mount_point for entry in mountinfo()} == before


@pytest.mark.parametrize("count", [1, 3, 120])
def test_an_overlay_of_few_and_of_many_layers(box: Box, no_leftovers: None, count: int) -> None:
    layers = Layers(box, count)
    done = box.sh("cat /etc/top; echo; ls /etc | grep -c layer; echo new > /etc/new", root_mounts=[layers.mount()])
    assert done.out.split() == ["0", str(count)], done.err
    assert Path(layers.base, "upper/etc/new").read_text() == "new\n"
    assert os.listdir(box.rootfs) == []


def test_layers_with_names_that_need_escaping(box: Box, no_leftovers: None) -> None:
    layers = Layers(box, 1)
    odd = f"{layers.base}/a:b,c\\d"
    os.rename(layers.lower[0], odd)
    layers.lower[0] = odd
    assert box.run("cat", "/etc/layer0", root_mounts=[layers.mount()]).out == "0"


def test_a_read_only_root_of_layers(box: Box, no_leftovers: None) -> None:
    layers = Layers(box, 1)
    box.spec["root"]["readonly"] = True
    assert "Read-only file system" in box.sh("touch /x", root_mounts=[layers.mount()]).err


def test_further_root_mounts_go_below_the_first(box: Box, no_leftovers: None) -> None:
    layers = Layers(box, 1)
    os.mkdir(f"{box.base}/shared")
    Path(box.base, "shared/file").write_text("bound")
    more = {"destination": "/data", "type": "bind", "source": f"{box.base}/shared", "options": ["rbind", "ro"]}
    assert box.run("cat", "/data/file", root_mounts=[layers.mount(), more]).out == "bound"


def test_the_first_root_mount_is_the_root(box: Box) -> None:
    assert "the first one must be /" in box.fails("true", root_mounts=[{"destination": "/x", "type": "tmpfs"}])


def test_a_root_bound_from_elsewhere(box: Box, no_leftovers: None) -> None:
    elsewhere = f"{box.base}/elsewhere"
    shutil.move(box.rootfs, elsewhere)
    os.mkdir(box.rootfs)
    mount = {"destination": "/", "type": "bind", "source": elsewhere, "options": ["rbind"]}
    assert box.run("ls", "/bin/busybox", root_mounts=[mount]).out == "/bin/busybox\n"


def test_idmapped_layers_keep_plain_ids_on_disk(box: Box, no_leftovers: None) -> None:
    """The container's root is a host id without rights; on disk, what it makes belongs to root."""
    layers = Layers(box, 2)
    os.chown(f"{layers.lower[-1]}/etc/group", 5, 6)
    for path in (layers.base, *layers.lower):
        os.chmod(path, 0o755)
    box.user_namespace(1_000_000)
    os.chmod(f"{layers.base}/..", 0o700)  # the layers cannot be reached by the container's ids
    done = box.sh(
        "id -u; cat /proc/self/uid_map; stat -c %u:%g /etc/group; touch /etc/mine; chown 7:8 /etc/mine; cat /etc/top",
        root_mounts=[layers.mount("idmap")],
    )
    assert done.out.split() == ["0", "0", "1000000", "65536", "5:6", "0"], done.err
    found = os.stat(f"{layers.base}/upper/etc/mine")
    assert (found.st_uid, found.st_gid) == (7, 8)


def test_an_idmapped_bind_mount(box: Box, no_leftovers: None) -> None:
    box.user_namespace(1_000_000)
    os.mkdir(f"{box.base}/shared")
    os.mkdir(f"{box.rootfs}/data")
    box.mount("/data", "bind", "rbind", "idmap", source=f"{box.base}/shared")
    done = box.sh("stat -c %u:%g /data; touch /data/mine")
    assert done.out == "0:0\n", done.err
    assert os.stat(f"{box.base}/shared/mine").st_uid == 0


def test_mappings_of_the_mounts_own(box: Box, no_leftovers: None) -> None:
    os.mkdir(f"{box.base}/shared")
    os.chown(f"{box.base}/shared", 1234, 1234)
    mapping = [{"containerID": 1234, "hostID": 77, "size": 1}]
    mount = {"destination": "/data", "type": "bind", "source": f"{box.base}/shared", "options": ["bind"]}
    box.spec["mounts"].append({**mount, "uidMappings": mapping, "gidMappings": mapping})
    assert box.run("stat", "-c", "%u:%g", "/data").out == "77:77\n"
