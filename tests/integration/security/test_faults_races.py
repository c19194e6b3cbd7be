"""Rows X15 to X19: many at once, on one name and on many, and clients who leave in the middle."""

from __future__ import annotations

import concurrent.futures
import os
import random
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.integration.security.lab import Lab, monitors, parent
from tests.support import faults
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox")

CHURN = int(os.environ.get("HUTCH_FAULTS_CHURN", "12"))
"""How many containers come and go; 200 is a soak of some minutes."""
AT_ONCE = 16 if CHURN > 100 else 4


def test_x15_containers_come_and_go(lab: Lab) -> None:
    times: dict[str, list[float]] = {}
    server = faults.server(lab.box.roots.state)
    resident = _resident(server)

    def timed(verb: str, *words: str) -> None:
        begin = time.monotonic()
        lab.cli(verb, *words)
        times.setdefault(verb, []).append(time.monotonic() - begin)

    def life(number: int) -> None:
        name = f"x{number}"
        timed("create", "--name", name, "-v", "/anonymous", *lab.flags, lab.image, "sleep", "1000")
        timed("start", name)
        timed("exec", name, "true")
        timed("stop", "-t", "0", name)
        timed("rm", "-v", name)

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(life, range(CHURN)))
    took = time.monotonic() - begin
    lab.removed()
    assert _resident(faults.server(lab.box.roots.state)) - resident < 4 << 20
    print(f"{CHURN} containers, {AT_ONCE} at once, in {took:.1f} s")
    for verb, seconds in times.items():
        ordered = sorted(seconds)
        slow = ordered[int(len(ordered) * 0.99)]
        print(f"{verb}: p50 {statistics.median(ordered) * 1e3:.0f} ms, p99 {slow * 1e3:.0f} ms")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def together(lab: Lab, lines: list[list[str]]) -> list[tuple[int, str]]:
    """Run command lines at the same time; status and standard error of each."""
    running = [
        subprocess.Popen([*lab.cli.words, *line], env=lab.cli.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for line in lines
    ]
    ended = [(process.communicate(timeout=120)[1].decode(), process.returncode) for process in running]
    for text, _ in ended:
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        assert "damaged" not in text, text
    return [(status, text) for text, status in ended]


def test_x16_fifty_at_once_want_one_name(lab: Lab) -> None:
    made = together(lab, [["create", "--name", "x", *lab.flags, lab.image, "sleep", "1000"]] * 50)
    assert sorted(status for status, _ in made) == [0] + [1] * 49
    assert all("is already in use" in text for status, text in made if status)
    started = together(lab, [["start", "x"]] * 10 + [["ps", "-a"]] * 5)
    assert {status for status, _ in started} == {0}
    assert len(monitors(lab)) == 1
    ended = together(lab, [["rm", "-f", "x"]] * 10 + [["stop", "-t", "0", "x"]] * 5 + [["inspect", "x"]] * 3)
    assert {status for status, _ in ended[:10]} == {0}, ended
    odd = [text for status, text in ended if status and "no such" not in text.lower()]
    assert odd == []
    lab.removed()


SENSIBLE = (
    "no such container", "no such object", "stopped container", "is not running",
    "is already in use", "marked for removal",
    "has just ended", "is paused", "already paused", "is not paused", "cannot remove container", "monitor has gone",
    "already running", "not running",
)  # fmt: skip
VERBS = [
    ["stop", "-t", "0"], ["kill"], ["rm", "-f"], ["rm"], ["exec"], ["pause"], ["unpause"], ["restart", "-t", "0"],
    ["start"], ["inspect"], ["logs"], ["rename"], ["wait"],
]  # fmt: skip


@pytest.mark.parametrize("seed", range(int(os.environ.get("HUTCH_FAULTS_SEEDS", "2"))))
def test_x17_anything_against_anything(lab: Lab, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(3):
        flags = dice.choice([["--rm"], [], ["--restart", "always"]])
        lab.cli("run", "-d", "--name", "x", *flags, *lab.flags, lab.image, "sleep", dice.choice(["0.3", "1000"]))
        lines = []
        for verb in dice.sample(VERBS, 9):
            end = {"exec": ["x", "true"], "rename": ["x", "y"]}.get(verb[0], ["x"])
            lines.append([*verb, *end])
        if ["wait", "x"] in lines and ["rm", "-f", "x"] not in lines:
            lines.append(["rm", "-f", "x", "y"])
        for (status, text), line in zip(together(lab, lines), lines, strict=True):
            assert status in (0, 137, 255) or any(words in text.lower() for words in SENSIBLE), (line, status, text)
        lab.removed()


def test_x17_the_exit_status_is_kept_whoever_removes(lab: Lab) -> None:
    """`run --rm` against rm -f, stop and kill from elsewhere: it ends with the container's status, always."""
    for number, verb in enumerate([["rm", "-f"], ["stop", "-t", "5"], ["kill", "-s", "TERM"], ["rm", "-f"]] * 2):
        words = ["run", "--rm", "--name", "x", *lab.flags, lab.image]
        command = ["sh", "-c", "trap 'exit 9' TERM; touch /up; while :; do sleep 0.02; done"]
        with subprocess.Popen([*lab.cli.words, *words, *command], env=lab.cli.env) as running:
            wait_until(lambda: lab.cli("exec", "x", "stat", "/up", check=False).returncode == 0, 10)
            time.sleep(0.01 * number)
            lab.cli(*verb, "x")
            assert running.wait(10) == (137 if verb[0] == "rm" else 9)
        lab.removed()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_x19_a_client_that_vanishes_holds_nothing(lab: Lab) -> None:
    lab.start("-i", command=("sh", "-c", "while :; do echo line; sleep 0.01; done"))
    monitor = parent(lab.record("x").pid)
    before, processes = descriptors(monitor), len(monitors(lab))
    script = "while :; do echo out; sleep 0.01; done"
    lines = [
        ["attach", "x"], ["exec", "-i", "x", "sh", "-c", script], ["logs", "-f", "x"], ["cp", "x:/proc", "-"],
        ["events"], ["wait", "x"], ["stats", "x"],
    ]  # fmt: skip
    for line in lines:
        with subprocess.Popen(
            [*lab.cli.words, *line], env=lab.cli.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as vanishing:  # fmt: skip
            time.sleep(0.3)
            vanishing.kill()
            vanishing.wait()
            if line[0] != "exec":  # which goes on without its client, as docker's does
                wait_until(lambda: descriptors(monitor) <= before, 1)
    wait_until(lambda: len(monitors(lab)) <= processes + 1, 5)
    assert lab.cli("exec", "x", "true").returncode == 0
    lab.removed()


def test_x19_a_restart_whose_client_vanishes_is_made_all_the_same(lab: Lab) -> None:
    lab.start(command=("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"))
    before = lab.record("x").pid
    with subprocess.Popen([*lab.cli.words, "restart", "-t", "1", "x"], env=lab.cli.env) as restarting:
        time.sleep(0.5)
        restarting.kill()
    wait_until(lambda: lab.record("x").pid not in (0, before), 10)
    assert lab.status().startswith("Up ")
    lab.removed()


def test_restart_in_the_middle_of_a_backoff(lab: Lab, tmp_path: Path) -> None:
    command = ("sh", "-c", "stat /host/go || exit 1; exec sleep 1000")
    lab.create("--restart", "always", "-v", f"{tmp_path}:/host", command=command)
    lab.cli("start", "x")
    wait_until(lambda: lab.record("x").restart_count >= 4, 20)
    wait_until(lambda: lab.status().startswith("Restarting"), 10)
    tmp_path.chmod(0o755)
    (tmp_path / "go").touch()
    lab.cli("restart", "x")
    assert lab.status().startswith("Up ")
    lab.removed()


def test_h05_attaching_and_leaving_costs_nothing(lab: Lab) -> None:
    times = int(os.environ.get("HUTCH_FAULTS_ATTACH", "500"))
    from hutch.engine import lifecycle

    lab.start(command=("sh", "-c", "while :; do echo 0123456789; sleep 0.01; done"))
    engine, identifier = lab.engine, lab.record("x").id
    monitor = parent(lab.record("x").pid)

    def attach(count: int) -> None:
        for _ in range(count):
            channel = lifecycle.connect(engine, identifier, {"op": "attach", "stdout": True, "stderr": True})
            assert channel is not None
            channel.close()

    attach(200)
    before, resident = descriptors(monitor), _resident(monitor)
    workers = [threading.Thread(target=attach, args=(times // 4,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wait_until(lambda: descriptors(monitor) <= before, 5)
    assert _resident(monitor) - resident < 1 << 20
    assert len(os.listdir(f"/proc/{monitor}/task")) == 1
    lab.removed()
