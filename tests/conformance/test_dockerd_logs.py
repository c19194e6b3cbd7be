"""Docker's own json-file log of a container's output against ours of the same bytes; each reads the other's."""

from __future__ import annotations

import glob
import os
import re
import shutil

import pytest

from hutch.engine.logs import reading
from hutch.engine.logs.drivers import LogSource, open_writer
from tests.support.docker import Docker
from tests.support.host import requires
from tests.support.images import Image

pytestmark = requires("root", "program:dockerd", "program:docker", "program:buildah", "program:busybox")

PROGRAM = r"""
printf 'a\tb\r\001\033\177<>&"\\\\ \303\251 \342\200\250 \377 \342\202A \355\240\200 \360\237\230\200\n\n'
head -c 16383 /dev/zero | tr '\0' x; echo
head -c 16384 /dev/zero | tr '\0' y; echo
head -c 40001 /dev/zero | tr '\0' z; echo
head -c 16383 /dev/zero | tr '\0' u; printf '\303\251\n'
printf unfinished
"""


@pytest.fixture
def leaks_nothing() -> None:
    """What the engine itself keeps between two tests is no leak of ours."""


@pytest.fixture(scope="module")
def daemon(docker: Docker, busybox_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Docker:
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    busybox_image.copy_to(f"docker-archive:{archive}:busybox:logs")
    docker("load", "--quiet", "--input", str(archive))
    return docker


def without_times(data: bytes) -> list[bytes]:
    return re.sub(rb'"time":"[^"]*"', b"", data).splitlines()


def log_of(daemon: Docker, name: str) -> str:
    identity = daemon("inspect", "--format={{.LogPath}}", name).stdout.strip()
    assert glob.glob(identity)
    return identity


@pytest.mark.parametrize("options", [{}, {"labels": "z,a", "env": "FOO", "tag": "{{.Name}}:{{.ImageName}}"}])
def test_the_file_is_the_same(daemon, tmp_path, options):
    labels, env = {"z": "1", "a": "<é>"}, ("FOO=x y",)
    flags = [f"--log-opt={key}={value}" for key, value in options.items()]
    flags += [f"--label={key}={value}" for key, value in labels.items()] + [f"--env={env[0]}"]
    name = f"hutch-logs-{os.getpid()}"
    daemon("run", f"--name={name}", "--network=none", *flags, "busybox:logs", "sh", "-c", PROGRAM)
    try:
        with open(log_of(daemon, name), "rb") as file:
            theirs = file.read()
        output = raw_output()
        ours = tmp_path / ("a" * 64)
        ours.mkdir()
        source = LogSource(container_id="a" * 64, name=name, image="busybox:logs", labels=labels, env=env)
        writer = open_writer("json-file", options, str(ours), source)
        for start in range(0, len(output), 7001):
            writer.write(1, output[start : start + 7001], 1)
        writer.close()
        assert without_times((ours / f"{'a' * 64}-json.log").read_bytes()) == without_times(theirs)

        # Docker reads our file, and we read docker's.
        theirs_read = daemon("logs", name).stdout
        link = tmp_path / ("b" * 64)
        link.mkdir()
        shutil.copy(log_of(daemon, name), link / f"{'b' * 64}-json.log")
        found = reading.read_log("json-file", {}, str(link), running=lambda: False)
        assert b"".join(entry.data for entry in found).decode() == theirs_read
        shutil.copy(ours / f"{'a' * 64}-json.log", log_of(daemon, name))
        assert daemon("logs", name).stdout == theirs_read
    finally:
        daemon("rm", "--force", name)


def raw_output() -> bytes:
    """What PROGRAM writes."""
    odd = b'a\tb\r\x01\x1b\x7f<>&"\\\\ \xc3\xa9 \xe2\x80\xa8 \xff \xe2\x82A \xed\xa0\x80 \xf0\x9f\x98\x80\n\n'
    long = b"x" * 16383 + b"\n" + b"y" * 16384 + b"\n" + b"z" * 40001 + b"\n" + b"u" * 16383 + b"\xc3\xa9\n"
    return odd + long + b"unfinished"


def test_rotated_files_have_the_same_names_and_sizes(daemon, tmp_path):
    options = {"max-size": "10k", "max-file": "3"}
    name = f"hutch-rotated-{os.getpid()}"
    flags = [f"--log-opt={key}={value}" for key, value in options.items()]
    program = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done"
    daemon("run", f"--name={name}", "--network=none", *flags, "busybox:logs", "sh", "-c", program)
    try:
        path = log_of(daemon, name)
        theirs = {os.path.basename(found)[64:]: os.path.getsize(found) for found in glob.glob(f"{path}*")}
    finally:
        daemon("rm", "--force", name)
    ours = tmp_path / ("a" * 64)
    ours.mkdir()
    writer = open_writer("json-file", options, str(ours), LogSource(container_id="a" * 64))
    for number in range(500):
        writer.write(1, b"line %d\n" % number, 1_790_000_000_123_456_789)
    writer.close()
    made = {entry.name[64:]: entry.stat().st_size for entry in os.scandir(ours)}
    assert made.keys() == theirs.keys() == {"-json.log", "-json.log.1", "-json.log.2"}
    # Docker's times end with zeros now and then, and are shorter then.
    assert all(10_000 <= size < 10_100 for key, size in {**made, **theirs}.items() if key != "-json.log")
