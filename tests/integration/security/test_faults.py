"""Faults while a container is made and run: kill -9 at any moment, a torn record, a full disk, odd surroundings."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.security.conftest import Host
from tests.support.host import requires
from tests.support.programs import run, wait_until

pytestmark = requires("root", "program:busybox")


def start(box: Host, image: str, *flags: str) -> subprocess.Popen[str]:
    words = box.argv(image, "sleep", "1", flags=("--name", "again", "-v", "/anonymous", *flags))
    return subprocess.Popen(words, env=box.cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("delay_ms", [30, 45, 60, 80, 120, 200])
def test_x01_whatever_a_killed_run_had_come_to_the_next_one_finds_nothing_of_it(own_box: Host, delay_ms: int) -> None:
    image = own_box.image("killed")
    with start(own_box, image) as process:
        time.sleep(delay_ms / 1000)
        process.kill()
    own_box.cli("rm", "-fv", "again")  # what is running by then goes on without the command that started it
    own_box.run(image, "true", flags=("--name", "again"))
    assert own_box.left() == {}
    wait_until(lambda: not any(own_box.cgroup in path for path in cgroups_with_processes(own_box)), 5)


def cgroups_with_processes(box: Host) -> list[str]:
    found = []
    for top, _, files in os.walk(f"/sys/fs/cgroup/pids{box.cgroup}"):
        if "cgroup.procs" in files and Path(top, "cgroup.procs").read_text():
            found.append(top)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_while_it_is_made_leaves_nothing(own_box: Host, number: signal.Signals) -> None:
    image = own_box.image("ended")
    statuses = set()
    for delay_ms in (30, 40, 50, 60, 75):
        with start(own_box, image, "--init") as process:
            time.sleep(delay_ms / 1000)
            process.send_signal(number)
            process.wait(20)
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
            statuses.add(process.returncode)
    # Before Python heard of it, while it is made, or passed on to the container; whose process 1 does not hear what
    # comes before it has a handler, as the kernel has it, and then ends by itself.
    assert statuses <= {-number, 128 + number, 0}
    assert statuses - {0}
    own_box.run(image, "true", flags=("--name", "again"))


def test_undecodable_bytes_anywhere_do_no_harm(own_box: Host) -> None:
    image = own_box.image("bytes")
    odd = os.fsdecode(b"\xff\xfe")
    flags = ("--name", "odd", "-e", f"A={odd}", "-l", f"label={odd}", "--annotation", f"x={odd}", "-w", f"/{odd}")
    words = [
        word
        for word in own_box.argv(image, "sh", "-c", f"echo $A {odd}; readlink /proc/self/cwd", flags=flags)
        if word != "--rm"
    ]
    done = subprocess.run(words, env=own_box.cli.env, capture_output=True, check=True)
    assert done.stdout == b"\xff\xfe \xff\xfe\n/\xff\xfe\n"
    assert "odd" in own_box.cli("ps", "-a").stdout
    own_box.cli("ps", "-a", "--format", "json")
    own_box.cli("rm", "odd")


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ("umask 0777", 0),
        ("ulimit -n 40", 0),
        ("trap '' PIPE HUP; nice -n 5 true", 0),
        ("cd /; mkdir gone-$$; cd gone-$$; rmdir ../gone-$$", 0),
        ("ulimit -f 0", 125),
        ("ulimit -n 14", 125),
    ],
)
def test_odd_surroundings(own_box: Host, surroundings: str, expected: int) -> None:
    own_box.mode = "host"
    words = own_box.argv(own_box.image("odd"), "sh", "-c", "echo fine; ls /proc/self/fd >&2")
    script = f'{surroundings.replace("cd /;", f"cd {own_box.roots.base};")}; exec "$@"'
    done = run(["sh", "-c", script, "sh", *words], env=own_box.cli.env, check=False)
    assert (done.returncode, done.stdout) == (expected, "fine\n" if expected == 0 else ""), done.stderr
    assert "Traceback" not in done.stderr
    # Without descriptors there is no clearing up either: the next command does it, and finds a server fit to serve.
    own_box.run(own_box.image("odd"), "true")
