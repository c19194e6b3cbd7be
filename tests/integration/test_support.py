"""The test support itself: a leak check that cannot fail would let everything pass."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tests.support import files, leaks, requires
from tests.support.host import cgroup_mounts


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leaks, "_PATIENCE_S", 0.1)


@requires("root", "program:mount")
def test_a_leaked_mount_is_named(quick, tmp_path):
    before = leaks.inventory()
    subprocess.run(["mount", "-t", "tmpfs", "leak", tmp_path], check=True)
    try:
        assert str(tmp_path) in leaks.difference(before)
        with pytest.raises(OSError, match="still mounted"):
            files.remove_tree(str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert leaks.difference(before) == ""


def test_a_leaked_process_is_named_also_when_its_parent_is_gone(quick):
    before = leaks.inventory()
    out = subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True)
    pid = int(out.stdout)
    assert f"{pid} (S)" in leaks.difference(before)
    os.kill(pid, 9)
    time.sleep(0.05)
    assert leaks.difference(before) == ""
    assert not os.path.exists(f"/proc/{pid}")


@requires("root")
def test_a_leaked_cgroup_is_named(quick, cgroup_parent):
    before = leaks.inventory()
    top = cgroup_mounts()[0][0]
    path = f"{top}{cgroup_parent}/leak"
    os.mkdir(path)
    try:
        assert path in leaks.difference(before)
    finally:
        os.rmdir(path)


@requires("root")
def test_a_process_can_enter_the_cgroup_parent_in_each_hierarchy(cgroup_parent):
    for top, _, _ in cgroup_mounts():
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        with open(f"{top}{cgroup_parent}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(child.pid))
        child.communicate()


def test_tmp_root_is_private_and_goes(tmp_root):
    assert os.stat(tmp_root.data).st_mode & 0o777 == 0o700
    os.makedirs(f"{tmp_root.data}/a/b/c")
    os.chmod(f"{tmp_root.data}/a/b", 0)


def test_an_unknown_need_is_an_error():
    with pytest.raises(ValueError, match="unknown need"):
        requires("rooot")
