"""Volumes as root uses them: made, filled, shared, mounted in other ways, removed; and whole whoever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.evil import EvilImage, Layer
from tests.support.host import requires

APPLETS = "cat cp df find grep head id ln ls mkdir mv rm sh sleep stat touch true wc".split()
MANY = 1500


class Box:
    """`hutch` with a private root and cgroup, and an image of busybox with something in /full and /etc."""

    def __init__(self, roots: Roots, cgroup: str, many: int) -> None:
        self.cli = Cli(roots.options, {"HUTCH_CONFIG": "/nonexistent"})
        self.roots, self.cgroup = roots, cgroup
        busybox = Path(os.path.realpath("/bin/busybox")).read_bytes()
        layer = Layer().directory("bin").file("bin/busybox", busybox, mode=0o755).directory("tmp", mode=0o1777)
        for name in APPLETS:
            layer.symlink(f"bin/{name}", "busybox")
        layer.directory("full", mode=0o2750, uid=7, gid=8).file("full/one", b"of the image\n", mode=0o640, uid=7)
        layer.directory("full/deep").symlink("full/deep/link", "/etc").file("full/deep/two", b"two\n")
        layer.directory("empty", mode=0o700, uid=9)
        layer.directory("many")
        for number in range(many):
            layer.file(f"many/{number}", b"x" * 100)
        upper = (
            Layer().directory("full", mode=0o2750, uid=7, gid=8).whiteout("full/gone").file("full/three", b"three\n")
        )
        layout = EvilImage([layer, upper], config={}).write_layout(f"{roots.base}/image", "image")
        self.cli("tag", self.cli("load", "-i", layout).stdout.split()[-1], "image:latest")

    def argv(self, *flags: str) -> list[str]:
        return ["run", "--cgroup-parent", self.cgroup, *flags, "image"]

    def run(self, *command: str, flags: tuple[str, ...] = (), status: int = 0) -> str:
        """Run to the end with --rm; what it printed, or what hutch said where it must fail."""
        done = self.cli(*self.argv("--rm", *flags), *command, check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def names(self) -> list[str]:
        return self.cli("volume", "ls", "-q").stdout.split()

    def inspect(self, name: str) -> dict:
        return json.loads(self.cli("volume", "inspect", name).stdout)[0]

    def left(self) -> list[str]:
        """What killed processes left in tmp/."""
        tmp = f"{self.roots.data}/tmp"
        return os.listdir(tmp) if os.path.isdir(tmp) else []


@pytest.fixture
def box(tmp_root: Roots, cgroup_parent: str) -> Box:
    return Box(tmp_root, cgroup_parent, 1)


@pytest.fixture
def slow(tmp_root: Roots, cgroup_parent: str) -> Box:
    """Its image has so much in /many that a test can come in between."""
    return Box(tmp_root, cgroup_parent, MANY)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[list[str]]:
    """Directories on which a test has mounted something."""
    points: list[str] = []
    yield points
    for point in reversed(points):
        subprocess.run(["umount", point], check=True)


def test_a_volumes_life(tmp_root):
    cli = Cli(tmp_root.options)
    assert cli("volume", "ls").stdout.split() == ["DRIVER", "VOLUME", "NAME"]
    assert cli("volume", "create", "--label", "a=b", "--label", "c", "data").stdout == "data\n"
    assert cli("volume", "create", "data").stdout == "data\n"
    anonymous = cli("volume", "create").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", anonymous)
    assert ["local", "data"] in [line.split() for line in cli("volume", "ls").stdout.splitlines()]
    (shown,) = json.loads(cli("volume", "inspect", "data").stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown.pop("CreatedAt"))
    assert shown == {
        "Driver": "local",
        "Labels": {"a": "b", "c": ""},
        "Mountpoint": f"{tmp_root.data}/volumes/data/_data",
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    assert cli("volume", "inspect", "-f", "{{.Name}} {{.Labels.a}}", "data").stdout == "data b\n"
    row = json.loads(cli("volume", "ls", "--format", "json", "-f", "name=dat").stdout)
    assert (row["Name"], row["Labels"], row["Driver"], row["Scope"]) == ("data", "a=b,c=", "local", "local")
    for filters, names in (
        (["label=a"], ["data"]),
        (["label=a=b", "label=c"], ["data"]),
        (["label=a=x"], []),
        (["label=com.docker.volume.anonymous"], [anonymous]),
        (["driver=other"], []),
        (["dangling=true", "name=data"], ["data"]),
        (["dangling=false"], []),
    ):
        flags = [word for text in filters for word in ("--filter", text)]
        assert cli("volume", "ls", "-q", *flags).stdout.split() == names
    assert "invalid filter 'colour'" in cli.fails("volume", "ls", "--filter", "colour=blue")
    assert "get none: no such volume" in cli.fails("volume", "inspect", "none")
    assert "get none: no such volume" in cli.fails("volume", "rm", "none")
    assert cli("volume", "rm", "-f", "none").stdout == "none\n"
    assert "no terminal to confirm at" in cli.fails("volume", "prune")
    done = cli("volume", "prune", "-f").stdout
    assert done == f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B\n"
    assert cli("volume", "prune", "-af", "--filter", "label!=a").stdout == "Total reclaimed space: 0B\n"
    assert cli("volume", "rm", "data").stdout == "data\n"
    assert cli("volume", "ls", "-q").stdout == ""
    assert os.listdir(f"{tmp_root.data}/tmp") == []


def test_a_volume_gets_what_the_image_has_whole_and_once(box):
    shown = box.run("ls", "-an", "/x/full", flags=("-v", "one:/full", "-v", "one:/x/full"))
    assert shown.splitlines()[1].split()[:4] == ["drwxr-s---", "3", "7", "8"]
    assert {line.split()[8] for line in shown.splitlines()[3:]} == {"one", "three", "deep"}
    box.run("sh", "-c", "rm /full/one; echo mine > /full/three", flags=("-v", "one:/full"))
    assert box.run("sh", "-c", "ls /full; cat /full/three", flags=("-v", "one:/full")) == "deep\nthree\nmine\n"
    assert box.run("ls", "/full", flags=("-v", "two:/full:nocopy")) == ""
    assert box.run("ls", "/full", flags=("--mount", "src=three,dst=/full,volume-nocopy")) == ""
    assert box.run("stat", "-c", "%a %u", "/empty", flags=("-v", "four:/empty")) == "700 9\n"
    assert sorted(os.listdir(f"{box.roots.data}/volumes/one")) == ["_data", "volume.json"]
    assert "Read-only" in box.run("touch", "/full/x", flags=("-v", "one:/full:ro"), status=1)


def test_a18_a_planted_link_is_not_followed_and_a_populated_volume_is_not_filled(box, tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    flags = ("-v", "data:/full:nocopy")
    box.run("ln", "-s", str(canary), "/full/deep", flags=flags)
    assert box.run("ls", "/full", flags=("-v", "data:/full")) == "deep\n"
    error = box.run("true", flags=("--mount", "src=data,dst=/y,volume-subpath=deep,volume-nocopy"), status=125)
    assert "volume data: subpath deep: no such file or directory" in error
    assert list(canary.iterdir()) == []


def test_a_part_of_a_volume(box):
    box.run("true", flags=("-v", "data:/full"))
    part = "src=data,dst=/y,volume-subpath=deep"
    assert box.run("ls", "/y", flags=("--mount", part)) == "link\ntwo\n"
    box.run("sh", "-c", "echo more > /y/more", flags=("--mount", part))
    assert "Read-only" in box.run("touch", "/y/z", flags=("--mount", f"{part},ro"), status=1)
    assert box.run("cat", "/y", flags=("--mount", "src=data,dst=/y,volume-subpath=deep/more")) == "more\n"
    # /etc in it is the volume's own, not the image's and not the host's
    assert "no such file" in box.run("ls", flags=("--mount", "src=data,dst=/y,volume-subpath=deep/link"), status=125)
    box.run("sh", "-c", "mkdir /full/etc; echo inside > /full/etc/hostname", flags=("-v", "data:/full"))
    assert box.run("ls", "/y", flags=("--mount", "src=data,dst=/y,volume-subpath=deep/link")) == "hostname\n"
    for path in ("../up", "/etc", "a/../../b", ""):
        error = box.run("true", flags=("--mount", f"src=data,dst=/y,volume-subpath={path}"), status=125)
        assert "must be a relative path within the volume" in error


def test_a_part_of_an_image(box):
    part = "type=image,src=image,dst=/y,image-subpath=full"
    assert box.run("sh", "-c", "ls /y; cat /y/three; stat -c %a:%u /y", flags=("--mount", part)) == (
        "deep\none\nthree\nthree\n2750:7\n"
    )
    assert "Read-only" in box.run("touch", "/y/z", flags=("--mount", part), status=1)
    assert box.run("sh", "-c", "touch /y/z; ls /y", flags=("--mount", f"{part},rw=true")) == "deep\none\nthree\nz\n"
    assert box.run("ls", "/y", flags=("--mount", f"{part}/deep")) == "link\ntwo\n"
    assert "no such directory" in box.run("true", flags=("--mount", f"{part}/one"), status=125)
    # a link of the image ends in the image: its /etc is not there
    assert "no such directory" in box.run("true", flags=("--mount", f"{part}/deep/link"), status=125)


def test_volumes_from_another_container(box, tmp_path):
    (tmp_path / "f").write_text("host\n")
    given = ("--name", "other", "-v", "data:/full", "-v", f"{tmp_path}:/b:ro", "-v", "/anonymous", "--tmpfs", "/t")
    box.cli(*box.argv(*given), "sh", "-c", "echo kept > /anonymous/f; echo data > /full/f")
    shown = box.run("sh", "-c", "cat /full/f /anonymous/f /b/f; ls /t", flags=("--volumes-from", "other"), status=1)
    assert "/t: No such file" in shown
    command = "cat /full/f /anonymous/f /b/f; touch /b/x || touch /full/x || true"
    assert box.run("sh", "-c", command, flags=("--volumes-from", "other")) == "data\nkept\nhost\n"
    assert box.run("ls", "/full/x", flags=("--volumes-from", "other")) == "/full/x\n"
    assert "Read-only" in box.run("touch", "/full/y", flags=("--volumes-from", "other:ro"), status=1)
    own = ("--volumes-from", "other", "--tmpfs", "/full")
    assert box.run("ls", "/full", flags=own) == ""
    assert "no such container: none" in box.run("true", flags=("--volumes-from", "none"), status=125)
    assert "invalid mode: x" in box.run("true", flags=("--volumes-from", "other:x"), status=125)
    box.cli("rm", "-v", "other")
    assert box.names() == ["data"]


def test_a_volume_of_a_container_stays(box):
    box.cli(*box.argv("--name", "user", "-v", "data:/d", "-v", "/anonymous"), "true")
    container_id = box.cli("ps", "-aq", "--no-trunc").stdout.strip()
    error = box.cli.fails("volume", "rm", "data")
    assert error == f"hutch: remove data: volume is in use - [{container_id}]\n"
    assert box.cli("volume", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
    assert len(box.names()) == 2
    assert sorted(box.cli("volume", "ls", "--format", "{{.Links}}").stdout.split()) == ["1", "1"]
    assert len(box.cli("volume", "ls", "-qf", "dangling=false").stdout.split()) == 2
    box.cli("rm", "user")
    assert len(box.cli("volume", "ls", "-qf", "dangling=true").stdout.split()) == 2
    assert "data" not in box.cli("volume", "prune", "-f").stdout
    assert box.names() == ["data"]
    assert "data" in box.cli("volume", "prune", "-af").stdout
    assert box.names() == []


def test_a_volume_of_memory(box):
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=5,mode=750")
    box.cli("volume", "create", *options, "memory")
    assert box.inspect("memory")["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5,mode=750"}
    shown = box.run("sh", "-c", "grep ' /m ' /proc/mounts; stat -c %a:%u /m", flags=("-v", "memory:/m"))
    assert re.match(r"tmpfs /m tmpfs rw,nosuid,nodev,.*size=1024k,mode=750,uid=", shown)
    assert shown.endswith("750:5\n")
    assert box.run("cat", "/full/deep/two", "/full/three", flags=("-v", "memory:/full")) == "two\nthree\n"
    assert box.run("ls", "/full", flags=("-v", "memory:/full:nocopy")) == ""
    assert "Read-only" in box.run("touch", "/m/x", flags=("-v", "memory:/m:ro"), status=1)
    assert os.listdir(f"{box.roots.data}/volumes/memory/_data") == []
    given = 'src=other,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o=size=2m,noexec"'
    assert "noexec" in box.run("grep", " /m ", "/proc/mounts", flags=("--mount", given))
    assert box.inspect("other")["Options"]["o"] == "size=2m,noexec"


def test_a_volume_that_is_a_directory_of_the_host(box, tmp_path):
    (tmp_path / "f").write_text("host\n")
    box.cli("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "place")
    assert box.run("cat", "/full/f", flags=("-v", "place:/full")) == "host\n"
    box.run("touch", "/full/g", flags=("-v", "place:/full"))
    assert (tmp_path / "g").exists()
    box.cli("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}/none", "-o", "o=bind,ro", "absent")
    error = box.run("true", flags=("-v", "absent:/d"), status=125)
    assert f"volume absent: failed to mount: {tmp_path}/none: no such file or directory" in error
    (tmp_path / "none").mkdir()
    assert "Read-only" in box.run("touch", "/d/x", flags=("-v", "absent:/d"), status=1)
    box.cli("volume", "rm", "place", "absent")
    assert (tmp_path / "f").read_text() == "host\n"


def test_a_volume_of_a_server_is_what_the_kernel_is_asked_for(box):
    options = ("-o", "type=nfs", "-o", "device=:/exports", "-o", "o=addr=localhost,vers=4.2,soft,timeo=1,ro")
    box.cli("volume", "create", *options, "served")
    done = box.cli(*box.argv("--rm", "--explain", "--dry-run", "-v", "served:/d"), "true", check=False)
    text = done.stdout + done.stderr
    (step,) = [line for line in text.splitlines() if 'fsopen("nfs")' in line]
    for word in ("addr=127.0.0.1", "vers=4.2", "soft", "timeo=1"):
        assert f"fsconfig({word})" in step
    with open("/proc/filesystems", encoding="utf-8") as file:
        if "\tnfs\n" not in file.read():
            error = box.run("true", flags=("-v", "served:/d"), status=125)
            assert "the kernel has no nfs file system" in error
    box.cli("volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=no.such.host.invalid", "lost")
    assert "volume lost: addr=no.such.host.invalid: " in box.run("true", flags=("-v", "lost:/d"), status=125)
    for wrong in ("o=vers=4", "o=addr=127.0.0.1,colour=blue"):
        assert "volume option o" in box.cli.fails(
            "volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", wrong, "wrong"
        )


def test_e06_what_is_mounted_in_a_volume_is_not_deleted(box, tmp_path, mounted):
    (tmp_path / "precious").write_text("data")
    box.run("mkdir", "/d/deep", flags=("-v", "data:/d"))
    place = f"{box.roots.data}/volumes/data/_data/deep"
    subprocess.run(["mount", "--bind", str(tmp_path), place], check=True)
    mounted.append(place)
    assert f"remove data: something is mounted in it: {place}" in box.cli.fails("volume", "rm", "data")
    done = box.cli("volume", "prune", "-af", check=False)
    assert (done.returncode, done.stdout) == (1, "Total reclaimed space: 0B\n")
    assert "something is mounted in it" in done.stderr
    assert (tmp_path / "precious").read_text() == "data"
    assert box.names() == ["data"]
    subprocess.run(["umount", mounted.pop()], check=True)
    box.cli("volume", "rm", "data")
    assert box.left() == []


def test_x9_a_damaged_volume_is_named_and_goes(box):
    box.run("true", flags=("-v", "data:/d", "-v", "good:/g"))
    Path(f"{box.roots.data}/volumes/data/volume.json").write_bytes(b"")
    done = box.cli("volume", "ls", "-q")
    assert done.stdout == "good\n"
    assert "warning: volume data: volume.json is damaged" in done.stderr
    assert "volume data: volume.json is damaged" in box.run("true", flags=("-v", "data:/d"), status=125)
    box.run("true", flags=("-v", "good:/g"))
    box.cli("volume", "prune", "-af")
    assert os.listdir(f"{box.roots.data}/volumes") == ["data"]
    box.cli("volume", "rm", "data")
    assert os.listdir(f"{box.roots.data}/volumes") == []


@contextlib.contextmanager
def filling(slow: Box, *command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run that fills the volume `slow` with /many: its process, and the helper's pid, stopped in the middle."""
    argv = [*slow.cli.words, *slow.argv("--rm", "-v", "slow:/many"), *command]
    part = f"{slow.roots.data}/volumes/slow/fill.part"
    with subprocess.Popen(argv, env=slow.cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not os.path.isdir(part):
            assert process.poll() is None
            time.sleep(0.001)
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            (helper,) = map(int, file.read().split())
        os.kill(helper, signal.SIGSTOP)
        assert len(os.listdir(part)) < MANY
        try:
            yield process, helper
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper, signal.SIGCONT)


