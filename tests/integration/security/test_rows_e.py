"""Rows E of the security table, and B4, B5 for copying: cp, diff, commit, export, and what is left at removal."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from hutch.engine.changes import open_layer
from hutch.engine.copying import copy_in, export
from hutch.engine.engine import Engine
from hutch.engine.inside import Inside
from hutch.errors import HutchError
from hutch.image.extract import Extractor
from hutch.image.layer import TarReader
from hutch.runtime.container import Container
from tests.integration.security.conftest import Canary, Host
from tests.support.evil import Layer
from tests.support.host import requires
from tests.support.races import swapping

pytestmark = requires("root", "program:busybox")

SECRET = b"of the host"
READS, WRITES = 2000, 2000
PATIENCE_S = 10


class Box:
    """A container "box" with /work/d, a directory with a file "secret" of its own.

    Attributes:
        host: the command it was started by.
        engine: the same, as a library.
    """

    def __init__(self, host: Host, *flags: str, image: str = "") -> None:
        self.host, self.engine = host, Engine(host.roots.data, host.roots.state)
        work = Layer().directory("work").directory("work/d")
        name = image or host.image("work", work)
        mode = f"--userns={host.mode}"
        host.cli("run", "-d", "--name=box", mode, "--cgroup-parent", host.cgroup, *flags, name, "sleep", "1000")
        # Made here, for overlay does not rename a directory of its lower layers.
        host.cli("exec", "box", "sh", "-c", "mkdir /work/own && echo of the container >/work/own/secret")

    @property
    def root(self) -> str:
        with self.engine.containers.find("box") as directory:
            container_id = directory.record.id
        with Container.load(self.engine.runtime_state, container_id) as running:
            return f"/proc/{running.pid}/root"

    def inside(self) -> Inside:
        return Inside(self.engine, self.engine.containers.find("box"))

    def end(self) -> None:
        self.host.cli("rm", "-f", "box")


@pytest.fixture
def running(box: Host) -> Iterator[Box]:
    found = Box(box)
    yield found
    found.end()


def test_e01_reading_while_the_path_is_swapped(running: Box, canary: Canary) -> None:
    seen: set[bytes] = set()
    failures = 0
    begun = time.monotonic()
    with swapping(f"{running.root}/work/own", str(canary.path)), running.inside() as files:
        for _ in range(READS):
            try:
                files.stat(b"/work/own/secret")
            except OSError:
                failures += 1
                continue
            try:
                seen.add(b"".join(files.read(b"/work/own/secret", b"x")))
            except OSError:  # the helper ends with what it met in the middle of an archive
                files.close()
                files.__init__(running.engine, files._directory)  # type: ignore[misc]
            if time.monotonic() - begun > PATIENCE_S:
                break
    assert failures, "nothing was swapped"
    assert any(b"of the container" in data for data in seen)
    assert not any(SECRET in data for data in seen)


def test_e01_writing_while_the_path_is_swapped(running: Box, canary: Canary) -> None:
    """Each of the files is resolved anew: in the container's directory, or nowhere."""
    layer = Layer()
    for number in range(WRITES):
        layer.file(f"own/{number}/secret", b"overwritten\n", mode=0o666)
    archive = layer.tar
    ended = 0
    begun = time.monotonic()
    with swapping(f"{running.root}/work/own", str(canary.path)):
        while ended < 4 and time.monotonic() - begun < PATIENCE_S:
            try:
                with running.engine.containers.find("box") as directory:
                    copy_in(running.engine, directory, "/work", [archive])
            except (HutchError, OSError):
                pass
            ended += 1
    canary.check()


def test_e02_nothing_is_mounted_in_a_running_container(running: Box) -> None:
    place = f"{running.root}/../mountinfo".replace("/root/..", "")
    before = Path(place).read_text()
    with running.inside() as files:
        assert files.stat(b"/work").mode
        assert Path(place).read_text() == before
        b"".join(files.read(b"/work", b"work"))
    with running.engine.containers.find("box") as directory, export(running.engine, directory) as stream:
        b"".join(stream)
        assert Path(place).read_text() == before


