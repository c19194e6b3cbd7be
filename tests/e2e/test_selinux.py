"""What asks for SELinux, on a host without it: marks to relabel are taken, labels are errors (row C15)."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Roots
from tests.e2e.test_volumes import Box
from tests.support.host import requires

pytestmark = [
    requires("root"),
    pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this host has SELinux"),
]


@pytest.fixture
def box(tmp_root: Roots, cgroup_parent: str) -> Box:
    return Box(tmp_root, cgroup_parent, many=0)


def test_marks_to_relabel_are_taken(box, tmp_path):
    (tmp_path / "f").write_text("host\n")
    for mark in ("z", "ro,Z"):
        assert box.run("cat", "/x/f", flags=("-v", f"{tmp_path}:/x:{mark}")) == "host\n"
    assert "security.selinux" not in os.listxattr(tmp_path / "f")
    box.cli(*box.argv("--name", "other", "-v", f"{tmp_path}:/x"), "true")
    assert box.run("cat", "/x/f", flags=("--volumes-from", "other:z")) == "host\n"


def test_c15_a_label_is_an_error(box):
    for label in ("type:my_t", "level:s0:c1,c2", "filetype:my_t", "user:u", "role:r", "nested"):
        said = box.run("true", flags=("--security-opt", f"label={label}"), status=125)
        assert f"label={label}: SELinux is not enabled" in said
    assert box.run("true", flags=("--security-opt", "label=disable")) == ""
