"""dockerd (by way of containerd and its shim) drives hutch-oci; the same with its runc must give the same."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import cgroups, files, images, oci
from tests.support.docker import Docker, dockerd
from tests.support.host import requires

pytestmark = requires("root", "program:dockerd", "program:docker", "program:buildah", "program:busybox")


@pytest.fixture
def leaks_nothing() -> None:
    """What the engine itself keeps between two tests (mounts, cgroups of its helpers) is no leak of the runtime's."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Docker]:
    with files.private_directory(f"{os.getpid()}-docker") as directory, cgroups.parent(sweep=True) as path:
        images.busybox().copy_to(f"docker-archive:{directory}/busybox.tar:busybox:latest")
        runtime = f"--add-runtime=hutch={oci.launcher(directory)}"
        with dockerd(directory, f"--cgroup-parent={path}", runtime) as found:
            found("load", "--quiet", "--input", f"{directory}/busybox.tar")
            yield found


@pytest.fixture(params=["hutch", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_argv(runtime: str, *argv: str) -> list[str]:
    return ["run", f"--runtime={runtime}", "--network=none", *argv]


def test_run(daemon: Docker, runtime: str) -> None:
    done = daemon(*run_argv(runtime, "--rm", "busybox", "sh", "-c", "echo $$; id -u; hostname | wc -c; echo x >&2"))
    assert (done.stdout, done.stderr) == ("1\n0\n13\n", "x\n")


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["sh", "-c", "exit 42"], 42, ""),
        (["nope"], 127, "executable file not found in"),
        (["/etc/passwd"], 126, "permission denied"),
    ],
)
def test_exit_codes(daemon: Docker, runtime: str, argv: list[str], status: int, message: str) -> None:
    done = daemon(*run_argv(runtime, "--rm", "busybox", *argv), check=False)
    assert done.returncode == status, done.stderr
    assert re.search(message, done.stderr)


def test_exec_pause_update_and_stop(daemon: Docker, runtime: str) -> None:
    argv = run_argv(runtime, "--detach", "--name=box", "--env=A=1", "--memory=64m", "busybox", "sleep", "1000")
    daemon(*argv)
    try:
        assert daemon("exec", "box", "sh", "-c", "echo $A; cat /proc/1/comm").stdout == "1\nsleep\n"
        assert daemon("exec", "--user=1000", "--workdir=/tmp", "box", "sh", "-c", "id -u; pwd").stdout == "1000\n/tmp\n"
        assert daemon("exec", "box", "sh", "-c", "exit 9", check=False).returncode == 9
        assert daemon("exec", "box", "nope", check=False).returncode in (126, 127)
        daemon("pause", "box")
        assert json.loads(daemon("inspect", "box").stdout)[0]["State"]["Status"] == "paused"
        daemon("unpause", "box")
        daemon("update", "--memory=32m", "--memory-swap=64m", "box")
        assert "sleep 1000" in daemon("top", "box").stdout
        stats = daemon("stats", "--no-stream", "--format={{.MemUsage}}", "box").stdout
        assert "32MiB" in stats
        daemon("kill", "--signal=KILL", "box")
        assert daemon("wait", "box").stdout == "137\n"
    finally:
        daemon("rm", "--force", "box")


def test_terminal(daemon: Docker, runtime: str) -> None:
    ours, theirs = pty.openpty()
    argv = ["docker", *run_argv(runtime, "--rm", "-it", "busybox", "sh", "-c", "tty; read x; echo got $x")]
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=daemon.env, start_new_session=True
    ) as process:
        os.close(theirs)
        output = b""
        while b"pts/0" not in output:
            output += os.read(ours, 1000)
        os.write(ours, b"word\n")
        while True:
            try:
                output += os.read(ours, 1000)
            except OSError:
                break
        assert process.wait(30) == 0
    os.close(ours)
    lines = output.decode().replace("\r\n", "\n").split("\n")
    assert lines[0] == "/dev/pts/0"
    assert "got word" in lines


def test_out_of_memory_is_reported(daemon: Docker, runtime: str) -> None:
    hog = ["--name=hog", "--memory=16m", "--memory-swap=16m", "busybox", "sh", "-c", "x=a; while :; do x=$x$x; done"]
    done = daemon(*run_argv(runtime, *hog), check=False)
    try:
        assert done.returncode == 137
        assert json.loads(daemon("inspect", "hog").stdout)[0]["State"]["OOMKilled"] is True
    finally:
        daemon("rm", "--force", "hog")


def test_a_fork_bomb_meets_its_limit(daemon: Docker, runtime: str) -> None:
    bomb = "for i in $(seq 100); do sleep 100 & done"
    done = daemon(*run_argv(runtime, "--rm", "--pids-limit=20", "busybox", "sh", "-c", bomb), check=False)
    assert re.search("can't fork|Resource temporarily unavailable", done.stderr)
