"""containerd's own client drives hutch-oci through its shim."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import files, images, oci, programs
from tests.support.host import requires

pytestmark = requires("root", "program:containerd", "program:ctr", "program:buildah", "program:busybox")

Ctr = Callable[..., subprocess.CompletedProcess[str]]
_CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{0}/socket"
[ttrpc]
address = "{0}/socket.ttrpc"
"""


@pytest.fixture
def leaks_nothing() -> None:
    """What the engine itself keeps between two tests (mounts, cgroups of its helpers) is no leak of the runtime's."""


@pytest.fixture(scope="module")
def ctr() -> Iterator[Ctr]:
    with files.private_directory(f"{os.getpid()}-containerd") as directory:
        with open(f"{directory}/config.toml", "w", encoding="utf-8") as file:
            file.write(_CONFIG.format(directory))
        images.busybox().copy_to(f"oci-archive:{directory}/busybox.tar:busybox")
        launcher = oci.launcher(directory)

        def client(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
            words = tuple(word.replace("RUNTIME", launcher) for word in words)
            return programs.run(["ctr", "--address", f"{directory}/socket", *words], check=check, timeout_s=60)

        def ready() -> bool:
            return os.path.exists(f"{directory}/socket") and client("version", check=False).returncode == 0

        argv = ["containerd", "--config", f"{directory}/config.toml"]
        with programs.daemon(argv, log=f"{directory}/log", ready=ready, patience_s=30):
            client("image", "import", "--snapshotter=native", "--base-name=busybox", f"{directory}/busybox.tar")
            yield client
        with contextlib.suppress(FileNotFoundError):
            files.unmount_below(directory)


def image(ctr: Ctr) -> str:
    return ctr("image", "ls", "-q").stdout.split()[0]


def options() -> list[str]:
    return ["--snapshotter=native", "--runc-binary=RUNTIME", "--cgroup", f"/hutch-tests-{os.getpid()}-ctr"]


def test_run(ctr: Ctr) -> None:
    done = ctr("run", "--rm", *options(), image(ctr), "one", "sh", "-c", "echo $$; id -u; exit 3", check=False)
    assert done.stdout == "1\n0\n"
    assert done.returncode == 3


def test_a_missing_program_is_named(ctr: Ctr) -> None:
    done = ctr("run", "--rm", *options(), image(ctr), "two", "nope", check=False)
    assert done.returncode == 1
    assert "executable file not found in $PATH" in done.stderr


def test_task_exec_pause_and_kill(ctr: Ctr) -> None:
    ctr("run", "--detach", *options(), image(ctr), "three", "sleep", "1000")
    try:
        done = ctr("task", "exec", "--exec-id", "e1", "three", "sh", "-c", "cat /proc/1/comm; exit 4", check=False)
        assert (done.stdout, done.returncode) == ("sleep\n", 4)
        ctr("task", "pause", "three")
        assert "PAUSED" in ctr("task", "ls").stdout
        ctr("task", "resume", "three")
        assert "RUNNING" in ctr("task", "ls").stdout
        assert ctr("task", "ps", "three").stdout.count("\n") == 2
    finally:
        ctr("task", "kill", "--signal", "SIGKILL", "three")
        programs.wait_until(lambda: "STOPPED" in ctr("task", "ls").stdout, 10)
        ctr("task", "delete", "three", check=False)
        ctr("container", "delete", "three")