@pytest.mark.parametrize("helper", ["lives", "dies"])
def test_a_killed_filling_is_finished_or_begun_again(slow, helper):
    with filling(slow, "true") as (process, pid):
        process.kill()
        if helper == "dies":
            os.kill(pid, signal.SIGKILL)
    assert slow.run("sh", "-c", "ls /many | wc -l", flags=("-v", "slow:/many")) == f"{MANY}\n"
    assert sorted(os.listdir(f"{slow.roots.data}/volumes/slow")) == ["_data", "volume.json"]


def test_control_c_in_a_filling_leaves_an_empty_volume(slow):
    with filling(slow, "true") as (process, _):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")
    volume = f"{slow.roots.data}/volumes/slow"
    assert sorted(os.listdir(volume)) == ["_data", "volume.json"]
    assert os.listdir(f"{volume}/_data") == []
    assert slow.left() == []
    assert slow.cli("ps", "-aq").stdout == ""
    assert slow.run("sh", "-c", "ls /many | wc -l", flags=("-v", "slow:/many")) == f"{MANY}\n"


def test_what_a_container_writes_meanwhile_is_kept(slow):
    with filling(slow, "sh", "-c", "ls /many | wc -l; cat /many/0") as (process, helper):
        slow.run("sh", "-c", "echo mine > /many/0", flags=("-v", "slow:/many:nocopy"))
        os.kill(helper, signal.SIGCONT)
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "1\nmine\n"), said
    assert sorted(os.listdir(f"{slow.roots.data}/volumes/slow")) == ["_data", "volume.json"]
    assert slow.run("cat", "/many/0", flags=("-v", "slow:/many")) == "mine\n"


