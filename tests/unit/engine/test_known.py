"""What is noted of an image is believed only as long as the list of images is the one it was made from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hutch.engine.image_settings import ImageSettings
from hutch.engine.known import FoundImage, list_state, note, recall

FOUND = FoundImage(
    image_id="sha256:" + "a" * 64,
    chain_ids=("sha256:" + "b" * 64, "sha256:" + "c" * 64),
    settings=ImageSettings(user="1:2", env=("A=b", "Ü=ö"), cmd=("sh",), labels=(("k", "v"),), architecture="amd64"),
)


def put_list(root: Path, text: str = "{}") -> None:
    (root / "content").mkdir(exist_ok=True)
    new = root / "content" / "new"
    new.write_text(text)
    os.rename(new, root / "content" / "index.json")


def noted(root: Path, text: str = "busybox", domain: str = "") -> None:
    state = list_state(str(root))
    assert state is not None
    note(str(root), text, domain, state, FOUND)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put_list(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", ["busybox", "a/b/c:1@sha256:0", "..", "%2F", "."])
def test_what_was_noted_is_recalled_whole(root: Path, text: str) -> None:
    noted(root, text)
    assert recall(str(root), text, "") == FOUND


def test_another_name_or_registry_is_not_known(root: Path) -> None:
    noted(root)
    assert recall(str(root), "busybox:latest", "") is None
    assert recall(str(root), "busybox", "registry.example") is None


def test_every_change_of_the_list_voids_the_note(root: Path) -> None:
    noted(root)
    put_list(root)
    assert recall(str(root), "busybox", "") is None


def test_nothing_is_noted_when_the_list_changed_meanwhile(root: Path) -> None:
    state = list_state(str(root))
    put_list(root)
    assert state is not None
    note(str(root), "busybox", "", state, FOUND)
    assert not (root / "known").exists()


@pytest.mark.parametrize("text", ["", "x" * 201, "a\nb", "ä", "a\0b"])
def test_unusual_names_are_looked_up_each_time(root: Path, text: str) -> None:
    noted(root, text)
    assert recall(str(root), text, "") is None
    assert not (root / "known").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("image_id", 7),
        ("chain_ids", "sha256"),
        ("chain_ids", [1]),
        ("settings", None),
        ("settings", {"user": "x"}),
        ("user", 0),
        ("env", "A=b"),
        ("env", [["A=b"]]),
        ("labels", [["k"]]),
        ("labels", {"k": "v"}),
        ("labels", [["k", 1]]),
    ],
)
def test_a_damaged_note_is_no_note(root: Path, key: str, value: Any) -> None:
    noted(root)
    (path,) = (root / "known").iterdir()
    document = json.loads(path.read_text())
    (document["settings"] if key in document["settings"] else document)[key] = value
    path.write_text(json.dumps(document))
    assert recall(str(root), "busybox", "") is None


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"[]", b'{"version": 1'])
def test_a_torn_note_is_no_note(root: Path, data: bytes) -> None:
    noted(root)
    (path,) = (root / "known").iterdir()
    path.write_bytes(data)
    assert recall(str(root), "busybox", "") is None


def test_notes_are_few_and_private(root: Path) -> None:
    for number in range(300):
        noted(root, f"image{number}")
    assert len(os.listdir(root / "known")) <= 256
    assert (root / "known").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (root / "known").iterdir())
