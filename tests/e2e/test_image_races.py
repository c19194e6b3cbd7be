"""`hutch run` and the removal of its image at the same time: the layers stay, or the image is fetched again."""

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
from tests.support.registries import Registry

pytestmark = requires("root")


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


@pytest.mark.parametrize("how", ["root", "mount"])
def test_an_image_removed_while_a_run_prepares(
    hutch: Cli, tmp_root: Roots, cgroup_parent: str, registry: Registry, busybox_image: Image, how: str
) -> None:
    """The run is held for a moment, a little later each time; what it has not claimed by then is gone."""
    name = busybox_image.push(registry, f"race/{how}:1")
    command = ["run", "--rm", "--cgroup-parent", cgroup_parent]
    image = name
    if how == "mount":
        image = busybox_image.push(registry, "race/base:1")
        command += [
            "--mount",
            f"type=image,src={name},dst=/other",
            image,
            "sh",
            "-c",
            "cat /other/etc/shells /etc/shells; sleep 0.5",
        ]
        expected = b"/bin/sh\n/bin/sh\n"
    else:
        command += [image, "sh", "-c", "cat /etc/shells; sleep 0.5"]
        expected = b"/bin/sh\n"
    kept = 0
    for step in range(12):
        hutch("pull", "-q", name)
        hutch("pull", "-q", image)
        argv = [*hutch.words, *command]
        with subprocess.Popen(argv, env=hutch.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            time.sleep(0.02 + 0.011 * step)
            run.send_signal(signal.SIGSTOP)
            with subprocess.Popen(
                [*hutch.words, "image", "prune", "--all", "--force"], env=hutch.env, stdout=subprocess.DEVNULL
            ) as prune:
                try:
                    prune.wait(0.6)
                except subprocess.TimeoutExpired:
                    pass  # it waits for a lock that the run holds
                kept += bool(os.listdir(f"{tmp_root.data}/layers"))
                run.send_signal(signal.SIGCONT)
                out, said = run.communicate(timeout=30)
                assert prune.wait(30) == 0
        assert (run.returncode, out) == (0, expected), said.decode()
    assert 0 < kept < 12, "the moments that matter were not met"
    hutch("image", "prune", "--all", "--force")
    assert os.listdir(f"{tmp_root.data}/layers") == []
