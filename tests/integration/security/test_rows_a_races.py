"""Row A1 of the security table where it is a race: /proc is something else when hutch comes to use it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.security.conftest import APPLETS, Canary, Host
from tests.support.host import requires
from tests.support.races import swapping

pytestmark = requires("root", "program:busybox")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root file system that others may change while hutch uses it."""
    found = tmp_path / "rootfs"
    (found / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath("/bin/busybox"), found / "bin/busybox")
    for name in APPLETS:
        (found / "bin" / name).symlink_to("busybox")
    return found


def test_a01_a_swapped_parent_leads_no_mount_over_procfs(own_box: Host, rootfs: Path, canary: Canary) -> None:
    """The target's parent is a directory at one look and a link to /proc at the next."""
    own_box.mode = "host"
    (rootfs / "vol" / "self").mkdir(parents=True)
    flags = ("--rootfs", str(rootfs), "-v", f"{canary.path}:/vol/self:ro")
    script = "grep -c 'Seccomp:.2' /proc/self/status; cat /proc/self/mountinfo"
    outcomes = set()
    with swapping(f"{rootfs}/vol", "/proc"):
        for _ in range(12):
            done = own_box.run("/bin/sh", "-c", script, flags=flags, status=None)
            outcomes.add(done.returncode)
            if done.returncode:
                assert done.returncode == 125
                continue
            real, *mounts = done.stdout.splitlines()
            assert real == "1"
            places = [line.split()[4] for line in mounts if str(canary.path) in line.split()[3]]
            assert [place for place in places if place.startswith("/proc")] == []
    assert outcomes <= {0, 125}
