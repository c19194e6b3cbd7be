"""Volumes on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hutch.errors import InvalidArgument, NotFound
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
        with pytest.raises(NotFound, match="volume data: no such volume"):
            call("data")


@pytest.mark.parametrize("name", ["a", "..", "a/b", "-a", ".a", "a b", "a" * 256, "a\n", "ä" * 3])
def test_names_are_file_names(tmp_path: Path, name: str):
    store = VolumeStore(str(tmp_path))
    for call in (store.create, store.get, store.remove):
        with pytest.raises(InvalidArgument, match="volume name"):
            call(name)


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"name": 5}', b"\xff" * 100])
def test_a_torn_record_does_not_lose_the_data(tmp_path: Path, record: bytes):
    store = VolumeStore(str(tmp_path))
    store.create("data")
    (tmp_path / "volumes" / "data" / "volume.json").write_bytes(record)
    assert [volume.name for volume in store.list()] == ["data"]
    assert store.get("data").path == str(tmp_path / "volumes" / "data" / "_data")


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
