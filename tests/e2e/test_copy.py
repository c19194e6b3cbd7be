"""`hutch cp`, `diff`, `commit` and `export` as users meet them; docker's rules for paths are in conformance."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.registries import Registry


class Box:
    """A container "box" of busybox that sleeps, in one of the ways to keep layers and ids."""

    def __init__(self, roots: Roots, cgroup: str, image: Image, *, snapshotter: str = "", userns: str = "") -> None:
        config = f"{roots.base}/hutch.toml"
        Path(config).write_text(f'[storage]\nsnapshotter = "{snapshotter}"\n' if snapshotter else "")
        self.cli = Cli(roots.options, {"HUTCH_CONFIG": config})
        image.copy_to(f"docker-archive:{roots.base}/busybox.tar:busybox:latest")
        self.cli("load", "-q", "-i", f"{roots.base}/busybox.tar")
        self.flags = ["--cgroup-parent", cgroup, *([f"--userns={userns}"] if userns else [])]

    def start(self, *flags: str) -> None:
        self.cli("run", "-d", "--name=box", *self.flags, *flags, "busybox", "sleep", "1000")

    def sh(self, script: str) -> str:
        return self.cli("exec", "box", "sh", "-ec", script).stdout

    def stop(self) -> None:
        self.cli("kill", "box")
        self.cli("wait", "box")

    def archive(self, *arguments: str) -> dict[str, tarfile.TarInfo]:
        done = subprocess.run([*self.cli.words, *arguments], env=self.cli.env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            return {member.name.removeprefix("./"): member for member in tar}


@pytest.fixture(params=["auto", "host", "copy"])
def box(request, tmp_root: Roots, cgroup_parent: str, busybox_image: Image) -> Box:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    copy = request.param == "copy"
    return Box(
        tmp_root,
        cgroup_parent,
        busybox_image,
        snapshotter="copy" if copy else "",
        userns="" if copy else request.param,
    )


def test_both_ways_running_and_stopped(box: Box, tmp_path: Path):
    box.start("-v", "data:/data")
    source = tmp_path / "file"
    source.write_text("content\n")
    os.chown(source, 1234, 1235)
    for state in ("running", "stopped"):
        if state == "stopped":
            box.stop()
        box.cli("cp", str(source), f"box:/data/{state}")
        box.cli("cp", "-a", str(source), f"box:/{state}")
        assert (box.archive("cp", f"box:/data/{state}", "-")[state].uid) == 0
        kept = box.archive("cp", f"box:/{state}", "-")[state]
        assert (kept.uid, kept.gid) == (1234, 1235)
        box.cli("cp", f"box:/{state}", str(tmp_path / state))
        assert (tmp_path / state).stat().st_uid == 0
        box.cli("cp", "-a", f"box:/{state}", str(tmp_path / f"{state}-a"))
        assert (tmp_path / f"{state}-a").stat().st_uid == 1234
    box.cli("start", "box")
    assert box.sh("cat /data/* /running /stopped; stat -c %u:%g /data/stopped /stopped").split() == [
        *["content"] * 4, "0:0", "1234:1235",
    ]  # fmt: skip
    assert box.cli("diff", "box").stdout == "A /running\nA /stopped\n"
    box.cli("rm", "-f", "box")
    box.cli("volume", "rm", "data")


def test_a_commit_runs_as_the_container_was(box: Box):
    box.start("-e", "A=1", "-w", "/work", "-l", "label=x")
    box.sh(
        "echo x >/work/file; chown 7:8 /work/file; ln /work/file /work/hard; rm /etc/shells; rm -r /home;"
        "mkdir /home; touch /home/new; mkfifo /work/fifo; chmod 4755 /work/hard; touch /work/.wh.kept"
    )
    assert "C /etc\nD /etc/shells\n" in box.cli("diff", "box").stdout
    done = box.cli("commit", "-m", "message", "-c", 'CMD ["cat", "file"]', "box", "mine")
    assert done.stdout.startswith("sha256:")
    assert ".wh." in done.stderr
    assert box.sh("echo goes on") == "goes on\n"
    box.cli("rm", "-f", "box")
    run = ["run", "--rm", *box.flags, "mine"]
    assert box.cli(*run).stdout == "x\n"
    looked = box.cli(*run, "sh", "-c", "echo $A; stat -c '%a %u:%g %h' hard; ls /home /etc/shells 2>&1; ls -a").stdout
    assert looked.splitlines()[:2] == ["1", "4755 7:8 2"]
    assert "new" in looked
    assert "/etc/shells: No such file" in looked
    assert ".wh.kept" not in looked


def test_an_export_has_no_volumes_and_can_be_imported(box: Box):
    box.start("-v", "data:/data", "--tmpfs", "/t")
    box.sh("echo x >/data/x; echo y >/t/y; echo z >/z; mkdir /d && chown 9:9 /d")
    running = box.archive("export", "box")
    box.stop()
    stopped = box.archive("export", "box")
    assert running.keys() == stopped.keys()
    assert {"z", "d", "data", "bin/busybox"} <= running.keys()
    assert not {"data/x", "t/y", "proc/1", "etc/hosts/"} & running.keys()
    assert (running["d"].uid, running["d"].gid) == (9, 9)
    archive = f"{os.path.dirname(box.cli.env['HUTCH_CONFIG'])}/export.tar"
    box.cli("export", "-o", archive, "box")
    box.cli("import", archive, "flat")
    assert box.cli("run", "--rm", *box.flags, "flat", "cat", "/z").stdout == "z\n"
    box.cli("rm", "-f", "box")
    box.cli("volume", "rm", "data")


@pytest.mark.parametrize("box", ["auto"], indirect=True)
def test_what_is_read_only_stays_so(box: Box, tmp_path: Path):
    (tmp_path / "f").write_text("")
    box.start("--read-only", "-v", "data:/data", "-v", f"{tmp_path}:/host:ro")
    for state in ("running", "stopped"):
        if state == "stopped":
            box.stop()
        assert "container rootfs is marked read-only" in box.cli.fails("cp", f"{tmp_path}/f", "box:/etc/f")
        assert "mounted volume is marked read-only" in box.cli.fails("cp", f"{tmp_path}/f", "box:/host/new")
        box.cli("cp", f"{tmp_path}/f", f"box:/data/{state}")
    assert os.listdir(tmp_path) == ["f"]
    box.cli("rm", "-f", "box")
    box.cli("volume", "rm", "data")


@pytest.mark.parametrize("box", ["auto"], indirect=True)
def test_a_container_goes_on_after_a_commit_that_failed_or_was_interrupted(box: Box):
    box.start()
    box.sh("dd if=/dev/urandom of=/big bs=1M count=64 2>/dev/null")
    assert "not one of" in box.cli.fails("commit", "-c", "FROM x", "box")
    with subprocess.Popen([*box.cli.words, "commit", "box"], env=box.cli.env, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while "Paused" not in box.cli("ps").stdout and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert "Paused" not in box.cli("ps").stdout
    assert box.sh("echo goes on") == "goes on\n"
    assert box.cli("images", "-q").stdout.count("\n") == 1
    box.cli("rm", "-f", "box")


@pytest.mark.parametrize("box", ["auto"], indirect=True)
def test_what_is_said(box: Box):
    box.start()
    said = box.cli.fails
    assert "copying between containers is not supported" in said("cp", "box:/a", "box:/b")
    assert "must specify at least one container source" in said("cp", "/a", "/b")
    assert "could not find the file /nope in container box" in said("cp", "box:/nope", "-")
    assert "no such container: nobody" in said("cp", "nobody:/a", "-")
    assert "must be a directory" in said("cp", "-", "box:/etc/passwd", stdin=b"")
    assert "tar" in said("cp", "-", "box:/", stdin=b"no archive" * 100)
    assert 'invalid output path: directory "/nope" does not exist' in said("cp", "box:/etc", "/nope/x")
    box.cli("rm", "-f", "box")


@requires("userns")
@pytest.mark.parametrize("kind", ["ordinary_user", "single_id_user"])
def test_an_ordinary_user(kind, request, registry: Registry, busybox_image: Image):
    user = request.getfixturevalue(kind)
    name = busybox_image.push(registry, "copy/busybox:latest")

    def hutch(*arguments: str) -> str:
        return user.run([user.hutch, *arguments]).stdout

    hutch("run", "-d", "--name=box", name, "sleep", "1000")
    owner = "5:6" if kind == "ordinary_user" else "0:0"
    try:
        hutch("exec", "box", "sh", "-c", f"mkdir /d; echo x >/d/f; chown {owner} /d/f; rm /etc/shells")
        assert hutch("diff", "box") == "A /d\nA /d/f\nC /etc\nD /etc/shells\n"
        hutch("cp", "box:/d", f"{user.home}/out")
        assert os.stat(f"{user.home}/out/f").st_uid == user.uid
        hutch("cp", f"{user.home}/out/f", "box:/d/back")
        image = hutch("commit", "box").strip()
        hutch("kill", "box")
        hutch("wait", "box")
        hutch("cp", f"{user.home}/out/f", "box:/d/stopped")
        hutch("export", "-o", f"{user.home}/export.tar", "box")
    finally:
        hutch("rm", "-f", "box")
    listed = hutch("run", "--rm", image, "sh", "-c", "stat -c %u:%g /d/f /d/back; ls /d")
    assert listed.split() == [owner, "0:0", "back", "f"]
    with tarfile.open(f"{user.home}/export.tar") as tar:
        assert (tar.getmember("./d/f").uid, tar.getmember("./d/stopped").uid) == (int(owner[0]), 0)
