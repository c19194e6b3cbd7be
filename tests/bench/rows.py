"""The work that is measured, and how each program is told to do it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator

from tests.bench.measure import Contender, Row
from tests.support import cgroups, images
from tests.support.docker import Docker, dockerd
from tests.support.files import remove_tree, unmount_below
from tests.support.podman import Podman, podman
from tests.support.programs import run
from tests.support.registries import Registry
from tests.support.users import Installation


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the rows need.

    Attributes:
        directory: scratch, removed by the caller.
        installed: hutch.
        registry: a local registry to pull from.
        docker: a private dockerd, None where there is none.
        podman: a podman with storage of its own, None where there is none.
    """

    directory: str
    installed: Installation
    registry: Registry
    docker: Docker | None
    podman: Podman | None

    def hutch(self, name: str, *argv: str) -> list[str]:
        """A hutch command with a root of its own."""
        base = f"{self.directory}/hutch-{name}"
        return [self.installed.hutch, "--root", f"{base}/data", "--state", f"{base}/state", *argv]


@contextlib.contextmanager
def private_docker(directory: str) -> Iterator[Docker | None]:
    """A dockerd if this host has one."""
    if not (shutil.which("dockerd") and shutil.which("docker")):
        yield None
        return
    os.mkdir(directory)
    with cgroups.parent(sweep=True) as path, dockerd(directory, f"--cgroup-parent={path}") as docker:
        yield docker


@contextlib.contextmanager
def private_podman(directory: str) -> Iterator[Podman | None]:
    """A podman if this host has one."""
    if not shutil.which("podman"):
        yield None
        return
    os.mkdir(directory)
    with podman(directory) as found:
        yield found


def run_true(bench: Bench, rounds: int) -> Row:
    """`run --rm --network none IMAGE true` of a small image that is there already."""
    reference = images.busybox().push(bench.registry, "bench/busybox:1")
    ask = ["run", "--rm", "--network", "none"]
    done = run(bench.hutch("run", "pull", "--quiet", reference), check=False)
    ours = Contender(
        "hutch",
        [bench.hutch("run", *ask, reference, "true")],
        missing=_last_line(done.stderr) if done.returncode else "",
    )
    peers = []
    if bench.docker is None:
        peers.append(Contender("docker", [], missing="dockerd is not installed"))
    else:
        bench.docker("pull", "--quiet", reference)
        peers.append(Contender("docker", [["docker", *ask, reference, "true"]], env=bench.docker.env))
    if bench.podman is None:
        peers.append(Contender("podman", [], missing="podman is not installed"))
    else:
        bench.podman("pull", "--quiet", "--tls-verify=false", reference)
        peers.append(Contender("podman", [bench.podman.run_command(*ask[1:], reference, "true")]))
    return Row("run --rm --network none IMAGE true", [ours, *peers], rounds)


def runtime(bench: Bench, rounds: int) -> Row:
    """`RUNTIME run` of one bundle: runc's own default configuration with `true` as the program."""
    bundle = f"{bench.directory}/bundle"
    run(["umoci", "unpack", "--image", f"{images.busybox().path}:latest", bundle])
    os.unlink(f"{bundle}/config.json")
    run(["runc", "spec"], cwd=bundle)
    path = f"{bundle}/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["process"] |= {"terminal": False, "args": ["true"]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    contenders = []
    for name, program in (("hutch-oci", bench.installed.hutch_oci), ("runc", "runc"), ("crun", "crun")):
        argv = [program, "--root", f"{bench.directory}/state-{name}", "run", "--bundle", bundle, "bench"]
        missing = "" if shutil.which(program) else f"{program} is not installed"
        contenders.append(Contender(name, [argv], missing=missing))
    return Row("OCI runtime: run a bundle", contenders, rounds)


def pull(bench: Bench, rounds: int) -> Row:
    """Pull and unpack 4 gzip layers, 300 MB in 10,000 files, from a registry on this machine."""
    reference = bulk().push(bench.registry, "bench/bulk:1")
    contenders = [
        Contender(
            "hutch", [bench.hutch("pull", "pull", "--quiet", reference)], _emptied(f"{bench.directory}/hutch-pull")
        )
    ]
    docker = bench.docker
    if docker is None:
        contenders.append(Contender("docker", [], missing="dockerd is not installed"))
    else:

        def forget() -> None:
            docker("rmi", "--force", reference, check=False)
            os.sync()

        contenders.append(Contender("docker", [["docker", "pull", "--quiet", reference]], forget, docker.env))
    if bench.podman is None:
        contenders.append(Contender("podman", [], missing="podman is not installed"))
    else:
        other = dataclasses.replace(bench.podman, directory=f"{bench.directory}/podman-pull")
        fetch = other.command("pull", "--quiet", "--tls-verify=false", reference)
        contenders.append(Contender("podman", [fetch], _emptied(other.directory)))
    layout = f"{bench.directory}/skopeo"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}/image:1"]
    contenders.append(
        Contender(
            "skopeo+umoci",
            [copy, ["umoci", "unpack", "--image", f"{layout}/image:1", f"{layout}/bundle"]],
            _emptied(layout),
            missing="" if shutil.which("umoci") and shutil.which("skopeo") else "skopeo or umoci is not installed",
        )
    )
    return Row("pull and unpack 300 MB, 10,000 files", contenders, rounds, warm_ups=1)


def bulk() -> images.Image:
    """Four layers of 2,500 files, 75 MB each, that gzip makes about half as long; by umoci."""

    def make(directory: str) -> None:
        layout = f"{directory}/layout"
        run(["umoci", "init", "--layout", layout])
        run(["umoci", "new", "--image", f"{layout}:latest"])
        chance = random.Random(20)
        words = [chance.randbytes(chance.randrange(2, 12)) for _ in range(6000)]
        pool = b"".join(chance.choices(words, k=1_400_000))
        for layer in range(4):
            tree = f"{directory}/tree"
            for number in range(2500):
                path = f"{tree}/{number // 100}"
                os.makedirs(path, exist_ok=True)
                size = min(400_000, int(chance.expovariate(1 / 31_500)))
                start = chance.randrange(len(pool) - size)
                with open(f"{path}/{number}", "wb") as file:
                    file.write(pool[start : start + size])
            run(["umoci", "insert", "--image", f"{layout}:latest", tree, f"/layer{layer}"])
            remove_tree(tree)
        run(["umoci", "gc", "--layout", layout])

    return images.Image("oci", f"{images.cached('bulk', '1', make)}/layout", "latest")


def _emptied(path: str) -> Callable[[], None]:
    """A preparation that makes `path` an empty directory and writes out what is dirty, so nobody pays for another."""

    def prepare() -> None:
        if os.path.exists(path):
            unmount_below(path)
            remove_tree(path)
        os.makedirs(path, 0o700)
        os.sync()

    return prepare


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else "failed without a word"
