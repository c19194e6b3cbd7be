"""Containers as an attacker sees them: images of any kind, run by `hutch run` in both namespace modes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hutch.engine.containers import ContainerRecord
from hutch.engine.engine import Engine
from tests.conftest import Roots
from tests.integration.security.lab import Lab
from tests.support import faults
from tests.support.cli import Cli
from tests.support.evil import EvilImage, Layer
from tests.support.programs import run

APPLETS = "cat dd grep head id ln ls mkdir mknod mount mv readlink rm sh sleep stat touch tr true".split()


def base_layer() -> Layer:
    """busybox under a few names, and the usual empty directories."""
    busybox = Path(os.path.realpath("/bin/busybox")).read_bytes()
    layer = Layer().directory("bin").file("bin/busybox", busybox, mode=0o755).directory("tmp", mode=0o1777)
    for name in APPLETS:
        layer.symlink(f"bin/{name}", "busybox")
    return layer


@dataclasses.dataclass
class Host:
    """`hutch` with a private root and cgroup.

    Attributes:
        cli: the command.
        roots: its directories.
        cgroup: its containers' parent.
        mode: --userns.
    """

    cli: Cli
    roots: Roots
    cgroup: str
    mode: str

    def image(self, name: str, *layers: Layer, **config: object) -> str:
        """Load an image of `layers` over the base one; its settings are `config`."""
        layout = EvilImage([base_layer(), *layers], config=config).write_layout(f"{self.roots.base}/{name}", name)
        image_id = self.cli("load", "-i", layout).stdout.split()[-1]
        self.cli("tag", image_id, f"{name}:latest")
        return f"{name}:latest"

    def argv(self, image: str, *command: str, flags: Sequence[str] = ()) -> list[str]:
        """The command line of a run."""
        mode = f"--userns={self.mode}"
        return [*self.cli.words, "run", "--rm", mode, "--cgroup-parent", self.cgroup, *flags, image, *command]

    def run(
        self, image: str, *command: str, flags: Sequence[str] = (), status: int | None = 0, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        done = run(self.argv(image, *command, flags=flags), env=self.cli.env, check=False, timeout_s=timeout_s)
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def record(self, name: str) -> ContainerRecord:
        """What the store knows of a container."""
        return Engine(self.roots.data, self.roots.state).containers.find(name).record

    def left(self) -> dict[str, list[str]]:
        """What is in the engine's directories that a container would have left there."""
        return faults.left(self.roots.data, self.roots.state, self.cgroup)


@pytest.fixture
def cli(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


@pytest.fixture(params=["auto", "host"])
def box(request: pytest.FixtureRequest, cli: Cli, tmp_root: Roots, cgroup_parent: str) -> Iterator[Host]:
    """A host in each namespace mode; no container may be left on it."""
    found = Host(cli, tmp_root, cgroup_parent, request.param)
    yield found
    assert found.left() == {}


@pytest.fixture
def own_box(cli: Cli, tmp_root: Roots, cgroup_parent: str) -> Iterator[Host]:
    """A host with default options, where the mode makes no difference."""
    found = Host(cli, tmp_root, cgroup_parent, "auto")
    yield found
    assert found.left() == {}


@pytest.fixture
def lab(own_box: Host) -> Iterator[Lab]:
    """A bystander, and what it takes to make a container `x`."""
    found = Lab(own_box)
    yield found
    found.cli("rm", "-fv", "x", "y", "bystander")
    found.cli("volume", "rm", "named")


class Canary:
    """A directory of the host's that nothing may touch: content, modes, owners and times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "secret").write_text("of the host\n")
        (path / "directory").mkdir()
        self._before = self._look()

    def _look(self) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for place in [self.path, *sorted(self.path.rglob("*"))]:
            status = place.lstat()
            data = place.read_bytes() if place.is_file() else b""
            found.append((str(place), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, data))
        return found

    def check(self) -> None:
        """Fail if anything is other than it was."""
        assert self._look() == self._before


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    found = Canary(tmp_path / "canary")
    devices = sorted(os.listdir("/dev"))
    yield found
    found.check()
    assert sorted(os.listdir("/dev")) == devices
