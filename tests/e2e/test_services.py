"""Thirty containers of real programs, through what happens to them in use: nginx, redis, PostgreSQL and Python."""

from __future__ import annotations

import os
import select
import subprocess
import time

import pytest

from tests.support import images
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.programs import wait_until
from tests.support.runner import Runner

pytestmark = [
    requires("root", "program:mmdebstrap", "program:buildah"),
    pytest.mark.timeout(600),  # the first time, when the images are made
]

PATIENCE_S = 60
OFTEN = ("--health-interval=2s", "--health-start-period=60s", "--health-start-interval=300ms", "--health-retries=2")
HEALTH = {
    "nginx": "curl -fsS http://127.0.0.1/",
    "redis": "redis-cli ping | grep -q PONG",
    "postgres": "pg_isready -q -h /tmp",
    "python": "curl -fsS http://127.0.0.1:8000/",
}
COUNTS = {"nginx": 10, "redis": 9, "postgres": 3, "python": 8}


@pytest.fixture
def stack(own_hutch: Cli, cgroup_parent: str) -> Runner:
    """The images, by the names of their programs."""
    made = images.services()
    own_hutch("load", "--quiet", "--input", made["nginx"].path)
    for name, image in made.items():
        own_hutch("tag", image.manifest()["config"]["digest"], f"{name}:latest")
    return Runner(own_hutch, cgroup_parent, "nginx")


def start(box: Runner, image: str, name: str, *flags: str) -> str:
    health = ("--health-cmd", HEALTH[image], *OFTEN)
    argv = box.argv("-d", "--name", name, *health, *flags, image=image)
    return box.cli(*argv).stdout.strip()


def healthy(box: Runner) -> set[str]:
    return set(box.cli("ps", "--filter", "health=healthy", "--format", "{{.Names}}").stdout.split())


def inside(box: Runner, name: str, *command: str) -> str:
    return box.cli("exec", name, *command).stdout


def sql(box: Runner, name: str, text: str) -> str:
    return inside(box, name, "psql", "-h", "/tmp", "-Atqc", text)


def fetch(box: Runner, of: str, url: str) -> str:
    """What a client in the network of another container gets."""
    return box("curl", "-fsS", url, flags=("--network", f"container:{of}")).stdout


def test_a_stack_of_thirty(stack, tmp_path):
    box = stack
    names = [f"{image}{number}" for image, count in COUNTS.items() for number in range(1, count + 1)]
    for name in names:
        image = name.rstrip("0123456789")
        flags = {"postgres": ("-v", f"{name}:/var/lib/postgresql/data"), "nginx": ("--restart", "always")}
        start(box, image, name, *flags.get(image, ()))
    assert len(names) == 30
    wait_until(lambda: healthy(box) == set(names), PATIENCE_S)

    served_and_logged(box)
    databases_survive_their_containers(box)
    caches_are_killed_and_come_back(box)
    sites_fall_ill_and_recover(box, str(tmp_path))
    a_container_becomes_an_image(box, str(tmp_path))

    assert healthy(box) >= set(names)
    everybody = box.cli("ps", "-q").stdout.split()
    stopping = time.monotonic()
    box.cli("stop", *everybody)
    assert time.monotonic() - stopping < 30
    told = box.cli("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}").stdout
    assert {line.split(" ", 1)[1].partition(")")[0] for line in told.splitlines()} == {"exited Exited (0"}, told
    box.cli("rm", "--volumes", *everybody)
    assert box.cli("ps", "-aq").stdout == ""
    assert sorted(box.cli("volume", "ls", "-q").stdout.split()) == ["postgres1", "postgres2", "postgres3"]
    box.cli("volume", "rm", "postgres1", "postgres2", "postgres3")


def served_and_logged(box: Runner) -> None:
    """A reader follows the log while clients ask."""
    follower = subprocess.Popen(
        [*box.cli.words, "logs", "--follow", "--tail", "0", "nginx1"],
        stdout=subprocess.PIPE,
        env=box.cli.env,
    )
    try:
        seen = read_until(follower, "GET / ")  # of a health check: now it follows
        for number in range(3):
            assert "Welcome to nginx!" in fetch(box, "nginx1", f"http://127.0.0.1/?asked={number}")
        seen += read_until(follower, "asked=2")
        assert seen.index("asked=0") < seen.index("asked=1")
    finally:
        follower.kill()
        follower.communicate()
    assert fetch(box, "python1", "http://127.0.0.1:8000/") == fetch(box, "python2", "http://127.0.0.1:8000/")