def test_a_filling_killed_while_it_moves_is_finished_and_replaces_nothing(box):
    box.cli("volume", "create", "data")
    place = Path(f"{box.roots.data}/volumes/data")
    (place / "fill" / "dir").mkdir(parents=True)
    for name in ("one", "two", "dir/three"):
        (place / "fill" / name).write_text("of the image\n")
    (place / "_data" / "one").write_text("mine\n")
    (place / "fill").chmod(0o750)
    shown = box.run("sh", "-c", "cd /d; cat one two dir/three; stat -c %a .", flags=("-v", "data:/d"))
    assert shown == "mine\nof the image\nof the image\n750\n"
    assert sorted(os.listdir(place)) == ["_data", "volume.json"]


def test_two_containers_at_once_see_the_same_whole_volume(slow):
    argv = [*slow.cli.words, *slow.argv("--rm", "-v", "slow:/many"), "sh", "-c", "ls /many | wc -l"]
    both = [subprocess.Popen(argv, env=slow.cli.env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == [f"{MANY}\n"] * 2
    assert [process.returncode for process in both] == [0, 0]


def test_a_full_disk_leaves_an_empty_volume(slow, mounted):
    slow.cli("volume", "create", "small")
    place = f"{slow.roots.data}/volumes/small"
    record = Path(f"{place}/volume.json").read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], check=True)
    mounted.append(place)
    os.mkdir(f"{place}/_data")
    Path(f"{place}/volume.json").write_bytes(record)
    assert "no space left on device" in slow.run("true", flags=("-v", "small:/many"), status=125)
    assert sorted(os.listdir(place)) == ["_data", "volume.json"]
    assert os.listdir(f"{place}/_data") == []
    assert slow.cli("ps", "-aq").stdout == ""
    subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    assert slow.run("sh", "-c", "ls /many | wc -l", flags=("-v", "small:/many")) == f"{MANY}\n"


