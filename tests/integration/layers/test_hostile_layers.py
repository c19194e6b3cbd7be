"""Layers that try to leave their directory, lie about metadata or reinterpret what lies below: rows D1-D6, D12, D14."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from hutch.errors import InvalidLayer
from tests.integration.layers.conftest import Place
from tests.support.evil import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK, Layer
from tests.support.host import requires

pytestmark = requires("root")

TYPES = {
    "file": (REGULAR, {}),
    "directory": (DIRECTORY, {}),
    "symlink": (SYMLINK, {"linkname": "/etc/passwd"}),
    "hardlink": (HARD_LINK, {"linkname": "anchor"}),
    "device": (CHARACTER, {"device": (1, 3)}),
    "block": (BLOCK_DEVICE, {"device": (7, 0)}),
    "fifo": (FIFO, {}),
}
REFUSED = {"up": b"../evil", "up-deep": b"a/../../evil", "up-only": b"..", "up-absolute": b"/../evil"}
KEPT = {
    "absolute": (b"/evil", b"evil"),
    "doubled": (b"//a//./evil", b"a/evil"),
    "not-utf8": (b"ev\xffil\xfe", b"ev\xffil\xfe"),
    "newline": (b"ev\nil", b"ev\nil"),
    "dots": (b"...", b"..."),
    "backslash": (b"..\\evil", b"..\\evil"),
    "longest": (b"n" * 255, b"n" * 255),
    "deep": (b"/".join([b"d" * 100] * 39), b"/".join([b"d" * 100] * 39)),
}


def entry(kind: str, name: bytes) -> Layer:
    typeflag, fields = TYPES[kind]
    return Layer("").file("anchor", b"anchor").entry(name, typeflag=typeflag, **fields)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_d01_a_name_that_climbs_out_is_refused(place: Place, kind: str, name: bytes):
    with pytest.raises(InvalidLayer, match="must not climb out of its root"):
        place.unpack(entry(kind, name))


def test_d01_odd_names_stay_inside(place: Place):
    layer = Layer("").file("anchor", b"anchor")
    for kind, (typeflag, fields) in TYPES.items():
        for given, _ in KEPT.values():
            layer.entry(b"/" + kind.encode() + b"/" + given, typeflag=typeflag, **fields)
    place.unpack(layer)
    for kind, (typeflag, _) in TYPES.items():
        for _, kept in KEPT.values():
            found = os.lstat(os.fsencode(place.directory) + b"/" + kind.encode() + b"/" + kept)
            assert stat.S_IFMT(found.st_mode) == {
                REGULAR: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, HARD_LINK: stat.S_IFREG,
                CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO,
            }[typeflag]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("").entry(b"", b""), "empty name"),
        (Layer("").entry("x", b"", pax={"path": b"a\0b"}), "holds a NUL"),
        (Layer("").entry("x", b"", pax={"path": b"p" * 4096}), "file name too long"),
        (Layer("").file("n" * 256), "file name too long"),
        (Layer("").file("/".join(["d"] * 3000)), "file name too long"),
        (Layer("").file("a").file("a/b"), "not a directory"),
        (Layer("").symlink("a", "a").file("a/b"), "too many levels of symbolic links"),
        (Layer("").hardlink("a", "missing"), "does not exist"),
        (Layer("").directory("d").hardlink("a", "d"), "cannot be its target"),
        (Layer("").hardlink("a", "../../canary/file"), "must not climb out"),
        (Layer("").file("a", b"", uid=4294967295), "out of range"),
        (Layer("").file("a", b"", uid=1 << 40), "out of range"),
        (Layer("").entry("a", typeflag=CHARACTER, device=(5000, 1)), "out of range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_d01_d11_impossible_entries_are_clear_errors(place: Place, layer: Layer, message: str):
    with pytest.raises(InvalidLayer, match=message):
        place.unpack(layer)


def outside(place: Place, *, absolute: bool) -> str:
    return place.canary if absolute else os.path.relpath(place.canary, place.directory)


@pytest.mark.parametrize("absolute", [True, False])
def test_d02_links_out_are_resolved_inside(place: Place, absolute: bool):
    target = outside(place, absolute=absolute)
    place.unpack(
        Layer("")
        .symlink("etc", target)
        .file("etc/file", b"evil")
        .file("etc/directory/new", b"evil", mode=0o777)
        .directory("etc/directory", 0o777, mtime=1)
        .symlink("twice", "etc")
        .file("twice/other", b"evil")
        .hardlink("etc/hard", "etc/file")
    )
    inside = target.replace("../", "").lstrip("/")
    assert place.read(f"{inside}/file") == b"evil"
    assert place.read(f"{inside}/other") == b"evil"


def test_d02_writing_to_a_name_that_is_a_link_replaces_the_link(place: Place):
    place.unpack(
        Layer("")
        .symlink("link", f"{place.canary}/file")
        .hardlink("hard", "link")
        .file("link", b"evil")
        .file("hard", b"evil")
        .symlink("directory", f"{place.canary}/directory")
        .directory("directory", 0o777)
        .file("directory/below", b"evil")
        .directory("swapped")
        .symlink("swapped", place.canary)
        .file("swapped/file", b"inside")
    )
    assert stat.S_ISREG(os.lstat(place.path("link")).st_mode)
    assert place.read("link") == place.read("hard") == b"evil"
    assert place.read("directory/below") == b"evil"
    assert os.path.islink(place.path("swapped"))
    assert place.read(f"swapped{place.canary}/file".replace("swapped/", "", 1)) == b"inside"


def test_d02_a_hard_link_does_not_follow_the_link_it_names(place: Place):
    place.unpack(Layer("").symlink("link", f"{place.canary}/file").hardlink("hard", "link"))
    assert os.readlink(place.path("hard")) == f"{place.canary}/file"


def test_d03_directories_swapped_under_way_do_not_lead_outside(place: Place):
    layer = Layer("")
    for number in range(1500):
        layer.directory(f"d{number % 7}/sub").file(f"d{number % 7}/sub/file{number}", b"x", mode=0o777)
    stop = threading.Event()

    swapped = []

    def swap() -> None:
        sub = place.path("d3/sub")
        while not stop.is_set():
            kept = place.path(f"d3/kept{len(swapped)}")
            try:
                os.rename(sub, kept)
                os.symlink(f"{place.canary}/directory", sub)
                swapped.append(kept)
                os.unlink(sub)
                os.rename(kept, sub)
            except OSError:  # not there yet, or the applier has put its own directory in the link's place
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(20):  # until the thread was quick enough to swap something
            with suppress(InvalidLayer, OSError):  # whatever the race makes of it, the canary decides
                place.unpack(layer)
            if swapped:
                break
    finally:
        stop.set()
        thread.join()
    assert swapped
    assert os.listdir(f"{place.canary}/directory") == []


@pytest.mark.parametrize("second", ["directory", "file"])
def test_d04_metadata_never_follow_a_link(place: Place, second: str):
    layer = Layer("").symlink("a", f"{place.canary}/file").symlink("b", f"{place.canary}/directory")
    pax: dict[str | bytes, str | bytes] = {"SCHILY.xattr.user.evil": "1"}
    for name in ("a", "b"):
        getattr(layer, second)(name, mode=0o777, mtime=1, uid=1234, pax=pax)
    layer.symlink("c", f"{place.canary}/file", uid=1234, mtime=1, pax=pax)
    place.unpack(layer)
    assert os.lstat(place.path("c")).st_uid == 1234
    assert os.lstat(place.path("a")).st_uid == 1234


@pytest.mark.parametrize("name", [".", "./", "/", ".//.", "//"])
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "directory"])
def test_d05_the_root_can_only_be_a_directory(place: Place, name: str, kind: str):
    with pytest.raises(InvalidLayer):
        place.unpack(entry(kind, name.encode()))
    assert os.path.isdir(place.directory)


def test_d05_the_root_entry_sets_the_roots_metadata(place: Place):
    place.unpack(Layer("").directory("./", 0o711, uid=5, gid=6, mtime=7))
    found = os.stat(place.directory)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o711, 5, 6, 7)


def test_d06_a_path_of_maximal_length_through_links_stays_inside(place: Place):
    # The shape that fooled realpath in tarfile's filters: link names that expand beyond PATH_MAX.
    component, path = "d" * 247, ""
    layer = Layer("")
    for step in "abcdefghijklmnop":
        layer.directory(f"{path}{component}").symlink(f"{path}{step}", component)
        path += f"{component}/"
        if len(path) > 3600:
            break
    short = "/".join("abcdefghijklmnop"[: path.count("/")])
    layer.symlink(f"{short}/{'l' * 254}", "../" * path.count("/"))
    layer.symlink("escape", f"{short}/{'l' * 254}/../../../../../../..{place.canary}")
    layer.file("escape/file", b"evil", mode=0o777)
    with contextlib.suppress(InvalidLayer):  # refused or resolved inside: the canary decides
        place.unpack(layer)


@pytest.mark.parametrize(
    "name",
    ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay.redirect",
     "trusted.overlay.metacopy", "user.overlay.metacopy", "trusted.anything", "security.ima", "security.evm",
     "security.selinux", "user.overlay.whiteout"],
)  # fmt: skip
def test_d12_attributes_that_speak_to_the_kernel_are_left_out(place: Place, name: str):
    pax: dict[str | bytes, str | bytes] = {f"SCHILY.xattr.{name}": "y", "SCHILY.xattr.user.kept": "v"}
    unpacked = place.unpack(Layer("").directory("d", pax=pax).file("f", pax=pax))
    for path in ("d", "f"):
        assert os.listxattr(place.path(path)) == ["user.kept"]
    assert any("left out" in note for note in unpacked.notes)


def test_d12_a_whiteout_device_in_a_layer_is_refused(place: Place):
    with pytest.raises(InvalidLayer, match="character device 0:0"):
        place.unpack(Layer("").device("hidden", 0, 0))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.x/y"])
def test_d12_whiteouts_of_what_is_no_name_are_refused(place: Place, name: str):
    with pytest.raises(InvalidLayer):
        place.unpack(Layer("").directory("a").file(name))


def test_d12_aufs_metadata_are_ignored(place: Place):
    layer = Layer("").directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"x").file(".wh..wh.aufs").file("kept")
    unpacked = place.unpack(layer)
    assert os.listdir(place.directory) == ["kept"]
    assert unpacked.notes == ("aufs metadata is ignored (3)",)


def test_d14_devices_and_setuid_files_are_kept_for_root(place: Place):
    layer = Layer("").device("null", 1, 3, mode=0o666).device("disk", 7, 1, block=True, gid=6, mode=0o660)
    layer.file("su", b"x", mode=0o4755, uid=0, gid=5).file("wall", b"x", mode=0o2755, uid=3, gid=5).fifo("pipe")
    place.unpack(layer)
    for name, mode, owner, device in (
        ("null", stat.S_IFCHR | 0o666, (0, 0), (1, 3)),
        ("disk", stat.S_IFBLK | 0o660, (0, 6), (7, 1)),
        ("su", stat.S_IFREG | 0o4755, (0, 5), (0, 0)),
        ("wall", stat.S_IFREG | 0o2755, (3, 5), (0, 0)),
    ):
        found = os.lstat(place.path(name))
        assert (found.st_mode, (found.st_uid, found.st_gid)) == (mode, owner)
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == device


def test_a_hard_link_to_a_file_of_a_lower_layer_copies_it_up(place: Place, another: Callable[[str], Place]):
    lower = another("lower")
    pax: dict[str | bytes, Any] = {"SCHILY.xattr.user.a": "b"}
    lower.unpack(
        Layer("").directory("usr", 0o751, uid=7, mtime=9).file("usr/f", b"data", mode=0o4711, uid=3, mtime=5, pax=pax)
    )
    place.unpack(Layer("").hardlink("bin", "usr/f"), lowers=(lower.directory,))
    one, other = os.stat(place.path("bin")), os.stat(place.path("usr/f"))
    assert one.st_ino == other.st_ino
    assert (stat.S_IMODE(one.st_mode), one.st_uid, one.st_mtime, place.read("bin")) == (0o4711, 3, 5, b"data")
    assert os.getxattr(place.path("bin"), "user.a") == b"b"
    parent = os.stat(place.path("usr"))
    assert (stat.S_IMODE(parent.st_mode), parent.st_uid, parent.st_mtime) == (0o751, 7, 9)


def test_what_a_whiteout_hides_is_no_target_of_a_hard_link(place: Place, another: Callable[[str], Place]):
    bottom, middle = another("lower-bottom"), another("lower-middle")
    bottom.unpack(Layer("").file("usr/f", b"data"))
    middle.unpack(Layer("").whiteout("usr/f"), lowers=(bottom.directory,))
    with pytest.raises(InvalidLayer, match="does not exist"):
        place.unpack(Layer("").hardlink("bin", "usr/f"), lowers=(middle.directory, bottom.directory))


def test_parents_that_no_entry_lists(place: Place):
    place.unpack(Layer("").file("a/b/c", b"x"))
    for name in ("a", "a/b"):
        assert stat.S_IMODE(os.stat(place.path(name)).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(place.directory).st_mode) == 0o755


def test_a_directory_over_a_directory_keeps_its_content(place: Place):
    place.unpack(Layer("").directory("d").file("d/f", b"x").directory("d", 0o700, mtime=3))
    assert place.read("d/f") == b"x"
    assert (stat.S_IMODE(os.stat(place.path("d")).st_mode), os.stat(place.path("d")).st_mtime) == (0o700, 3)


def test_modes_and_inheritance_of_directories_do_not_touch_their_files(place: Place):
    pax: dict[str | bytes, str | bytes] = {
        "SCHILY.xattr.system.posix_acl_default": bytes.fromhex(
            "0200000001000700ffffffff04000000ffffffff20000000ffffffff"
        )
    }
    layer = (
        Layer("").directory("d", 0o2555, gid=50, mtime=3, pax=pax).file("d/f", b"x", mode=0o644).directory("d/s", 0o755)
    )
    place.unpack(layer)
    assert (os.stat(place.path("d/f")).st_gid, os.stat(place.path("d/s")).st_gid) == (0, 0)
    assert stat.S_IMODE(os.stat(place.path("d/f")).st_mode) == 0o644
    assert os.listxattr(place.path("d/f")) == []
    assert (os.stat(place.path("d")).st_mode & 0o7777, os.stat(place.path("d")).st_mtime) == (0o2555, 3)
