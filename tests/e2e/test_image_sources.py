"""Images by docker, buildah, skopeo and mmdebstrap, from each kind of registry: hutch runs them as their makers do."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Roots
from tests.support import images
from tests.support.cli import Cli
from tests.support.docker import Docker
from tests.support.files import private_directory
from tests.support.host import requires
from tests.support.images import Image
from tests.support.podman import podman as private_podman
from tests.support.programs import run
from tests.support.registries import PASSWORD, USERNAME, Registry
from tests.support.users import OrdinaryUser

pytestmark = requires(
    "root", "program:docker", "program:dockerd", "program:buildah", "program:skopeo", "program:podman"
)

# What a container sees of its image's settings. Names that engines add by themselves are left out.
REPORT = """\
#!/bin/sh
id -u; id -g; id -G
pwd
env | grep -v -e ^HOSTNAME= -e ^container= -e ^SHLVL= -e ^TERM= | sort
echo "arguments: $#: $*"
ls -ld . /data | cut -d' ' -f1
grep -c ' /data ' /proc/mounts
cat /data/seed /made
exit 7
"""
DOCKERFILE = """\
FROM scratch
COPY tree /
ENV PATH=/usr/local/bin:/bin GREETING="hello there" EMPTY=
RUN echo by the builder > /made && mkdir /data && echo seed > /data/seed && chown -R app /data
LABEL org.example.name="a b" org.example.number=7
EXPOSE 8080/tcp
VOLUME /data
WORKDIR /srv/place
USER app:extra
STOPSIGNAL SIGUSR1
ENTRYPOINT ["/bin/report", "first"]
CMD ["second word", "third"]
"""


@dataclasses.dataclass(frozen=True)
class Made:
    """An image as its maker has it.

    Attributes:
        push: brings it to a registry under a name, and returns the reference.
        said: what its maker's own run of it printed.
    """

    push: Callable[[Registry, str], str]
    said: str


def report_tree(directory: str) -> str:
    tree = f"{directory}/tree"
    images._busybox_tree(tree)
    with open(f"{tree}/bin/report", "w", encoding="ascii") as file:
        file.write(REPORT)
    os.chmod(f"{tree}/bin/report", 0o755)
    return tree


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    with private_directory(f"{os.getpid()}-sources") as path:
        yield path


@pytest.fixture(scope="module")
def by_docker(docker: Docker, directory: str) -> Made:
    """docker's own builder, and docker's own push."""
    context = f"{directory}/docker"
    os.mkdir(context)
    report_tree(context)
    with open(f"{context}/Dockerfile", "w", encoding="ascii") as file:
        file.write(DOCKERFILE)
    env = {**docker.env, "DOCKER_BUILDKIT": "0"}
    run(["docker", "build", "--quiet", "--network=none", "--tag=report:1", context], env=env)
    done = docker("run", "--rm", "--network=none", "report:1", check=False)
    assert done.returncode == 7, done.stderr

    def push(registry: Registry, name: str) -> str:
        reference = registry.reference(name)
        if registry.username:
            login = ["docker", "login", "--username", USERNAME, "--password-stdin", registry.host]
            run(login, env=docker.env, input=PASSWORD)
        docker("tag", "report:1", reference)
        docker("push", "--quiet", reference)
        return reference

    return Made(push, done.stdout)


@pytest.fixture(scope="module")
def by_buildah(directory: str) -> Made:
    """The same by buildah's commands; podman runs it."""
    place = f"{directory}/buildah"
    os.mkdir(place)
    tree = report_tree(place)
    os.makedirs(f"{tree}/data")
    for name, text in (("made", "by the builder\n"), ("data/seed", "seed\n")):
        with open(f"{tree}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    buildah = images.Buildah(f"{place}/storage")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, tree, "/")
    buildah("add", "--quiet", "--chown=1000", container, f"{tree}/data", "/data")
    options = (
        "--env=PATH=/usr/local/bin:/bin --env=EMPTY= --label=org.example.number=7 --port=8080/tcp --volume=/data "
        "--workingdir=/srv/place --user=app:extra --stop-signal=SIGUSR1"
    ).split()
    words = ["--env=GREETING=hello there", "--label=org.example.name=a b"]
    words += ['--entrypoint=["/bin/report", "first"]', "--cmd='second word' third"]
    buildah("config", *options, *words, container)
    buildah("commit", "--quiet", container, f"oci:{place}/layout:report")
    buildah("rm", container)
    image = Image("oci", f"{place}/layout", "report")
    image.copy_to(f"docker-archive:{place}/report.tar:localhost/report:1")
    with private_directory(f"{os.getpid()}-p") as short, private_podman(short) as podman:
        podman("load", "--input", f"{place}/report.tar")
        done = run(podman.run_command("--rm", "--network=none", "localhost/report:1"), check=False)
    assert done.returncode == 7, done.stderr
    return Made(image.push, done.stdout)


@pytest.fixture(scope="module")
def by_skopeo_zstd(by_docker: Made, docker: Docker, directory: str) -> Made:
    """docker's, converted to OCI with layers in zstd."""
    image = Image("oci", f"{directory}/zstd", "1")
    return _converted(by_docker, docker, image, "--format=oci", "--dest-compress-format=zstd")


@pytest.fixture(scope="module")
def by_skopeo_schema2(by_docker: Made, docker: Docker, directory: str) -> Made:
    """docker's, as a Docker manifest of schema 2 with gzip layers of skopeo's."""
    return _converted(by_docker, docker, Image("dir", f"{directory}/schema2"), "--format=v2s2", "--dest-compress")


def _converted(made: Made, docker: Docker, image: Image, *options: str) -> Made:
    archive = f"{image.path}.tar"
    docker("save", "--output", archive, "report:1")
    run(["skopeo", "copy", "--quiet", "--insecure-policy", *options, f"docker-archive:{archive}", image.source])
    # As it is: skopeo remembers blobs of other compressions, and would take those that a registry has.
    return Made(lambda registry, name: image.push(registry, name, "--preserve-digests"), made.said)


@pytest.fixture(scope="module")
def makers(by_docker: Made, by_buildah: Made, by_skopeo_zstd: Made, by_skopeo_schema2: Made) -> dict[str, Made]:
    """All of them, made before a test counts what it leaves behind."""
    return {"docker": by_docker, "buildah": by_buildah, "zstd": by_skopeo_zstd, "schema2": by_skopeo_schema2}


@pytest.fixture(scope="module")
def registries(registry: Registry, registry_basic: Registry, registry_token: Registry) -> dict[str, Registry]:
    return {"plain": registry, "basic": registry_basic, "token": registry_token}


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


LAYER_TYPES = {
    "docker": {"application/vnd.docker.image.rootfs.diff.tar.gzip"},
    "buildah": {"application/vnd.oci.image.layer.v1.tar+gzip"},
    "zstd": {"application/vnd.oci.image.layer.v1.tar+zstd"},
    "schema2": {"application/vnd.docker.image.rootfs.diff.tar.gzip"},
}


def media_types(registry: Registry, repository: str) -> set[str]:
    """Of the layers as the registry has them: that a test of zstd is one."""
    argv = [
        "skopeo",
        "inspect",
        "--raw",
        *(option.replace("--src-", "--") for option in registry.skopeo_credentials("src")),
    ]
    manifest = json.loads(run([*argv, f"docker://{registry.reference(repository)}:1"]).stdout)
    return {layer["mediaType"] for layer in manifest["layers"]}


@pytest.mark.parametrize("where", ["plain", "basic", "token"])
@pytest.mark.parametrize("maker", ["docker", "buildah", "zstd", "schema2"])
def test_it_runs_as_its_maker_runs_it(
    maker: str, where: str, makers: dict[str, Made], registries: dict[str, Registry], hutch: Cli, cgroup_parent: str
) -> None:
    made, registry = makers[maker], registries[where]
    name = made.push(registry, f"sources/{maker}:1")
    if registry.username:
        assert hutch("pull", name, check=False).returncode == 1
        hutch("login", "-u", USERNAME, "--password-stdin", registry.host, stdin=PASSWORD)
    hutch("pull", "-q", name)
    (shown,) = json.loads(hutch("image", "inspect", name).stdout)
    assert shown["Config"]["Labels"]["org.example.number"] == "7"
    assert media_types(registry, f"sources/{maker}") == LAYER_TYPES[maker]
    argv = ["run", "--rm", "--cgroup-parent", cgroup_parent, name]
    done = hutch(*argv, check=False)
    assert done.returncode == 7, done.stderr
    assert done.stdout == made.said
    again = hutch("run", "--rm", "--cgroup-parent", cgroup_parent, "--userns=host", name, check=False)
    assert (again.returncode, again.stdout) == (7, made.said)
    assert hutch(*argv[:-1], "--entrypoint", "/bin/sh", name, "-c", "exit 3", check=False).returncode == 3


def test_what_inspect_says_of_dockers(by_docker: Made, docker: Docker, registry: Registry, hutch: Cli) -> None:
    name = by_docker.push(registry, "sources/inspected:1")
    hutch("pull", "-q", name)
    (ours,) = json.loads(hutch("image", "inspect", name).stdout)
    (theirs,) = json.loads(docker("image", "inspect", name).stdout)
    for key in ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "Volumes", "StopSignal", "ExposedPorts"):
        assert ours["Config"][key] == theirs["Config"][key], key
    for key in ("Id", "Architecture", "Os", "Created"):
        assert ours[key] == theirs[key], key
    assert ours["RootFS"]["Layers"] == theirs["RootFS"]["Layers"]


