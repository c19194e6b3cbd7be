"""`hutch logs` on containers that write, as their users see it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import wait_until
from tests.support.registries import Registry

pytestmark = requires("root")


class Writer:
    """Containers of busybox in the background, with a private root and cgroup; removed in the end."""

    def __init__(self, cli: Cli, cgroup: str, image: str) -> None:
        self.cli, self.cgroup, self.image = cli, cgroup, image
        self.names: list[str] = []

    def start(self, script: str, *flags: str) -> str:
        name = f"writer{len(self.names)}"
        self.names.append(name)
        self.cli("run", "-d", "--name", name, "--cgroup-parent", self.cgroup, *flags, self.image, "sh", "-c", script)
        return name

    def finished(self, script: str, *flags: str) -> str:
        name = self.start(script, *flags)
        self.cli("wait", name)
        return name


@pytest.fixture
def cli(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


@pytest.fixture
def write(cli: Cli, cgroup_parent: str, registry: Registry, busybox_image: Image) -> Iterator[Writer]:
    image = busybox_image.push(registry, "logs/busybox:latest")
    cli("pull", "-q", image)
    writer = Writer(cli, cgroup_parent, image)
    yield writer
    for name in writer.names:
        cli("rm", "-f", name, check=False)


def test_both_streams_and_the_last_line_without_its_end(cli, write):
    name = write.finished("echo out; echo err >&2; printf rest")
    done = cli("logs", name)
    assert (done.stdout, done.stderr) == ("out\nrest", "err\n")
    assert cli("container", "logs", name).stdout == "out\nrest"


def test_tail_times_and_details(cli, write):
    flags = ("--label=role=front end", "--log-opt=labels=role", "--log-opt=tag={{.Name}}/x")
    name = write.finished("for i in 1 2 3 4 5; do echo $i; done", *flags)
    assert cli("logs", "-n", "2", name).stdout == "4\n5\n"
    assert cli("logs", "--tail=0", name).stdout == ""
    assert cli("logs", "--tail=-1", name).stdout == "1\n2\n3\n4\n5\n"
    stamped = cli("logs", "-t", "--tail", "1", name).stdout
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 5\n", stamped)
    assert cli("logs", "--details", "-n1", name).stdout == f"role=front+end,tag={name}%2Fx 5\n"
    assert cli("logs", "--since", stamped.split()[0], name).stdout.endswith("5\n")
    assert cli("logs", "--since=1h", name).stdout == "1\n2\n3\n4\n5\n"
    assert cli("logs", "--until=1h", name).stdout == ""
    message = 'invalid value for "since": failed to parse value as time or duration: "soon"'
    assert message in cli.fails("logs", "--since=soon", name)
    assert "no such container: nobody" in cli.fails("logs", "nobody")


def test_follow_until_the_container_ends(cli, write):
    name = write.start("for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done")
    began = time.monotonic()
    assert cli("logs", "-f", name).stdout == "1\n2\n3\n4\n5\n6\n"
    assert time.monotonic() - began < 10


def test_a_terminals_output_is_all_stdout(cli, write):
    name = write.finished("echo out; echo err >&2", "-t")
    done = cli("logs", name)
    assert (done.stdout, done.stderr) == ("out\r\nerr\r\n", "")


def test_following_can_be_left(cli, write):
    name = write.start("while :; do echo tick; sleep 0.05; done")
    with subprocess.Popen([*cli.words, "logs", "-f", name], env=cli.env, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"tick\n"
        follower.send_signal(signal.SIGINT)
        follower.stdout.read()
        assert follower.wait(10) == 130
    with subprocess.Popen(
        [*cli.words, "logs", "-f", name], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as follower:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline() == b"tick\n"
        follower.stdout.close()
        assert follower.wait(10) == 1
        assert follower.stderr.read() == b""


def test_a_flood_stays_within_its_files_and_is_followed(cli, write, tmp_root):
    flags = ("--log-opt", "max-size=100k", "--log-opt", "max-file=2")
    name = write.finished("i=0; while [ $i -lt 20000 ]; do echo this is line $i; i=$((i+1)); done", *flags)
    lines = cli("logs", name).stdout.splitlines()
    assert lines[-1] == "this is line 19999"
    assert lines == [f"this is line {number}" for number in range(20000 - len(lines), 20000)]
    assert 1000 < len(lines) < 5000
    sizes = [
        os.path.getsize(f"{where}/{file}")
        for where, _, files in os.walk(f"{tmp_root.data}/containers")
        for file in files
        if "-json.log" in file
    ]
    assert len(sizes) == 2 and sum(sizes) < 202_000


@pytest.mark.parametrize("driver", ["local", "none"])
def test_other_drivers(cli, write, driver):
    name = write.finished("echo hello; echo there >&2", f"--log-driver={driver}")
    if driver == "none":
        assert "configured logging driver does not support reading" in cli.fails("logs", name)
    else:
        assert (cli("logs", name).stdout, cli("logs", name).stderr) == ("hello\n", "there\n")


def test_what_is_no_log_is_refused_before_anything_is_made(cli, write):
    argv = ["run", "-d", "--cgroup-parent", write.cgroup]
    refused = cli.fails(*argv, "--log-driver=nope", write.image, "true", status=125)
    assert "logger: no log driver named 'nope' is registered" in refused
    refused = cli.fails(*argv, "--log-opt=max-size=x", write.image, "true", status=125)
    assert "max-size: invalid size: 'x'" in refused
    assert cli("ps", "-aq").stdout == ""


def test_a_log_follows_its_container_through_a_restart(cli, write):
    name = write.start("echo begin; sleep 0.5; exit 3", "--restart=on-failure:1")
    wait_until(lambda: cli("logs", name).stdout == "begin\nbegin\n", 20)
    assert cli("logs", "-f", name).stdout == "begin\nbegin\n"


def test_syslog_beside_the_rest_of_a_containers_life(cli, write, tmp_root):
    path = f"{tmp_root.base}/syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(10)
        flags = ("--log-driver=syslog", f"--log-opt=syslog-address=unixgram://{path}", "--log-opt=tag={{.Name}}")
        name = write.start("echo hello; while [ ! -e /go ]; do sleep 0.1; done; printf bye >&2", *flags)
        assert re.fullmatch(rf"<30>.*{name}\[\d+\]: hello\n", daemon.recv(4096).decode())
        assert cli("exec", name, "touch", "/go").returncode == 0
        assert re.fullmatch(rf"<27>.*{name}\[\d+\]: bye\n", daemon.recv(4096).decode())
        cli("wait", name)
    assert "configured logging driver does not support reading" in cli.fails("logs", name)
    refused = cli.fails("run", "-d", "--name", "late", "--cgroup-parent", write.cgroup, *flags, write.image, status=125)
    write.names.append("late")
    assert f"unix syslog delivery error: {path}: connection refused" in refused


@requires("program:journalctl")
def test_a_journal_that_is_not_there_is_said_when_the_container_starts(cli, write):
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("this host has a journal")
    argv = [
        "run",
        "-d",
        "--name",
        "late",
        "--cgroup-parent",
        write.cgroup,
        "--log-driver=journald",
        write.image,
        "true",
    ]
    write.names.append("late")
    assert "journald is not enabled on this host" in cli.fails(*argv, status=125)