def test_e02_mount_points_that_are_swapped_while_a_stopped_container_is_read(box: Host, canary: Canary) -> None:
    """Three volumes, each mounted in the one before, the first shared with somebody who swaps the mount points."""
    found = Box(box, "-v", "one:/v", "-v", "two:/v/a", "-v", "three:/v/a/b")
    try:
        box.cli("exec", "box", "sh", "-c", "echo of the volume >/v/a/b/file")
        box.cli("kill", "box")
        box.cli("wait", "box")
        mounts = Path("/proc/self/mountinfo").read_text()
        shared = f"{box.roots.data}/volumes/one/_data/a"
        outcomes = set()
        with swapping(shared, str(canary.path)):
            for _ in range(8):
                try:
                    with found.inside() as files:
                        data = b"".join(files.read(b"/v", b"v"))
                    assert SECRET not in data
                    outcomes.add(b"of the volume" in data)
                    archive = Layer().file("new", b"written\n").tar
                    with found.engine.containers.find("box") as directory:
                        copy_in(found.engine, directory, "/v/a", [archive])
                except (HutchError, OSError):
                    outcomes.add(False)
        assert True in outcomes
        assert Path("/proc/self/mountinfo").read_text() == mounts
    finally:
        found.end()
        box.cli("volume", "rm", "one", "two", "three")


def test_e03_names_are_names(own_box: Host, tmp_path: Path) -> None:
    names = ["*", "file*", "[a]", "{a,b}", "$(touch flag)", "~", "a b", "-x"]
    found = Box(own_box)
    try:
        source = tmp_path / "source"
        source.mkdir()
        for plain in ("a", "b", "file1", *names):
            (source / plain).write_text(f"{plain}\n")
        own_box.cli("cp", f"{source}/.", "box:/work/d")
        for number, name in enumerate(names):
            out = tmp_path / str(number)
            out.mkdir()
            own_box.cli("cp", f"box:/work/d/{name}", f"{out}/")
            assert {path.name: path.read_text() for path in out.iterdir()} == {name: f"{name}\n"}
        assert "could not find" in own_box.cli.fails("cp", "box:/work/d/file?", f"{tmp_path}/")
    finally:
        found.end()


def test_e03_a_link_to_the_host_is_copied_as_a_link(own_box: Host, canary: Canary, tmp_path: Path) -> None:
    found = Box(own_box)
    try:
        own_box.cli("exec", "box", "ln", "-s", f"{canary.path}/secret", "/work/link")
        own_box.cli("cp", "box:/work/link", f"{tmp_path}/link")
        assert os.readlink(tmp_path / "link") == f"{canary.path}/secret"
        assert "could not find" in own_box.cli.fails("cp", "-L", "box:/work/link", f"{tmp_path}/followed")
    finally:
        found.end()


def hostile(canary: str) -> dict[str, Layer]:
    """Archives of somebody who was asked for "base"."""
    return {
        "climbs": Layer().file("base/../../secret", b"x"),
        "is absolute": Layer().file(f"{canary}/secret", b"x"),
        "has another base": Layer().file("other", b"x"),
        "goes through its own link": Layer().symlink("base", canary).file("base/secret", b"x"),
        "goes through a link below": Layer().directory("base").symlink("base/l", canary).file("base/l/secret", b"x"),
        "goes up through a link": Layer().directory("base").symlink("base/l", "../..").file("base/l/secret", b"x"),
        "makes a link a directory": Layer().directory("base").symlink("base/l", canary).directory("base/l", 0o777),
        "links hard to a link": (
            Layer().directory("base").symlink("base/l", f"{canary}/secret").hardlink("base/h", "base/l")
            .file("base/h", b"x")
        ),
        "links hard outside": Layer().directory("base").hardlink("base/h", "../canary/secret").file("base/h", b"x"),
    }  # fmt: skip


