"""What starting a container imports: docs/design/start-up.md."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.registries import Registry

pytestmark = requires("root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
LIBRARIES = sysconfig.get_path("purelib")
PROGRAM = "import sys; sys.path[:0] = [sys.argv.pop(1), sys.argv.pop(1)]; from hutch.cli.main import run; run()"
# Each of these takes from one to twenty milliseconds, and brings others. (`_sqlite3` brings functools and collections.)
SLOW = frozenset(
    "argparse asyncio contextlib dataclasses enum hashlib http importlib inspect json logging "
    "msgspec pathlib platform random re rich shutil socket ssl subprocess tempfile threading typing urllib3".split()
)


def imported(roots: Roots, *words: str) -> set[str]:
    """The modules that `hutch WORDS` imports, started as the launcher starts it."""
    python = [sys.executable, "-I", "-S", "-X", "importtime", "-c", PROGRAM, str(SOURCE), LIBRARIES]
    env = {"PATH": os.environ["PATH"], "HUTCH_CONFIG": "/nonexistent"}
    done = subprocess.run([*python, *roots.options, *words], capture_output=True, text=True, check=True, env=env)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.fixture
def busybox(tmp_root: Roots, registry: Registry, busybox_image: Image) -> str:
    name = busybox_image.push(registry, "start/busybox:latest")
    Cli(tmp_root.options, {"HUTCH_CONFIG": "/nonexistent"})("pull", "-q", name)
    return name


def test_running_a_known_image_imports_nothing_slow(tmp_root: Roots, cgroup_parent: str, busybox: str) -> None:
    run = ("run", "--rm", "--cgroup-parent", cgroup_parent, "--network", "none")
    first = imported(tmp_root, *run, busybox, "true")
    assert "hutch.image.store" in first
    again = imported(tmp_root, *run, busybox, "true")
    assert not again & SLOW
    assert not {name for name in again if name.startswith("hutch.image")}


def test_running_the_host_imports_nothing_slow(tmp_root: Roots, cgroup_parent: str) -> None:
    run = ("run", "--rm", "--cgroup-parent", cgroup_parent, "--network", "none")
    imported(tmp_root, *run, "@host", "true")  # finds out how snapshots can be made here
    assert not imported(tmp_root, *run, "@host", "true") & SLOW


def test_a_name_that_comes_to_mean_another_image_runs_that(
    tmp_root: Roots, cgroup_parent: str, registry: Registry, busybox: str, debian_image: Image
) -> None:
    hutch = Cli(tmp_root.options, {"HUTCH_CONFIG": "/nonexistent"})
    run = ("run", "--rm", "--cgroup-parent", cgroup_parent, "--network", "none", "--pull=never")
    other = debian_image.push(registry, "start/debian:latest")
    hutch("pull", "-q", other)
    hutch("tag", busybox, "moving")
    assert hutch(*run, "moving", "test", "-e", "/etc/debian_version", check=False).returncode == 1
    hutch("tag", other, "moving")
    assert hutch(*run, "moving", "test", "-e", "/etc/debian_version", check=False).returncode == 0
    hutch("rmi", "moving")
    gone = hutch(*run, "moving", "true", check=False)
    assert gone.returncode == 125
    assert "no such image" in gone.stderr
