"""Rows A of the security table, through `hutch run` with hostile images: nothing of the host is reached or changed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.security.conftest import Canary, Host, base_layer
from tests.support.evil import Layer
from tests.support.host import requires

pytestmark = requires("root", "program:busybox")


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys", "/bin/../proc/1"])
def test_a01_a_volume_of_an_image_over_procfs_is_refused(box: Host, path: str) -> None:
    image = box.image("volume", Volumes={path: {}})
    done = box.run(image, "cat", "/proc/self/status", status=None)
    if done.returncode == 0:  # a volume over /sys hides it and no more
        assert not path.startswith("/proc")
        assert "Seccomp:\t2" in done.stdout
    else:
        assert done.returncode == 125
        assert "/proc" in done.stderr


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_a02_a03_a09_an_image_whose_fixed_directory_is_none(box: Host, canary: Canary, name: str, form: str) -> None:
    target = {"absolute": str(canary.path), "relative": f"../../../../..{canary.path}"}[form]
    done = box.run(box.image("fixed", Layer().symlink(name, target)), "true", status=125)
    assert f"/{name}" in done.stderr


def test_a09_a10_a11_links_below_dev(box: Host, canary: Canary) -> None:
    layer = Layer().directory("dev")
    for name in ("null", "console", "ptmx", "pts", "shm", "mqueue", "stdin", "zero"):
        layer.symlink(f"dev/{name}", f"{canary.path}/{name}")
    done = box.run(box.image("devices", layer), "ls", "-l", "/dev/null", "/dev/console", "/dev/pts", status=None)
    assert "1,   3" in done.stdout
    assert str(canary.path) not in done.stdout


def test_a16_an_image_whose_working_directory_is_a_magic_link(box: Host) -> None:
    image = box.image("cwd", Layer().symlink("link", "/proc/self/fd/7"), WorkingDir="/link/..")
    for flags in ((), *(("-w", f"/proc/self/fd/{fd}") for fd in (3, 5, 8)), ("-w", "/proc/1/cwd"), ("-w", "/link")):
        assert box.run(image, "ls", "-a", "..", flags=flags, status=125).stdout == ""


def test_a17_directories_that_are_links_get_the_engines_files_inside(box: Host, canary: Canary) -> None:
    layer = Layer().symlink("etc", str(canary.path)).symlink("run", str(canary.path)).symlink("root", str(canary.path))
    done = box.run(box.image("links", layer), "cat", "/etc/hosts", flags=("-v", "/tmp:/run/secrets/deep:ro"), status=0)
    assert "localhost" in done.stdout


def test_a15_a18_a_planted_link_in_a_volume_is_only_ever_inside(box: Host, canary: Canary) -> None:
    volume = ("-v", "planted:/data")
    image = box.image("plant")
    try:
        box.run(image, "ln", "-s", str(canary.path), "/data/sub", flags=volume)
        for flags in (("-w", "/data/sub/made"), ("--tmpfs", "/data/sub/made"), ("-v", "/tmp:/data/sub/other:ro")):
            box.run(image, "sh", "-c", "echo x > /data/sub/made/y; true", flags=(*volume, *flags), status=None)
    finally:
        from hutch.volume.store import VolumeStore

        VolumeStore(box.roots.data).remove("planted")


def test_a19_a_root_whose_fixed_directories_became_links_is_refused_at_its_second_start(
    own_box: Host, canary: Canary, tmp_path: Path
) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    (rootfs / "bin/busybox").write_bytes(Path(os.path.realpath("/bin/busybox")).read_bytes())
    (rootfs / "bin/busybox").chmod(0o755)
    (rootfs / "bin/sh").symlink_to("busybox")
    own_box.mode = "host"
    flags = ("--rootfs", str(rootfs), "--cap-add", "SYS_ADMIN")
    own_box.run("/bin/sh", "-c", "true", flags=flags)
    # Inside, the mount points are in use; another container that has the same tree changes it.
    spoil = f"cd /tree; for i in proc dev sys; do mv $i $i.old; ln -s {canary.path} $i; done; ln -s {canary.path} x"
    image = own_box.image("spoiler")
    own_box.run(image, "sh", "-c", spoil, flags=("-v", f"{rootfs}:/tree"))
    for name in ("proc", "dev", "sys"):
        assert os.readlink(rootfs / name) == str(canary.path)
        assert f"/{name}" in own_box.run("/bin/sh", "-c", "true", flags=flags, status=125).stderr
        os.unlink(rootfs / name)
    own_box.run("/bin/sh", "-c", "true", flags=flags)


def test_a23_the_hosts_mounts_are_as_they_were_after_runs_that_fail_and_runs_that_do_not(own_box: Host) -> None:
    image = own_box.image("mounts")
    before = Path("/proc/self/mountinfo").read_text()
    own_box.run(image, "true", flags=("-v", "/tmp:/a:rshared", "--tmpfs", "/b"), status=None)
    own_box.run(image, "true", flags=("-v", "/tmp:/proc"), status=125)
    own_box.run(image, "nosuch", status=127)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a24_only_allowed_entries_are_made_in_the_root(own_box: Host) -> None:
    image = own_box.image("clean")
    words = own_box.argv(image, "sh", "-c", "echo up; sleep 20")
    words.insert(words.index("--rm"), "--name=clean")
    with subprocess.Popen(words, env=own_box.cli.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        container_id = own_box.record("clean").id
        upper = Path(own_box.roots.data, "snapshots", container_id, "upper")
        made = {str(path.relative_to(upper)) for path in upper.rglob("*")}
        own_box.cli("rm", "-f", "clean")
        process.wait(20)
    assert made == {"dev", "proc", "sys", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf"}


def test_the_images_here_run_at_all(box: Host) -> None:
    """Else every refusal above would prove nothing."""
    assert box.run(box.image("honest"), "id", "-u").stdout == "0\n"
    assert base_layer().tar