@pytest.mark.parametrize("what", hostile(""))
def test_e04_an_archive_from_a_hostile_side_stays_where_it_was_asked_for(
    canary: Canary, tmp_path: Path, what: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    before = set(os.listdir(tmp_path))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    stream = io.BytesIO(hostile(str(canary.path))[what].tar)
    try:
        Extractor(fd, host=True, base=b"base").consume(TarReader(lambda: stream.read(1 << 16)))
    except (HutchError, OSError):
        pass
    finally:
        os.close(fd)
    assert set(os.listdir(tmp_path)) == before
    assert set(os.listdir(place)) <= {"base"}
    canary.check()


def test_e04_nothing_that_gives_rights_comes_to_the_host(own_box: Host, tmp_path: Path) -> None:
    layer = Layer().directory("work").file("work/suid", b"x", mode=0o6755)
    layer.device("work/null", 1, 3, mode=0o666)
    found = Box(own_box, image=own_box.image("suid", layer))
    try:
        done = own_box.cli("cp", "box:/work", str(tmp_path))
        assert oct((tmp_path / "work/suid").stat().st_mode) == "0o100755"
        assert not (tmp_path / "work/null").exists()
        assert "device nodes are not copied" in done.stderr
    finally:
        found.end()


@pytest.mark.parametrize("verb", ["export", "layer"])
def test_e05_a_file_that_becomes_a_link_while_it_is_archived(running: Box, canary: Canary, verb: str) -> None:
    kinds = set()
    with swapping(f"{running.root}/work/own", str(canary.path)):
        for _ in range(8):
            with running.engine.containers.find("box") as directory:
                opened = export if verb == "export" else open_layer
                with opened(running.engine, directory) as stream:
                    data = b"".join(stream)
            assert SECRET not in data
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                names = {member.name.removeprefix("./"): member.type for member in tar}
            kinds.add(names.get("work/own"))
    assert kinds >= {tarfile.DIRTYPE, tarfile.SYMTYPE}, "nothing was swapped"


def test_e06_removal_does_not_enter_what_is_mounted(own_box: Host, canary: Canary) -> None:
    Box(own_box)
    own_box.cli("exec", "box", "mkdir", "/work/mnt")
    own_box.cli("kill", "box")
    own_box.cli("wait", "box")
    upper = next(Path(own_box.roots.data, "snapshots").glob("*/upper"))
    subprocess.run(["mount", "--bind", str(canary.path), f"{upper}/work/mnt"], check=True)
    try:
        assert "mounted" in own_box.cli.fails("rm", "-f", "box")
        canary.check()
    finally:
        places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        subprocess.run(["umount", next(place for place in places if place.endswith("/work/mnt"))], check=True)
    own_box.cli("rm", "-f", "box")
    own_box.cli("image", "prune", "--force")  # sweeps what the first attempt had moved out of the way


def test_b04_nothing_is_loaded_from_the_container(own_box: Host, tmp_path: Path) -> None:
    """What the helper opens once it has entered is what is copied, and nothing else."""
    layer = Layer().directory("etc").file("etc/nsswitch.conf", b"passwd: evil\ngroup: evil\n")
    layer.file("etc/passwd", b"root:x:0:0::/:/bin/sh\n").directory("lib").file("lib/libnss_evil.so.2", b"\x7fELF")
    layer.directory("work").directory("work/d").file("work/d/one", b"1").file("work/d/two", b"2")
    found = Box(own_box, image=own_box.image("nss", layer))
    try:
        (tmp_path / "in").write_text("in")
        for arguments in (["box:/work/d", f"{tmp_path}/out"], [f"{tmp_path}/in", "box:/work/d/in"]):
            log = tmp_path / "strace"
            argv = ["strace", "-f", "-o", str(log), "-e", "trace=setns,open,openat,openat2,execve,readlink,readlinkat"]
            done = subprocess.run([*argv, *own_box.cli.words, "cp", *arguments], env=own_box.cli.env, check=False)
            assert done.returncode == 0
            lines = [line.split(None, 1) for line in log.read_text().splitlines()]
            helper = next(pid for pid, call in lines if call.startswith("setns("))
            calls = [call for pid, call in lines if pid == helper]
            entered = calls[[index for index, call in enumerate(calls) if call.startswith("setns(")][-1] + 1 :]
            names = {match for call in entered for match in re.findall(r'"([^"]*)"', call)}
            allowed = {"/", ".", "work", "work/d", "/work", "/work/d", "/work/d/", "d", "one", "two", "in", "work/d/in"}
            assert {name for name in names if not name.isdigit()} <= allowed
            assert names & {"one", "in"}
            assert not any(call.startswith("execve(") for call in entered)
    finally:
        found.end()


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("packer", PACKERS)
def test_b05_compressed_archives_are_unpacked_by_us(own_box: Host, packer: str) -> None:
    layer = Layer().directory("work").directory("usr").directory("usr/bin")
    for name in ("gzip", "gunzip", "unpigz", "xz", "unxz", "zstd", "unzstd", "tar"):
        layer.file(f"usr/bin/{name}", b"#!/bin/sh\ntouch /work/flag\ncat\n", mode=0o755)
    found = Box(own_box, image=own_box.image("packers", layer))
    try:
        archive = PACKERS[packer](Layer().file("copied", b"content").tar)
        own_box.cli("cp", "-", "box:/work", stdin=archive)
        assert own_box.cli("exec", "box", "ls", "/work").stdout.split() == ["copied", "own"]
    finally:
        found.end()


def test_a17_mount_targets_that_are_links_lead_nowhere_in_a_stopped_container(
    box: Host, canary: Canary, tmp_path: Path
) -> None:
    """The engine's files are mounted for the copy, on whatever the image has in their place."""
    layer = Layer().directory("work").directory("etc")
    layer.symlink("etc/hosts", f"{canary.path}/secret").symlink("etc/resolv.conf", f"{canary.path}/new")
    layer.symlink("etc/hostname", "../" * 12 + str(canary.path).lstrip("/") + "/made")
    image = box.image("links", layer)
    box.cli("create", "--name=box", f"--userns={box.mode}", "--cgroup-parent", box.cgroup, image, "true")
    try:
        (tmp_path / "file").write_text("x")
        box.cli("cp", f"{tmp_path}/file", "box:/work/")
        box.cli("cp", f"{tmp_path}/file", "box:/etc/hosts", check=False)
        done = box.cli("cp", "-L", "box:/etc/hosts", "-", check=False)
        assert SECRET.decode() not in done.stdout
    finally:
        box.cli("rm", "-f", "box")
    canary.check()


def test_a18_a_link_in_a_volume_is_a_link_in_the_container(own_box: Host, canary: Canary, tmp_path: Path) -> None:
    found = Box(own_box, "-v", "shared:/vol")
    try:
        own_box.cli("exec", "box", "ln", "-s", str(canary.path), "/vol/link")
        own_box.cli("exec", "box", "ln", "-s", f"{canary.path}/secret", "/vol/file")
        (tmp_path / "own").write_text("of the caller")
        for stopped in (False, True):
            if stopped:
                own_box.cli("kill", "box")
                own_box.cli("wait", "box")
            for target in ("/vol/link/secret", "/vol/link/", "/vol/file"):
                own_box.cli.fails("cp", f"{tmp_path}/own", f"box:{target}")
            assert "could not find" in own_box.cli.fails("cp", "box:/vol/link/secret", "-")
    finally:
        found.end()
        own_box.cli("volume", "rm", "shared")
    canary.check()
