"""Volumes on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hutch.errors import Conflict, HutchError, Internal, InvalidArgument, NotFound
from hutch.snapshot.layers import make_locked
from hutch.volume.local import LocalMount, local_mount
from hutch.volume.store import Volume, VolumeStore


def test_a_volume_is_made_once_and_keeps_its_labels(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    made = store.create("data", labels={"a": "b"})
    (Path(made.path) / "file").write_text("kept")
    again = store.create("data", labels={"c": "d"})
    assert again == made == store.get("data")
    assert again.labels == {"a": "b"}
    assert (Path(again.path) / "file").read_text() == "kept"
    assert os.stat(tmp_path / "volumes").st_mode & 0o777 == 0o700


def test_anonymous_volumes_have_names_of_their_own(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    one, other = store.create(), store.create()
    assert one.name != other.name
    assert len(one.name) == 64
    assert one.anonymous
    assert [volume.name for volume in store.list()] == sorted([one.name, other.name])


def test_a_volume_goes_with_its_data(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    path = Path(store.create("data").path)
    (path / "deep").mkdir()
    (path / "deep" / "file").touch()
    (path / "link").symlink_to("/etc")
    store.remove("data")
    assert store.list() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    for call in (store.get, store.remove):
        with pytest.raises(NotFound, match="get data: no such volume"):
            call("data")


@pytest.mark.parametrize("name", ["a", "..", "a/b", "-a", ".a", "a b", "a" * 256, "a\n", "ä" * 3])
def test_names_are_file_names(tmp_path: Path, name: str):
    store = VolumeStore(str(tmp_path))
    for call in (store.create, store.get, store.remove):
        with pytest.raises(InvalidArgument, match="volume name"):
            call(name)


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b'{"name": 5}', b"\xff" * 100, b'{"name": "other"}', b" " * ((1 << 20) + 1),
    b'{"name": "data", "options": {"type": "none"}}', b'{"name": "data", "labels": {"a": 1}}']
)  # fmt: skip
def test_x9_a_torn_record_is_named_and_its_volume_can_be_removed(tmp_path: Path, record: bytes):
    store = VolumeStore(str(tmp_path))
    store.create("data")
    store.create("whole")
    (tmp_path / "volumes" / "data" / "volume.json").write_bytes(record)
    assert [volume.name for volume in store.list()] == ["whole"]
    ((name, problem),) = store.broken()
    assert name == "data"
    assert "volume data: " in str(problem)
    assert f"{tmp_path}/volumes/data/_data" in problem.hint
    for call in (store.get, store.create):
        with pytest.raises(Internal, match="volume data: "):
            call("data")
    assert store.prune(tuple, lambda _volume: True).names == ("whole",)
    store.remove("data")
    assert os.listdir(tmp_path / "volumes") == os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("damage", ["no record", "no data", "data is a link", "a file"])
def test_x9_a_volume_with_a_part_missing_is_named(tmp_path: Path, damage: str):
    store = VolumeStore(str(tmp_path))
    place = Path(store.create("data").path).parent
    if damage == "no record":
        (place / "volume.json").unlink()
    elif damage == "a file":
        store.remove("data")
        place.write_text("")
    else:
        (place / "_data").rmdir()
        if damage == "data is a link":
            (place / "_data").symlink_to("/etc")
    assert [name for name, _ in store.broken()] == ["data"]
    with pytest.raises(Internal, match="volume data: damaged"):
        store.get("data")
    store.remove("data")
    assert store.broken() == ()
    assert os.listdir("/etc")


def test_nothing_there_is_an_empty_list_and_makes_nothing(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    assert store.list() == []
    assert store.broken() == ()
    with pytest.raises(NotFound, match="get data: no such volume"):
        store.remove("data")
    assert list(tmp_path.iterdir()) == []


def test_a_volume_in_use_stays(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    store.create("data")
    with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[one, two\]$"):
        store.remove("data", users=lambda: ["one", "two"])
    assert store.get("data")


def test_nobody_begins_to_use_a_volume_while_its_users_are_asked_for(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    store.create("data")
    users: list[str] = []
    announced = threading.Event()

    def use(name: str) -> None:
        users.append(name)
        announced.set()

    user = threading.Thread(target=lambda: VolumeStore(str(tmp_path)).create("data", announce=use))

    def ask() -> list[str]:
        user.start()
        announced.wait(0.2)
        return list(users)

    store.remove("data", users=ask)
    user.join()
    assert users == ["data"]
    assert store.get("data")  # made anew, for the one who came too late


def test_prune_takes_what_is_unused_and_chosen(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    for name in ("one", "two", "three"):
        with open(f"{store.create(name).path}/file", "wb") as file:
            file.write(b"x" * 10_000)
    assert store.usage("one") >= 10_000
    pruned = store.prune(lambda: ["one"], lambda volume: volume.name != "two")
    assert (pruned.names, pruned.problems) == (("three",), ())
    assert pruned.freed >= 10_000
    assert [volume.name for volume in store.list()] == ["one", "two"]


def test_what_killed_processes_left_is_swept_and_the_living_are_left_alone(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    store.create("data")
    tmp = tmp_path / "tmp"
    for name in ("volume-dead/_data", "gone-dead/_data", "layer-other"):
        (tmp / name).mkdir(parents=True)
    living = make_locked(str(tmp / "volume-living"))
    try:
        store.sweep()
        assert sorted(os.listdir(tmp)) == ["layer-other", "volume-living"]
    finally:
        os.close(living)
    store.remove("data")
    assert os.listdir(tmp) == ["layer-other"]


def test_options_belong_to_the_volume(tmp_path: Path):
    store = VolumeStore(str(tmp_path))
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    made = store.create("memory", options=options)
    assert made.mount == LocalMount("tmpfs", "tmpfs", "tmpfs", data=("size=1m",))
    assert store.create("memory", options=options) == store.create("memory") == made
    with pytest.raises(Conflict, match="already exists with other options"):
        store.create("memory", options={**options, "o": ""})
    with pytest.raises(InvalidArgument, match="invalid option"):
        store.create("other", options={"colour": "blue"})
    assert [volume.name for volume in store.list()] == ["memory"]


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        ("type=none device=/d o=bind", LocalMount("bind", device="/d")),
        ("type=none device=/d o=rbind,ro,noexec,rslave",
         LocalMount("bind", "", "/d", True, True, "rslave", ("noexec",))),
        ("type=tmpfs device=tmpfs", LocalMount("tmpfs", "tmpfs", "tmpfs")),
        ("type=tmpfs device=x o=size=10%,uid=5,mode=1770",
         LocalMount("tmpfs", "tmpfs", "tmpfs", data=("size=10%", "uid=5", "mode=1770"))),
        ("type=nfs device=:/exports o=addr=10.0.0.1,rw,vers=4.2,soft",
         LocalMount("nfs", "nfs", ":/exports", data=("addr=10.0.0.1", "vers=4.2", "soft"))),
        ("type=nfs4 device=server:/ o=ro", LocalMount("nfs", "nfs4", "server:/", True, data=("addr=server",))),
    ],
)  # fmt: skip
def test_options_of_the_local_driver(options: str, mount: LocalMount):
    given = dict(word.split("=", 1) for word in options.split())
    assert local_mount(given) == mount


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "none"}, 'missing required option: "device"'),
        ({"device": "/d"}, 'missing required option: "type"'),
        ({"o": "bind"}, 'missing required option: "type"'),
        ({"type": "none", "device": "/d"}, "needs bind or rbind"),
        ({"type": "none", "device": "d", "o": "bind"}, "not an absolute path"),
        ({"type": "none", "device": "/d", "o": "bind,size=1"}, "size=1: not an option of a bind mount"),
        ({"type": "none", "device": "/d\n", "o": "bind"}, "control characters"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=big"}, "size=big: not an option of a tmpfs mount"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "huge=always"}, "huge=always: not an option"),
        ({"type": "nfs", "device": ":/x"}, "needs addr=SERVER"),
        ({"type": "nfs", "device": "/x", "o": "addr=1.2.3.4"}, r"needs \[HOST\]:/PATH"),
        ({"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4,timeo=x"}, "timeo=x: not an option of a nfs mount"),
        ({"size": "1g"}, "volume option size"),
        ({"type": "ext4", "device": "/dev/sda"}, "volume type ext4: not supported"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], message: str):
    with pytest.raises(HutchError, match=message):
        local_mount(options)


def test_many_that_make_the_same_volume_get_the_same(tmp_path: Path):
    found: list[Volume] = []
    barrier = threading.Barrier(8)

    def make(number: int) -> None:
        store = VolumeStore(str(tmp_path))
        barrier.wait()
        found.append(store.create("data", labels={"n": str(number)}))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({volume.labels["n"] for volume in found}) == 1
    assert list((tmp_path / "tmp").iterdir()) == []