def test_debian_by_mmdebstrap(debian_image: Image, registry_token: Registry, hutch: Cli, cgroup_parent: str) -> None:
    """Its own package manager works in it, with root's private ids and through them."""
    name = debian_image.push(registry_token, "sources/debian:1")
    hutch("login", "-u", USERNAME, "--password-stdin", registry_token.host, stdin=PASSWORD)
    hutch("pull", "-q", name)

    def inside(*command: str) -> str:
        return hutch("run", "--rm", "--cgroup-parent", cgroup_parent, name, *command).stdout

    with open("/etc/os-release", encoding="utf-8") as file:
        assert inside("grep", "^VERSION_CODENAME=", "/etc/os-release") in file.read()
    assert inside("dpkg-query", "-W", "-f", "${Status}", "apt") == "install ok installed"
    assert inside("apt-get", "--version").startswith("apt ")
    script = (
        "adduser --system --quiet tester 2>/dev/null || useradd -r tester; dpkg --audit; getent passwd tester | wc -l"
    )
    assert inside("bash", "-c", script) == "1\n"
    # dpkg itself unpacks a package: owners, modes, a diversion
    package = (
        "mkdir -p /p/DEBIAN /p/usr/share/made && echo hi > /p/usr/share/made/f && chmod 4755 /p/usr/share/made/f && "
        "printf 'Package: made\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' "
        "> /p/DEBIAN/control && dpkg-deb -b /p /made.deb >/dev/null && dpkg -i /made.deb >/dev/null && "
        "stat -c '%a %u' /usr/share/made/f && dpkg -P made >/dev/null && ls /usr/share/made 2>&1 | tail -c 27"
    )
    assert inside("bash", "-c", package).splitlines()[0] == "4755 0"
    assert inside("perl", "-e", "print 6 * 7") == "42"


def test_dockers_image_as_an_ordinary_user(
    by_docker: Made, registry_token: Registry, ordinary_user: OrdinaryUser
) -> None:
    name = by_docker.push(registry_token, "sources/user:1")

    def hutch(*argv: str, **more: str | bool) -> tuple[int, str]:
        done = ordinary_user.run([ordinary_user.hutch, *argv], check=False, **more)  # type: ignore[arg-type]
        return done.returncode, done.stdout

    assert hutch("pull", name)[0] == 1
    assert hutch("login", "-u", USERNAME, "--password-stdin", registry_token.host, input=PASSWORD)[0] == 0
    assert hutch("pull", "-q", name) == (0, f"{name}\n")
    assert hutch("run", "--rm", name) == (7, by_docker.said)
