"""`@host`: the running system under overlays, mounted for real, as root and as an ordinary user."""

from __future__ import annotations

import json
import os

import pytest

from hutch.snapshot.host import host_rootfs
from hutch.snapshot.overlay import OverlaySnapshotter
from tests.conftest import Roots
from tests.support import trees
from tests.support.host import requires
from tests.support.users import OrdinaryUser

pytestmark = pytest.mark.host

_VIEW = """
import json, sys
from hutch.snapshot.host import host_rootfs
print(json.dumps(host_rootfs(sys.argv[1], "k", user=True).mounts))
"""
_REMOVE = """
import os, sys
from hutch.snapshot.overlay import OverlaySnapshotter
OverlaySnapshotter(sys.argv[1], user=True).remove("k")
print(os.listdir(sys.argv[1] + "/snapshots"), os.listdir(sys.argv[1] + "/tmp"))
"""


@requires("root", "fs:overlay")
def test_root_sees_the_host_and_writes_stay_in_the_snapshot(tmp_root: Roots):
    marker = f"hutch-test-{os.getpid()}"
    rootfs = host_rootfs(tmp_root.data, "k", user=False)
    os.mkdir(f"{tmp_root.base}/target")
    script = f"id -u; test -x /usr/bin/env && echo env; echo x > /etc/{marker}; cat /etc/{marker}; rm /etc/passwd"
    printed = trees.through(rootfs.mounts, f"{tmp_root.base}/target", "/bin/sh", "-c", script)
    assert printed.split() == ["0", "env", "x"]
    assert not os.path.exists(f"/etc/{marker}")
    assert os.path.exists("/etc/passwd")
    assert set(os.listdir(f"{rootfs.upper}/etc")) == {marker, "passwd"}
    OverlaySnapshotter(tmp_root.data, user=False).remove("k")
    assert os.listdir(f"{tmp_root.data}/snapshots") == []


@requires("root", "fs:overlay")
def test_the_data_root_is_not_in_the_view(tmp_root: Roots):
    os.mkdir(f"{tmp_root.data}/secret")
    rootfs = host_rootfs(tmp_root.data, "k", user=False)
    os.mkdir(f"{tmp_root.base}/target")
    printed = trees.through(
        rootfs.mounts,
        f"{tmp_root.base}/target",
        "/bin/sh",
        "-c",
        f"ls -A {tmp_root.data} | wc -l; stat -c %a {tmp_root.data}",
    )
    assert printed.split() == ["0", "0"]


@requires("userns", "fs:overlay")
def test_an_ordinary_user_sees_the_host_too(ordinary_user: OrdinaryUser):
    root = f"{ordinary_user.home}/data"
    target = f"{ordinary_user.home}/target"
    ordinary_user.run(["mkdir", "-m", "700", root, target])
    mounts = json.loads(ordinary_user.run([ordinary_user.python, "-c", _VIEW, root]).stdout)
    assert ("/usr", "overlay") in [(mount["destination"], mount["type"]) for mount in mounts]
    script = (
        "id -u; test -x /usr/bin/env && echo env; cat /etc/passwd | wc -l; "
        f"echo x > {ordinary_user.home}/new; echo y > /etc/new; cat /etc/new; ls -A {root} 2>/dev/null | wc -l"
    )
    command = trees.program(mounts, target, "/bin/sh", "-c", script, python=ordinary_user.python)
    printed = ordinary_user.run(command).stdout.split()
    assert printed[:2] == ["0", "env"]
    assert int(printed[2]) > 1
    assert printed[3:] == ["y", "0"]
    assert not os.path.exists(f"{ordinary_user.home}/new")
    assert not os.path.exists("/etc/new")
    assert ordinary_user.run([ordinary_user.python, "-c", _REMOVE, root]).stdout.strip() == "[] []"
