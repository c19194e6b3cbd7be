"""Control-C at any moment: status 130, not a word of Python's, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import wait_until
from tests.support.registries import Registry

pytestmark = requires("root")

# 130 when hutch saw it, the signal itself when that was before hutch ran; a shell shows 130 for both.
INTERRUPTED = (130, -signal.SIGINT)


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


def interrupted(cli: Cli, *arguments: str, after_s: float, times: int = 1) -> subprocess.Popen[bytes]:
    """Run a command line and interrupt it; it must end soon, as interrupted, in silence."""
    argv = [*cli.words, *arguments]
    with subprocess.Popen(argv, env=cli.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        time.sleep(after_s)
        said = b""
        for attempt in range(100):
            process.send_signal(signal.SIGINT)
            # What reaches a process 1 before it has a handler is lost, as with any engine: then once more.
            try:
                _, said = process.communicate(timeout=0.01 if attempt < times else 0.2)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            process.kill()
    assert b"/src/hutch/" not in said, said.decode()  # the interpreter's own start has no better manners
    assert process.returncode in INTERRUPTED, (process.returncode, said.decode())
    return process


def left(roots: Roots) -> dict[str, list[str]]:
    """What is there besides images. Nothing: nobody was killed, so no successor has to clean up either."""
    folders = [
        *(f"{roots.data}/{name}" for name in ("containers", "snapshots", "ids", "volumes", "tmp")),
        *(f"{roots.state}/{name}" for name in ("runtime", "monitors")),
    ]
    found = {path: os.listdir(path) for path in folders if os.path.isdir(path)}
    return {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("times", [1, 3])
def test_a_run_interrupted_at_any_moment(
    hutch: Cli, tmp_root: Roots, cgroup_parent: str, registry: Registry, busybox_image: Image, times: int
) -> None:
    name = busybox_image.push(registry, "interrupt/busybox:1")
    hutch("pull", "-q", name)
    argv = ["run", "--rm", "--cgroup-parent", cgroup_parent, "-v", "/some/where", name]
    hutch(*argv, "true")
    script = "trap 'exit 130' INT; while :; do sleep 0.01; done"
    for step in range(12):
        interrupted(hutch, *argv, "sh", "-c", script, after_s=0.04 + 0.012 * step, times=times)
        wait_until(lambda: not left(tmp_root), 5, explain=lambda: f"left: {left(tmp_root)}")


def test_a_pull_interrupted_in_the_middle(
    hutch: Cli, tmp_root: Roots, registry: Registry, layered_image: Image
) -> None:
    name = layered_image.push(registry, "interrupt/layered:1")
    layers = f"{tmp_root.data}/layers"
    os.mkdir(layers)
    for step in range(4):
        interrupted(hutch, "pull", "-q", name, after_s=0.12 + 0.05 * step)
        assert all(os.path.exists(f"{layers}/{layer}/layer.json") for layer in os.listdir(layers))
    assert hutch("pull", "-q", name).stdout == f"{name}\n"
