"""SELinux labels of processes and of mounts, where the kernel has SELinux and a policy with categories."""

from __future__ import annotations

import os

import pytest

from tests.integration.runtime.conftest import Box
from tests.support.host import read, requires

pytestmark = [pytest.mark.host, requires("root", "selinux")]

PROCESS = "system_u:system_r:initrc_t:s0:c1,c2"
FILES = "system_u:object_r:tmp_t:s0:c1,c2"


def label_of(path: str) -> str:
    return os.getxattr(path, "security.selinux").decode().rstrip("\0")


@pytest.fixture
def permissive() -> None:
    if read("/sys/fs/selinux/enforce") != "0":
        pytest.skip("the policy is enforced, and the test's programs are not labelled for it")


def test_process_and_new_mounts_have_the_labels_that_were_asked_for(box: Box, permissive: None) -> None:
    box.process["selinuxLabel"] = PROCESS
    box.linux["mountLabel"] = FILES
    box.linux["maskedPaths"] = ["/sys/firmware"]
    box.mount("/long", "tmpfs", "iversion")  # by mount(2), where a label with commas needs quotes
    box.mount("/other", "tmpfs", f'context="{FILES.replace("c1,c2", "c3")}"')
    container = box.create("sleep", "1000")
    container.start()
    inside = f"/proc/{container.pid}/root"
    assert read(f"/proc/{container.pid}/attr/current").rstrip("\0\n") == PROCESS
    for place in ("dev", "dev/pts", "dev/shm", "dev/mqueue", "long", "sys/firmware"):
        assert label_of(f"{inside}/{place}") == FILES, place
    assert label_of(f"{inside}/other") == FILES.replace("c1,c2", "c3")
    assert label_of(f"{inside}/proc") != FILES


def test_c15_a_mount_label_that_the_policy_does_not_know_is_refused(box: Box) -> None:
    box.linux["mountLabel"] = "no:such:label:s0"
    assert "invalid argument" in box.fails("true").lower()


def test_c15_nothing_runs_under_a_process_label_that_the_policy_does_not_know(box: Box) -> None:
    box.process["selinuxLabel"] = "no:such:label:s0"
    done = box.sh("echo ran")
    assert done.status != 0
    assert done.out == ""


def test_without_a_label_a_container_stays_in_the_callers_domain(box: Box) -> None:
    assert box.sh("cat /proc/self/attr/current").out == read("/proc/self/attr/current")