def read_until(process: subprocess.Popen[bytes], text: str) -> str:
    """What it writes up to `text`."""
    assert process.stdout
    seen = b""
    deadline = time.monotonic() + PATIENCE_S
    while text.encode() not in seen:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not come: {seen!r}"
        seen += os.read(process.stdout.fileno(), 65536)
    return seen.decode()


def databases_survive_their_containers(box: Runner) -> None:
    sql(box, "postgres1", "create table t (n int); insert into t select generate_series(1, 1000)")
    box.cli("restart", "postgres1")
    wait_until(lambda: "postgres1" in healthy(box), PATIENCE_S)
    assert sql(box, "postgres1", "select sum(n) from t") == "500500\n"
    box.cli("kill", "postgres1")
    assert box.record("postgres1").exit_code == 137
    box.cli("rm", "postgres1")
    start(box, "postgres", "postgres1", "-v", "postgres1:/var/lib/postgresql/data")
    wait_until(lambda: "postgres1" in healthy(box), PATIENCE_S)
    assert sql(box, "postgres1", "select sum(n) from t") == "500500\n"
    assert "database system was not properly shut down" in box.cli("logs", "postgres1").stderr
    assert sql(box, "postgres2", "select count(*) from pg_tables where tablename = 't'") == "0\n"


def caches_are_killed_and_come_back(box: Runner) -> None:
    inside(box, "redis1", "redis-cli", "set", "colour", "blue")
    box.cli("stop", "redis1")  # it saves
    box.cli("start", "redis1")
    wait_until(lambda: "redis1" in healthy(box), PATIENCE_S)
    assert inside(box, "redis1", "redis-cli", "get", "colour") == "blue\n"
    others = [f"redis{number}" for number in range(2, 10)]
    box.cli("kill", *others)
    assert {box.record(name).exit_code for name in others} == {137}
    box.cli("start", *others)
    wait_until(lambda: healthy(box) >= set(others), PATIENCE_S)
    client = box("redis-cli", "-h", "127.0.0.1", "ping", flags=("--network", "container:redis5")).stdout
    assert client == "PONG\n"


def sites_fall_ill_and_recover(box: Runner, directory: str) -> None:
    page = "/var/www/html/index.nginx-debian.html"
    box.cli("cp", f"nginx3:{page}", f"{directory}/page.html")
    inside(box, "nginx3", "rm", page)
    wait_until(lambda: "unhealthy" in status(box, "nginx3"), PATIENCE_S)
    assert "403" in str(box.record("nginx3").health["Log"][-1]["Output"])
    box.cli("cp", f"{directory}/page.html", f"nginx3:{page}")
    wait_until(lambda: "nginx3" in healthy(box), PATIENCE_S)
    # One whose program ends is started again; its files are as they were.
    inside(box, "nginx4", "sh", "-c", "echo mine > /var/www/html/mine; kill -QUIT 1")
    wait_until(lambda: box.record("nginx4").restart_count == 1 and "nginx4" in healthy(box), PATIENCE_S)
    assert fetch(box, "nginx4", "http://127.0.0.1/mine") == "mine\n"


def status(box: Runner, name: str) -> str:
    return box.cli("ps", "--filter", f"name=^{name}$", "--format", "{{.Status}}").stdout.strip()


def a_container_becomes_an_image(box: Runner, directory: str) -> None:
    os.mkdir(f"{directory}/site")
    for name in ("a", "b"):
        with open(f"{directory}/site/{name}.txt", "w", encoding="ascii") as file:
            file.write(f"{name}\n")
    box.cli("cp", f"{directory}/site/.", "python3:/srv")
    assert "A /srv/a.txt" in box.cli("diff", "python3").stdout
    box.cli("commit", "--message", "with pages", "python3", "site:1")
    start_site = box.argv("-d", "--name", "site", "--health-cmd", HEALTH["python"], *OFTEN, image="site:1")
    box.cli(*start_site)
    wait_until(lambda: "site" in healthy(box), PATIENCE_S)
    assert fetch(box, "site", "http://127.0.0.1:8000/b.txt") == "b\n"
    assert box.cli("history", "--format", "{{.Comment}}", "site:1").stdout.splitlines()[0] == "with pages"
