"""What users get wrong, and what registries send wrong: a message, the status, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from hutch.engine.engine import Engine
from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.evil import EvilImage, Layer, digest_of
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import run
from tests.support.registries import Registry

pytestmark = requires("root")


class Bench:
    """`hutch` over a private root, and what its root holds.

    Attributes:
        hutch: the command line.
        data: the data root.
        registry: where bad images are pushed to.
        cgroup: for containers.
    """

    def __init__(self, roots: Roots, registry: Registry, cgroup: str) -> None:
        environment = {"DOCKER_CONFIG": f"{roots.base}/docker", "HUTCH_CONFIG": "/nonexistent"}
        self.hutch = Cli(roots.options, environment)
        self.data, self.state = roots.data, roots.state
        self.registry, self.cgroup = registry, cgroup
        self.hutch("images")

    def inventory(self) -> set[str]:
        """Everything in the roots but what hutch remembers on purpose, and containers that the store knows of."""
        found = set()
        for root in (self.data, self.state):
            for path, folders, files in os.walk(root):
                found.update(f"{path}/{name}" for name in [*folders, *files])
        kept = ("/lock", "/leases", "/known", "/snapshotter.json", "/ingest", "/containers", "/ids", "/runtime")
        kept += ("/hutch.db", "/hutch.db-wal", "/hutch.db-shm", "/hutch.db-reserve", "/boot", "/monitors")
        kept += ("/fork-server.lock", "/fork-server.log", "/fork-server.sock")
        rows = {f"container {directory.record.name}" for directory in Engine(self.data, self.state).containers.all()}
        return rows | {name for name in found if not name.endswith(kept) and "/known/" not in name}

    def refuses(self, *arguments: str, status: int, says: str, stdin: bytes | None = None) -> str:
        """A command line that must fail with one problem on stderr, and change nothing; returns what it said."""
        before = self.inventory()
        said = self.hutch.fails(*arguments, status=status, stdin=stdin)
        assert "Traceback" not in said
        problem = next(line for line in said.splitlines() if line.startswith("hutch: "))
        assert says in problem
        assert self.inventory() == before
        return said

    def run_argv(self, *arguments: str) -> list[str]:
        return ["run", "--rm", "--cgroup-parent", self.cgroup, *arguments]


@pytest.fixture
def bench(tmp_root: Roots, registry: Registry, cgroup_parent: str) -> Bench:
    return Bench(tmp_root, registry, cgroup_parent)


@pytest.fixture
def name(bench: Bench, busybox_image: Image) -> str:
    """An image that is here."""
    reference = busybox_image.push(bench.registry, "bad/busybox:1")
    bench.hutch("pull", "-q", reference)
    return reference


def noise(size: int) -> bytes:
    return os.urandom(size)


# --- images -------------------------------------------------------------------------------------------------------


def test_an_unknown_image(bench: Bench) -> None:
    missing = bench.registry.reference("bad/none:1")
    bench.refuses("pull", missing, status=1, says="not found")
    bench.refuses(*bench.run_argv(missing, "true"), status=125, says="not found")
    bench.refuses(*bench.run_argv("--pull=never", missing, "true"), status=125, says="no such image")
    bench.refuses(*bench.run_argv("Not/This", "true"), status=125, says="lower case")


def test_a_wrong_platform(bench: Bench, multi_platform_image: Image) -> None:
    several = multi_platform_image.push(bench.registry, "bad/several:1")
    bench.refuses("pull", "--platform", "linux/s390x", several, status=1, says="s390x")
    bench.refuses(*bench.run_argv("--platform", "linux/s390x", several, "true"), status=125, says="s390x")
    bench.refuses("pull", "--platform", "linux/", several, status=1, says="platform")


Damage = Callable[[str], None]


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def flip(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [(cut, "wanted 101888 bytes, got 50944 bytes"), (flip, "digest mismatch: wanted sha256:")],
    ids=["cut", "flipped"],
)
def test_a_layer_damaged_in_the_registry(bench: Bench, damage: Damage, says: str) -> None:
    image = EvilImage([Layer("").file("data", noise(100_000))])
    reference = image.push(bench.registry, f"bad/{damage.__name__}:1")
    damage(bench.registry.blob_path(image.layers[0].digest))
    said = bench.refuses("pull", reference, status=1, says=says)
    assert image.layers[0].digest in said
    bench.refuses(*bench.run_argv(reference, "true"), status=125, says=says)


def test_a_layer_that_climbs_out(bench: Bench) -> None:
    outside = f"{os.path.dirname(bench.data)}/canary"
    image = EvilImage([Layer().file("fine", b"x").file(f"{'../' * 9}{outside}", b"out")])
    reference = image.push(bench.registry, "bad/climbs:1")
    bench.refuses("pull", reference, status=1, says="..")
    assert not os.path.exists(outside)


def test_a_layer_that_is_cut_short_inside(bench: Bench) -> None:
    image = EvilImage([Layer("").file("data", b"short", size=4096).unended()])
    bench.refuses("pull", image.push(bench.registry, "bad/short:1"), status=1, says="unexpected end of archive")


def test_a_layer_that_is_not_the_one_promised(bench: Bench) -> None:
    honest, other = Layer().file("a", b"a"), Layer().file("b", b"b")
    document = {"rootfs": {"type": "layers", "diff_ids": [other.diff_id]}}
    image = EvilImage([honest], config_document=document)
    bench.refuses("pull", image.push(bench.registry, "bad/promise:1"), status=1, says="digest mismatch")


@pytest.mark.parametrize("document", [b'{"architecture": "am', b"[]", b"\xff\xfe", b'{"os": 7}'])
def test_a_configuration_that_is_broken_json(bench: Bench, document: bytes) -> None:
    image = EvilImage([Layer().file("a", b"a")])
    image.config = document
    image.manifest_document["config"] |= {"digest": digest_of(document), "size": len(document)}
    image.manifest = json.dumps(image.manifest_document).encode()
    reference = image.push(bench.registry, f"bad/json-{digest_of(document)[7:15]}:1")
    bench.refuses("pull", reference, status=1, says="config")


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (b"this is no archive" * 99, "tar header"),
        (b"", "archive"),
        (Layer("").file("manifest.json", b'[{"Config": ').tar, "manifest.json"),
        (Layer("").file("manifest.json", b"[" * 100_000).tar, "manifest.json"),
        (Layer("").file("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]').tar, "etc/passwd"),
    ],
    ids=["text", "empty", "cut", "deep", "climbs"],
)
def test_an_archive_that_is_none(bench: Bench, archive: bytes, says: str) -> None:
    bench.refuses("load", status=1, says=says, stdin=archive)


# --- a full disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_root: Roots) -> Iterator[str]:
    """A file system of 4 MiB for images."""
    path = f"{tmp_root.base}/small"
    os.mkdir(path, 0o700)
    run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", path])
    try:
        yield path
    finally:
        run(["umount", path])


@pytest.mark.parametrize("where", ["download", "unpack"])
def test_a_disk_that_fills_up_in_mid_pull(
    tmp_root: Roots, registry: Registry, cgroup_parent: str, small_disk: str, where: str, busybox_image: Image
) -> None:
    bench = Bench(Roots(tmp_root.base, f"{small_disk}/data", tmp_root.state), registry, cgroup_parent)
    data = noise(6 << 20) if where == "download" else bytes(16 << 20)
    image = EvilImage([Layer().file("small", b"x"), Layer().file("big", data)])
    reference = image.push(registry, f"bad/big-{where}:1")
    free = shutil.disk_usage(small_disk).free
    bench.refuses("pull", reference, status=1, says="no space left on device")
    bench.refuses(*bench.run_argv(reference, "true"), status=125, says="no space left on device")
    assert free - shutil.disk_usage(small_disk).free < 512 << 10  # the store, and what it holds in reserve
    assert bench.hutch("images", "-q").stdout == ""


# --- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        (["nosuchprogram"], 127, 'exec: "nosuchprogram": executable file not found in $PATH'),
        (["/no/such"], 127, '"/no/such": no such file or directory'),
        (["/etc/passwd"], 126, '"/etc/passwd": permission denied'),
        (["/etc"], 126, "permission denied"),
    ],
)
def test_a_missing_command(bench: Bench, name: str, command: list[str], status: int, says: str) -> None:
    bench.refuses(*bench.run_argv(name, *command), status=status, says=says)


def test_an_unreadable_env_file(bench: Bench, name: str, tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/env"
    bench.refuses(*bench.run_argv("--env-file", path, name, "true"), status=125, says="no such file or directory")
    bench.refuses(*bench.run_argv("--env-file", "/etc", name, "true"), status=125, says="is a directory")
    with open(path, "wb") as file:
        file.write(b"GOOD=1\n\xff\xfe=2\n")
    bench.refuses(*bench.run_argv("--env-file", path, name, "true"), status=125, says=path)
    with open(path, "wb") as file:
        file.write(b"two words=1\n")
    bench.refuses(*bench.run_argv("--env-file", path, name, "true"), status=125, says="two words")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--network=host", "--userns=auto"], "conflicting options: --network=host and --userns=auto"),
        (["--cpus=1", "--cpu-quota=5000"], "Nano CPUs and CPU Quota cannot both be set"),
        (["-m", "64m", "--memory-swap", "32m"], "swap"),
        (["-m", "1k"], "memory"),
        (["-v", "/a:/x", "--tmpfs", "/x"], "/x"),
        (["--network=bridge"], "bridge"),
        (["--pid=container:none"], "no such container: none"),
        (["--publish=80:80"], "publish"),
        (["--user", "nobody-here"], "nobody-here"),
        (["--ulimit", "nofile=9:3"], "nofile"),
        (["--memory", "9999999999999999999999g"], "memory"),
        (["-it"], "not a TTY"),
        (["--cpuset-cpus", "60000"], "cpuset"),
        (["--cap-add", "FLYING"], "FLYING"),
        (["--security-opt", "seccomp=/none.json"], "/none.json"),
        (["--device", "/dev/none"], "/dev/none"),
        (["--mount", "type=bind,src=/none,dst=/x"], "bind source path does not exist: /none"),
        (["--mount", "type=image,src=none/none,dst=/x", "--pull=never"], "no such image"),
        (["--sysctl", "kernel.core_pattern=|/x"], "core_pattern"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_conflicting_or_impossible_flags(bench: Bench, name: str, flags: list[str], says: str) -> None:
    bench.refuses(*bench.run_argv(*flags, name, "true"), status=125, says=says)


def test_a_name_that_is_taken(bench: Bench, name: str) -> None:
    bench.hutch("run", "--cgroup-parent", bench.cgroup, "--name", "taken", name, "true")
    bench.refuses(*bench.run_argv("--name", "taken", name, "true"), status=125, says='"taken" is already in use')
    bench.refuses("rmi", name, status=1, says="uses it")
    bench.hutch("rm", "taken")


def test_a_root_that_is_not_ours(bench: Bench, tmp_path: os.PathLike[str]) -> None:
    os.chmod(tmp_path, 0o777)
    done = bench.hutch("--root", str(tmp_path), "images", check=False)
    assert done.returncode == 1
    assert "not a directory that only this user can write to" in done.stderr
