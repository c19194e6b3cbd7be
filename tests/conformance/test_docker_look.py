"""What docker shows of containers, hutch shows in the same shape: JSON fields, headings, exit codes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import cgroups
from tests.support.cli import Cli
from tests.support.docker import Docker
from tests.support.engines import end_engine
from tests.support.files import private_directory
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import wait_until

pytestmark = requires("root", "program:dockerd", "program:docker", "program:buildah", "program:busybox")

FLAGS = [
    "-d",
    "--network=none",
    "-m",
    "64m",
    "-v",
    "look:/data",
    "-l",
    "a=b",
    "--health-cmd=true",
    "--health-interval=1s",
]
GONE = {"KernelMemory", "KernelMemoryTCP"}
"""Fields that docker itself has given up since."""


@pytest.fixture
def leaks_nothing() -> None:
    """What dockerd keeps between two tests is no leak."""


@pytest.fixture(scope="module")
def both(docker: Docker, busybox_image: Image) -> Iterator[tuple[Docker, Cli]]:
    """docker and hutch with the same containers: `box` runs, `over` has ended."""
    with private_directory("look") as base, cgroups.parent() as cgroup:
        os.makedirs(f"{base}/state", mode=0o700)
        cli = Cli(["--root", f"{base}/data", "--state", f"{base}/state"], {"HUTCH_CONFIG": "/nonexistent"})
        busybox_image.copy_to(f"docker-archive:{base}/busybox.tar:busybox:latest")
        docker("load", "--quiet", "--input", f"{base}/busybox.tar")
        cli("load", "-i", f"{base}/busybox.tar")
        ended = ["--network=none", "--name=over", "busybox", "sh", "-c", "exit 3"]
        for engine, more in ((docker, []), (cli, ["--cgroup-parent", cgroup])):
            engine("run", *more, *FLAGS, "--name=box", "busybox", "sleep", "1000")
            engine("run", *more, *ended, check=False)
            wait_until(lambda engine=engine: "(healthy)" in engine("ps").stdout, 20)
        try:
            yield docker, cli
        finally:
            for engine in (docker, cli):
                engine("rm", "-f", "box", "over", check=False)
                engine("volume", "rm", "look", check=False)
            end_engine(f"{base}/state")


def differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    """Fields that docker has and hutch has not, or as something else."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = []
        for key, value in theirs.items():
            if key in GONE:
                continue
            if key not in ours:
                found.append(f"{path}.{key} is missing")
            else:
                found += differences(value, ours[key], f"{path}.{key}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        return differences(theirs[0], ours[0], f"{path}[]") if theirs and ours else []
    if theirs is not None and ours is not None and type(theirs) is not type(ours):
        return [f"{path}: {theirs!r} there, {ours!r} here"]
    return []


def documents(both: tuple[Docker, Cli], *argv: str) -> list[Any]:
    """What each prints as JSON, or as JSON lines."""
    found = []
    for engine in both:
        text = engine(*argv).stdout
        found.append(json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()])
    return found


def test_inspect_has_every_field_in_its_type(both):
    for name in ("box", "over"):
        theirs, ours = documents(both, "inspect", "-s", name)
        assert differences(theirs, ours) == []
        for field in ("Path", "Args", "Name", "RestartCount", "Platform"):
            assert ours[0][field] == theirs[0][field]
        for field in ("Cmd", "Entrypoint", "Image", "Labels", "Healthcheck", "Volumes", "Tty", "OpenStdin"):
            assert ours[0]["Config"].get(field) == theirs[0]["Config"].get(field), field
        for field in (
            "Memory",
            "MemorySwap",
            "Binds",
            "RestartPolicy",
            "NetworkMode",
            "AutoRemove",
            "ShmSize",
            "LogConfig",
        ):
            assert ours[0]["HostConfig"][field] == theirs[0]["HostConfig"][field], field
        for field in ("Status", "Running", "Paused", "ExitCode", "OOMKilled", "Error"):
            assert ours[0]["State"][field] == theirs[0]["State"][field], field


@pytest.mark.parametrize(
    "argv",
    [
        ("ps", "-a", "--format", "json"),
        ("stats", "--no-stream", "-a", "--format", "json"),
        ("system", "df", "--format", "json"),
        ("events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--format", "json"),
        (
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "type=volume",
            "--filter",
            "event=mount",
            "--format",
            "json",
        ),
    ],
)
def test_lines_of_json_have_the_same_fields(both, argv):
    theirs, ours = documents(both, *argv)
    assert theirs and ours
    assert sorted(theirs[0]) == sorted(ours[0])
    assert differences(theirs[0], ours[0]) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("ps", "-as"),
        ("stats", "--no-stream", "-a"),
        ("top", "box"),
        ("top", "box", "-eo", "pid,user,comm,args"),
        ("system", "df"),
        ("system", "df", "-v"),
    ],
)
def test_tables_have_the_same_headings(both, argv):
    headings = [
        [re.split(r"\s{2,}", line) for line in engine(*argv).stdout.splitlines() if line.isupper() and "  " in line]
        for engine in both
    ]
    assert headings[0] == headings[1] != []


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("inspect", "nope"), 1),
        (("inspect", "--type", "container", "busybox"), 1),
        (("inspect", "--type", "foo", "box"), 1),
        (("top", "over"), 1),
        (("top", "box", "-o", "comm"), 1),
        (("stats", "--no-stream", "nope"), 1),
        (("port", "box"), 0),
        (("port", "box", "80"), 1),
        (("update", "box"), 1),
        (("update", "-m", "1m", "box"), 1),
        (("update", "-m", "1g", "box"), 1),
        (("update", "--restart", "on-failure:2", "box"), 0),
        (("events", "--since", "x", "--until", "0s"), 1),
        (("container", "prune", "-f", "--filter", "until=1h"), 0),
        (("system", "prune", "-f", "--filter", "label=none-has-this"), 0),
    ],
)
def test_exit_codes(both, argv, status):
    assert [engine(*argv, check=False).returncode for engine in both] == [status, status]