def test_no_volume_is_pruned_from_under_a_container_that_begins_to_use_it(box):
    for name in ("one", "two"):
        box.cli(*box.argv("--name", name, "-v", "kept:/d"), "true")
    argv = [*box.cli.words, *box.argv("--rm", "-v", "shared:/full"), "cat", "/full/three"]
    runs = [
        subprocess.Popen(argv, env=box.cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    while any(process.poll() is None for process in runs):
        box.cli("volume", "prune", "-af")
    assert [process.communicate() for process in runs] == [("three\n", "")] * 4
    assert "kept" in box.names()


def test_an_anonymous_volume_stays_with_who_took_it_up(box):
    box.cli(*box.argv("--name", "first", "-v", "/d"), "sh", "-c", "echo kept > /d/f")
    box.cli(*box.argv("--name", "second", "--volumes-from", "first"), "true")
    (name,) = box.names()
    box.cli("rm", "-v", "first")
    assert box.names() == [name]
    assert box.run("cat", "/d/f", flags=("--volumes-from", "second")) == "kept\n"
    box.cli("rm", "second")
    box.cli("volume", "prune", "-f")
    assert box.names() == []


def test_mounts_are_passed_on_where_the_host_does_so(box, tmp_path, mounted):
    for propagation, what in (("rshared", "a shared mount"), ("slave", "a shared or slave mount")):
        subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True)
        mounted.append(str(tmp_path))
        subprocess.run(["mount", "--make-private", str(tmp_path)], check=True)
        flags = ("-v", f"{tmp_path}:/p:{propagation}")
        error = box.run("true", flags=flags, status=125)
        assert f"path {tmp_path} is mounted on {tmp_path} but it is not {what}" in error
        subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
        box.run("true", flags=("--userns=host", *flags))


def test_what_killed_removals_left_is_swept(box):
    box.cli("volume", "create", "data")

    def kill_one(*command: str) -> None:
        """Leave what a process killed while it made and deleted things would."""
        tmp = Path(f"{box.roots.data}/tmp")
        for name in ("gone-killed", "volume-killed"):
            (tmp / name / "_data").mkdir(parents=True)
        box.cli(*command)
        assert box.left() == []

    kill_one("volume", "create", "other")
    kill_one("volume", "rm", "other")
    kill_one("volume", "prune", "-f")
    kill_one("image", "prune", "-f")


@requires("userns")
@pytest.mark.parametrize("kind", ["ordinary_user", "single_id_user"])
def test_an_ordinary_users_volumes(kind, request, registry, busybox_image):
    user = request.getfixturevalue(kind)
    name = busybox_image.push(registry, "volumes/busybox:latest")

    def hutch(*words: str, status: int = 0) -> str:
        done = user.run([user.hutch, *words], check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        return str(done.stdout if status == 0 else done.stderr)

    assert hutch("run", "--rm", "-v", "data:/etc", name, "cat", "/etc/shells") == "/bin/sh\n"
    own = ["sh", "-c", "mkdir /d/x; echo part > /d/x/f; chmod 0 /d/x/f /d/x; cat /d/shells"]
    assert hutch("run", "--rm", "-v", "data:/d", name, *own) == "/bin/sh\n"
    if kind == "ordinary_user":
        hutch("run", "--rm", "-v", "data:/d", name, "chown", "1000:1000", "/d/x")
    part = "src=data,dst=/d,volume-subpath=x"
    assert hutch("run", "--rm", "--mount", part, name, "ls", "/d") == "f\n"
    hutch("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    assert hutch("run", "--rm", "-v", "memory:/etc", name, "cat", "/etc/shells") == "/bin/sh\n"
    hutch("volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=127.0.0.1", "served")
    assert "only root can mount nfs" in hutch("run", "--rm", "-v", "served:/d", name, "true", status=125)
    size = hutch("volume", "ls", "--filter", "name=data", "--format", "{{.Size}}").strip()
    assert size not in ("0B", "N/A")
    hutch("volume", "prune", "-af")
    assert hutch("volume", "ls", "-q") == ""
    assert os.listdir(f"{user.home}/.local/share/hutch/tmp") == []
