"""A data root on a read-only file system: what only reads works, what writes says why it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.evil import EvilImage, Layer
from tests.support.host import requires

pytestmark = requires("root")


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"HUTCH_CONFIG": "/nonexistent"})


@pytest.fixture
def close(tmp_root: Roots) -> Iterator[Callable[[], None]]:
    """Makes the data root read-only until the test is over."""
    data = tmp_root.data
    subprocess.run(["mount", "--bind", data, data], check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,bind,ro", data], check=True) and None
    subprocess.run(["umount", data], check=True)


@pytest.mark.parametrize("kernel", ["known", "new"])
def test_what_is_there_can_be_read(hutch: Cli, tmp_root: Roots, close: Callable[[], None], kernel: str) -> None:
    layout = EvilImage([Layer().file("f", b"data")], config={}).write_layout(f"{tmp_root.base}/image", "image")
    hutch("tag", hutch("load", "-i", layout).stdout.split()[-1], "image:1")
    hutch("volume", "create", "data")
    if kernel == "new":
        Path(f"{tmp_root.data}/snapshotter.json").unlink()  # then overlay would be tried out again
    close()
    assert hutch("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "image:1\n"
    assert hutch("volume", "ls", "-q").stdout == "data\n"
    for words in ("image inspect image:1", "history image:1", "ps -a", "volume inspect data", "info"):
        hutch(*words.split())
    hutch("save", "-o", f"{tmp_root.base}/saved", "image:1")
    for words in ("rmi image:1", "tag image:1 image:2", "image prune -f", "volume create other", "volume rm data"):
        assert "read-only file system" in hutch.fails(*words.split())


def test_an_empty_one_has_nothing(hutch: Cli, close: Callable[[], None]) -> None:
    close()
    assert hutch("images", "-q").stdout == ""
    assert hutch("volume", "ls", "-q").stdout == ""
    assert hutch("ps", "-aq").stdout == ""
    assert "read-only file system" in hutch.fails("volume", "create", "data")
