"""`cp`, `diff`, `commit` and `export` beside docker's own: the same arguments, the same files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import cgroups, files, images
from tests.support.cli import Cli
from tests.support.docker import Docker, dockerd
from tests.support.engines import end_engine
from tests.support.host import requires
from tests.support.tars import Listing, listing

pytestmark = requires("root", "program:dockerd", "program:docker", "program:buildah", "program:busybox")


@pytest.fixture
def leaks_nothing() -> None:
    """What dockerd keeps between two tests is no leak of ours."""


class Pair:
    """docker and hutch, each with a container "box" of the same image, stopped."""

    def __init__(self, docker: Docker, hutch: Cli, host: str) -> None:
        self.docker, self.hutch, self.host = docker, hutch, host

    def run(self, engine: str, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        words, env = (["docker"], self.docker.env) if engine == "docker" else (self.hutch.words, self.hutch.env)
        return subprocess.run([*words, *arguments], env=env, input=stdin, capture_output=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with files.private_directory(f"{os.getpid()}-copy") as base, cgroups.parent(sweep=True) as cgroup:
        os.mkdir(f"{base}/docker")
        images.busybox().copy_to(f"docker-archive:{base}/busybox.tar:busybox:latest")
        for path in ("data", "state"):
            os.mkdir(f"{base}/{path}", 0o700)
        hutch = Cli(["--root", f"{base}/data", "--state", f"{base}/state"], {"HUTCH_CONFIG": "/nonexistent"})
        hutch("load", "-q", "-i", f"{base}/busybox.tar")
        with dockerd(f"{base}/docker", f"--cgroup-parent={cgroup}") as docker:
            docker("load", "--quiet", "--input", f"{base}/busybox.tar")
            docker("create", "--name=box", "--network=none", "busybox", "true")
            hutch("create", "--name=box", "--cgroup-parent", cgroup, "busybox", "true")
            try:
                yield Pair(docker, hutch, base)
            finally:
                docker("rm", "--force", "box")
                end_engine(f"{base}/state")


def plant(top: str) -> None:
    """The files that both sides start from."""
    for path in ("d/sub", "dir", "clash/d", "clash/f", "over"):
        os.makedirs(f"{top}/{path}")
    for path in ("f", "d/x", "d/sub/y", "file", "dir/in", "over/d", "d/*"):
        with open(f"{top}/{path}", "w") as file:
            file.write(f"{path}\n")
    os.chmod(f"{top}/f", 0o640)
    os.chmod(f"{top}/d/sub", 0o2751)
    for name, target in (("lf", "f"), ("ld", "d"), ("ldir", "dir"), ("lfile", "file"), ("loose", "nothing")):
        os.symlink(target, f"{top}/{name}")


ARGUMENTS = [
    ("f", "new"), ("f", "dir"), ("f", "dir/"), ("f", "dir/."), ("f", "file"), ("f", "missing/"), ("f", "file/"),
    ("f", "lfile"), ("f", "ldir"), ("f", "ldir/"), ("f", "loose"), ("f", "no/such/x"), ("f", "clash"),
    ("f", "clash/f"), ("d", "new"), ("d", "new/"), ("d", "dir"), ("d", "dir/"), ("d/", "dir"), ("d/.", "dir"),
    ("d/.", "new"), ("d/.", "new/"), ("d", "file"), ("d/.", "file"), ("d", "ldir"), ("d", "over"), ("d", "clash"),
    ("d", "loose"), ("lf", "new"), ("lf", "dir"), ("ld", "new"), ("ld", "dir"), ("ld/", "dir"), ("ld/.", "dir"),
    ("f/", "dir"), ("missing", "dir"), ("loose", "dir"), ("d/*", "dir"), ("d/sub/..", "new"), ("f", "dir/../other"),
    ("-L lf", "new"), ("-L lf", "dir"), ("-L ld", "new"), ("-L ld", "dir"), ("-L ld/.", "dir"), ("-L f", "dir"),
]  # fmt: skip


def words_of(source: str) -> tuple[list[str], str]:
    *flags, path = source.split()
    return flags, path


def differences(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Case → what docker and hutch made of it, where that is not the same."""
    docker, hutch = found["docker"], found["hutch"]
    return {case: (docker[case], hutch[case]) for case in docker if docker[case] != hutch[case]}


def below(entries: Listing, directory: str) -> Listing:
    """The entries below a directory, by their names in it."""
    return {name.removeprefix(f"{directory}/"): entry for name, entry in entries.items() if f"{directory}/" in name}


def test_into_a_container(pair: Pair) -> None:
    """Every case in a directory of its own of both containers, planted by one copy before and read by one after."""
    home = f"{pair.host}/into"
    for number in range(len(ARGUMENTS)):
        plant(f"{home}/{number}")
    found: dict[str, dict[str, Any]] = {}
    for engine in ("docker", "hutch"):
        assert pair.run(engine, "cp", home, "box:/").returncode == 0
        failed = {}
        for number, (source, target) in enumerate(ARGUMENTS):
            flags, path = words_of(source)
            done = pair.run(engine, "cp", *flags, f"{home}/{number}/{path}", f"box:/into/{number}/{target}")
            failed[number] = done.returncode != 0
        entries = files_in(pair.run(engine, "cp", "box:/into", "-").stdout)
        found[engine] = {
            f"cp {source} {target}": (failed[number], below(entries, f"into/{number}"))
            for number, (source, target) in enumerate(ARGUMENTS)
        }
    assert differences(found) == {}
    assert {True, False} == {failed for failed, _ in found["hutch"].values()}


