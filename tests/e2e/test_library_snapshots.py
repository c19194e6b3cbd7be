"""Snapshots, resets and clones: a container's files, to the last attribute."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hutch
from hutch.errors import Conflict, InvalidArgument, NotFound, NotSupported
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root")

_CHANGES = """
    mkdir -p /tree/deep && echo content > /tree/deep/file && ln /tree/deep/file /tree/hard
    ln -s deep/file /tree/soft && mkfifo /tree/fifo && chmod 4755 /tree/deep/file && chown 12:34 /tree/deep
    rm /etc/group && rm -r /root && mkdir /root && touch -d '2001-02-03 04:05:06' /tree
    dd if=/dev/zero of=/tree/holes bs=1 count=1 seek=10000000 2>/dev/null
"""
_SHOW = "cd / && find tree root etc -exec stat -c '%n %f %u %g %h %Y' {} + | sort; cat tree/hard; readlink tree/soft"


def shown(container: hutch.Container) -> bytes:
    result = container.exec(["sh", "-c", _SHOW])
    assert result.exit_code == 0, result
    lines = result.stdout.splitlines(keepends=True)
    # Mounted by the engine: the same in none.
    return b"".join(line for line in lines if not line.startswith((b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")))


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_a_container_gets_its_files_back(lib, userns):
    with lib.start(userns_mode=userns, volumes=["kept:/volume"]) as c:
        assert c.exec(["sh", "-c", _CHANGES]).exit_code == 0
        before, pid = shown(c), c.attrs["State"]["Pid"]
        snapshot = c.snapshot()
        assert c.status == "running" and c.attrs["State"]["Pid"] == pid
        assert c.exec(["sh", "-c", "rm -r /tree /root; mkdir /more /tree; echo > /volume/file"]).exit_code == 0
        c.reset(snapshot)
        assert c.status == "running" and c.attrs["State"]["Pid"] != pid
        assert shown(c) == before
        assert c.exec("ls /more /volume").stdout == b"/volume:\nfile\n"
        blocks = int(c.exec("stat -c %b /tree/holes").stdout)
        assert blocks < 100, "holes stay holes"
        c.reset(snapshot.name)  # as often as one likes
        assert shown(c) == before
        c.stop(timeout=0)
        c.reset(snapshot)
        assert c.status == "exited"
        c.start()
        assert shown(c) == before


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_a_clone_is_like_its_original_and_apart_from_it(lib, userns):
    options = {"environment": {"A": "b"}, "labels": {"l": "m"}, "mem_limit": "64m", "working_dir": "/tmp"}
    with lib.start(userns_mode=userns, volumes=["kept:/volume"], **options) as c:
        assert c.exec(["sh", "-c", _CHANGES]).exit_code == 0
        before = shown(c)
        with c.clone("twin") as twin:
            assert (twin.status, twin.name, twin.image, twin.labels) == ("running", "twin", lib.image, c.labels)
            assert shown(twin) == before
            assert twin.exec(["sh", "-c", "echo $A; pwd"]).stdout == b"b\n/tmp\n"
            assert twin.attrs["HostConfig"]["Memory"] == 64 << 20
            twin.exec(["sh", "-c", "rm -r /tree; touch /volume/shared"])
            assert shown(c) == before
            assert c.exec("ls /volume").stdout == b"shared\n"
        snapshot = c.snapshot("then")
        c.exec("rm -r /tree")
        with c.clone(snapshot=snapshot, start=False) as twin:
            assert twin.status == "created"
            twin.start()
            assert shown(twin) == before
        c.stop(timeout=0)
        with c.clone() as twin:
            assert twin.status == "created"
    assert lib.left() == []


def test_attributes_and_capabilities_move_with_the_ids(lib):
    with lib.start() as c:
        c.exec(["sh", "-c", "cp /bin/busybox /able; touch /plain"])
        upper = f"{lib.engine.root}/snapshots/{c.id}/upper"
        first = os.stat(f"{upper}/able").st_uid
        subprocess.run(["setcap", "-n", str(first), "cap_net_raw+ep", f"{upper}/able"], check=True)
        os.setxattr(f"{upper}/plain", "user.note", b"kept")
        with c.clone(start=False) as twin:
            copy = f"{lib.engine.root}/snapshots/{twin.id}/upper"
            moved = os.stat(f"{copy}/able").st_uid
            assert moved != first
            capability = os.getxattr(f"{copy}/able", "security.capability")
            assert int.from_bytes(capability[20:24], "little") == moved
            assert os.getxattr(f"{copy}/plain", "user.note") == b"kept"


def test_snapshots_have_names(lib):
    with lib.start() as c:
        c.snapshot("one")
        time.sleep(0.01)
        two = c.snapshot("two")
        assert [snapshot.name for snapshot in c.snapshots()] == ["one", "two"]
        with pytest.raises(Conflict):
            c.snapshot("one")
        assert [snapshot.name for snapshot in c.snapshots()] == ["one", "two"]
        two.remove()
        with pytest.raises(NotFound):
            two.remove()
        for wrong in (two, "two", "none"):
            with pytest.raises(NotFound):
                c.reset(wrong)
        with pytest.raises(NotFound):
            c.clone(snapshot="none")
        with pytest.raises(InvalidArgument):
            c.snapshot("../../etc")
    assert os.listdir(f"{lib.engine.root}/snapshots") == []


def test_what_removes_itself_is_reset_all_the_same(lib):
    c = lib.start(auto_remove=True)
    snapshot = c.snapshot()
    c.put("/file", b"")
    c.reset(snapshot)
    assert c.exec("ls /file").exit_code == 1
    c.kill()
    wait_until(lambda: lib.left() == [], 5)
    assert os.listdir(f"{lib.engine.root}/snapshots") == []


def test_a_directory_of_the_host_has_no_snapshots(lib, tmp_path):
    with (
        lib.engine.containers.create("", "sh", rootfs=str(tmp_path), cgroup_parent=lib.cgroup) as c,
        pytest.raises(NotSupported, match="a directory of the host"),
    ):
        c.snapshot()


def test_it_stands_still_and_goes_on_meanwhile(lib):
    """Two files that are written one after the other are never seen apart."""
    script = "i=0; while true; do i=$((i+1)); echo $i > /first; echo $i > /second; done"
    with lib.start(["sh", "-c", script]) as c:
        wait_until(lambda: c.exec("ls /second").exit_code == 0, 5)
        threads = [threading.Thread(target=c.snapshot, args=(f"n{number}",)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(5):
            place = f"{lib.engine.root}/snapshots/{c.id}-snapshot-n{number}/files/upper"
            first, second = (Path(place, name).read_text().strip() or "0" for name in ("first", "second"))
            assert int(first) - int(second) in (0, 1) or "0" in (first, second)  # one is empty while it is written
        assert c.status == "running"


def test_many_at_once(lib):
    with lib.start() as c:
        errors = []

        def work(number):
            try:
                c.snapshot(f"n{number}")
                c.clone(f"twin{number}").remove(force=True)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(snapshot.name for snapshot in c.snapshots()) == [f"n{number}" for number in range(8)]
    assert os.listdir(f"{lib.engine.root}/snapshots") == []


def test_a_program_killed_in_the_middle_leaves_the_container_running(lib):
    with lib.start(name="big") as c:
        c.exec(["sh", "-c", "mkdir /many; cd /many; for i in $(seq 1500); do echo $i > $i; done"])
        for delay_s in (0.0, 0.05):
            with lib.program("print('go', flush=True); engine.containers.get('big').snapshot()") as program:
                program.stdout.readline()
                time.sleep(delay_s)
                program.kill()
        wait_until(lambda: c.status == "running", 10)
        assert c.exec("ls /many").stdout.count(b"\n") == 1500
    assert lib.left() == [] and os.listdir(f"{lib.engine.root}/snapshots") == []
