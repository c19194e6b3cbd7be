"""podman drives hutch-oci: what it asks for, and what it makes of our answers. First with runc, which must agree."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support import files, images, oci
from tests.support.host import requires
from tests.support.podman import Podman, podman

pytestmark = requires("root", "program:podman", "program:conmon", "program:buildah", "program:busybox")


@pytest.fixture
def leaks_nothing() -> None:
    """What the engine itself keeps between two tests (mounts, cgroups of its helpers) is no leak of the runtime's."""


@pytest.fixture(scope="module", params=["hutch-oci", "runc"])
def engine(request: pytest.FixtureRequest) -> Iterator[Podman]:
    with files.private_directory(f"{os.getpid()}-podman") as directory:
        # podman passes no --root: the default one must be this test's own
        before = f"import hutch.runtime.commands.context as c; c.default_root = lambda: {directory + '/oci'!r}"
        runtime = oci.launcher(directory, before=before) if request.param == "hutch-oci" else request.param
        images.busybox().copy_to(f"docker-archive:{directory}/busybox.tar:busybox:latest")
        with podman(directory, runtime) as found:
            found("load", "--quiet", "--input", f"{directory}/busybox.tar")
            yield found
            found("rm", "--force", "--all", "--time=0", check=False)
        if request.param == "hutch-oci":
            assert os.listdir(f"{directory}/oci") == []


def run(engine: Podman, *argv: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    from tests.support import programs

    command = engine.run_command("--network=none", *argv)
    # conmon leaves a file "oom" where it is started
    return programs.run(command, check=check, timeout_s=60, cwd=engine.directory, **options)  # type: ignore[arg-type]


def test_run(engine: Podman) -> None:
    done = run(
        engine, "--rm", "-i", "busybox", "sh", "-c", "cat; echo $$; hostname | wc -c; id -u; echo x >&2", input="in\n"
    )
    assert done.stdout == "in\n1\n13\n0\n"
    assert done.stderr == "x\n"


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["sh", "-c", "exit 42"], 42, ""),
        (["nope"], 127, "executable file not found in|executable file .nope. not found in"),
        (["/nope"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "permission denied|is a directory"),
    ],
)
def test_exit_codes(engine: Podman, argv: list[str], status: int, message: str) -> None:
    import re

    done = run(engine, "--rm", "busybox", *argv, check=False)
    assert done.returncode == status, done.stderr
    assert re.search(message, done.stderr)


def test_exec_stop_and_inspect(engine: Podman) -> None:
    run(engine, "--detach", "--name", "box", "--env=A=1", "busybox", "sleep", "1000")
    try:
        assert engine("exec", "box", "sh", "-c", "echo $A $PPID; cat /proc/1/comm").stdout == "1 0\nsleep\n"
        assert engine(
            "exec", "--user=1000:1000", "--workdir=/tmp", "--env=B=2", "box", "sh", "-c", "id -u; pwd; echo $B"
        ).stdout == ("1000\n/tmp\n2\n")
        assert engine("exec", "box", "sh", "-c", "exit 9", check=False).returncode == 9
        assert engine("exec", "box", "nope", check=False).returncode == 127
        assert engine("exec", "box", "/etc/passwd", check=False).returncode == 126
        assert engine("exec", "--workdir=/nope", "box", "true", check=False).returncode in (126, 127)
        engine("pause", "box")
        assert json.loads(engine("inspect", "box").stdout)[0]["State"]["Status"] == "paused"
        engine("unpause", "box")
        assert "sleep 1000" in engine("top", "box").stdout
        began = time.monotonic()
        engine("kill", "--signal=KILL", "box")
        assert engine("wait", "box").stdout == "137\n"
        assert time.monotonic() - began < 10
        engine("start", "box")
        engine("stop", "--time=0", "box")
    finally:
        engine("rm", "--force", "--time=0", "box")


def test_terminal(engine: Podman) -> None:
    ours, theirs = pty.openpty()
    command = engine.run_command(
        "--network=none", "--rm", "-it", "busybox", "sh", "-c", "tty; stty size; read x; echo got $x"
    )
    subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=theirs, check=True)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        output = b""
        while b"77" not in output:
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
    assert lines[:2] == ["/dev/pts/0", "33 77"]
    assert "got word" in lines


def test_a_fork_bomb_meets_its_limit(engine: Podman) -> None:
    bomb = "for i in $(seq 100); do sleep 100 & done"
    done = run(engine, "--rm", "--pids-limit=20", "busybox", "sh", "-c", bomb, check=False)
    assert "can't fork" in done.stderr


def test_a_memory_hog_is_killed_and_reported(engine: Podman) -> None:
    argv = [
        "--name",
        "hog",
        "--memory=16m",
        "--memory-swap=16m",
        "busybox",
        "sh",
        "-c",
        "x=a; while :; do x=$x$x; done",
    ]
    done = run(engine, *argv, check=False)
    try:
        assert done.returncode == 137
    finally:
        engine("rm", "--force", "--time=0", "hog")


def test_security_options(engine: Podman) -> None:
    script = "grep -E '^(Cap(Inh|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/kcore | wc -c; touch /x"
    done = run(
        engine,
        "--rm",
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "busybox",
        "sh",
        "-c",
        script,
        check=False,
    )
    fields = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapInh", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert done.stdout.splitlines()[-1] == "0"
    assert "Read-only file system" in done.stderr