def test_out_of_a_container(pair: Pair) -> None:
    plant(f"{pair.host}/out")
    found: dict[str, dict[str, Any]] = {}
    for engine in ("docker", "hutch"):
        assert pair.run(engine, "cp", f"{pair.host}/out", "box:/").returncode == 0
        found[engine] = {}
        for number, (source, target) in enumerate(ARGUMENTS):
            place = f"{pair.host}/{engine}-out/{number}"
            plant(place)
            flags, path = words_of(source)
            done = pair.run(engine, "cp", *flags, f"box:/out/{path}", f"{place}/{target}")
            packed = subprocess.run(["tar", "-C", place, "-c", "."], capture_output=True, check=True)
            found[engine][f"cp {source} {target}"] = (done.returncode != 0, files_in(packed.stdout))
    assert differences(found) == {}


def test_the_names_in_an_archive(pair: Pair) -> None:
    plant(f"{pair.host}/names")
    found: dict[str, dict[str, Any]] = {}
    for engine in ("docker", "hutch"):
        pair.run(engine, "cp", f"{pair.host}/names", "box:/")
        found[engine] = {
            path: sorted(files_in(pair.run(engine, "cp", f"box:/names/{path}", "-").stdout))
            for path in ("f", "d", "d/", "d/.", "ld", "ld/", "lf", "d/sub/y")
        }
    assert differences(found) == {}


def files_in(archive: bytes) -> Listing:
    """Names, types, modes, link targets and content; set-id bits are not taken to the host by hutch."""
    return {name: (kind, mode & 0o777, *rest) for name, (kind, mode, *rest) in listing(archive, owners=False).items()}


CHANGES = """\
set -e
mkdir -p /a/b/c /tmp/t && echo 1 >/a/b/c/f && ln /a/b/c/f /a/hard && ln -s f /a/b/c/l && mkfifo /a/pipe
echo more >>/etc/passwd && rm -r /home && chmod 700 /root && chown 12:34 /etc/shells && touch /etc/group
rm -r /var && mkdir -p /var/fresh && echo x >/var/fresh/x && mv /bin/cat /bin/chat
printf 'a' >/a/$(printf 'x%.0s' $(seq 150)) && printf b >"/a/ü" && chown 60000:60001 /a/ü
"""


@pytest.fixture(scope="module")
def changed(pair: Pair) -> Pair:
    """Both have a container "work" that has changed the same files."""
    pair.docker("run", "--name=work", "--network=none", "busybox", "sh", "-c", CHANGES)
    cgroup = "/".join(["", *cgroup_of(pair)])
    pair.hutch("run", "--name=work", "--cgroup-parent", cgroup, "busybox", "sh", "-c", CHANGES)
    return pair


def cgroup_of(pair: Pair) -> list[str]:
    with open(f"{pair.host}/data/containers/{box_id(pair)}/config.json", encoding="utf-8") as file:
        found = json.load(file)
    return str(found["linux"]["cgroupsPath"]).strip("/").split("/")[:-1]


def box_id(pair: Pair) -> str:
    return os.listdir(f"{pair.host}/data/containers")[0]


def test_diff(changed: Pair) -> None:
    docker, hutch = (
        sorted(changed.run(engine, "diff", "work").stdout.decode().splitlines()) for engine in ("docker", "hutch")
    )
    assert hutch == docker


def test_the_layer_of_a_commit(changed: Pair) -> None:
    """The same files with the same owners, modes, links and whiteouts."""
    found = {}
    for engine in ("docker", "hutch"):
        done = changed.run(engine, "commit", "-m", "said", "-a", "me", "-c", "ENV A=1", "work", "mine:latest")
        assert done.returncode == 0, done.stderr
        archive = f"{changed.host}/{engine}.tar"
        changed.run(engine, "save", "-o", archive, "mine:latest")
        layout = f"oci:{changed.host}/{engine}-oci:mine"
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", layout], check=True)
        image = images.Image("oci", f"{changed.host}/{engine}-oci", "mine")
        config, last = image.config(), image.manifest()["layers"][-1]["digest"]
        blob = image.blob(last)
        found[engine] = {
            **{name: entry for name, entry in listing(blob).items() if not name.endswith(".wh..wh..opq")},
            **{key: config["config"].get(key) for key in ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")},
            **{key: config["history"][-1].get(key) for key in ("author", "comment")},
            "author of all": config["author"],
        }
    assert found["hutch"].keys() == found["docker"].keys()
    assert differences(found) == {}


def test_export(changed: Pair) -> None:
    """What docker makes for its own mounts (.dockerenv, /dev, ...) is not compared."""
    own = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv")
    found = {}
    for engine in ("docker", "hutch"):
        entries = listing(changed.run(engine, "export", "work").stdout)
        found[engine] = {name: entry for name, entry in entries.items() if name and not name.startswith(own)}
    assert found["hutch"] == found["docker"]
