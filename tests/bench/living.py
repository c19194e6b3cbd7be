"""Containers that live: exec, what an idle one costs, many of them, snapshots."""

from __future__ import annotations

import os
import time

from tests.bench.measure import Contender, Row, Timing, once
from tests.bench.rows import Bench
from tests.support import images
from tests.support.engines import end_engine
from tests.support.programs import run

_IDLE = 8
MANY = int(os.environ.get("HUTCH_BENCH_CONTAINERS", "1000"))
_PROGRAM = """
import sys, time, hutch
image, root, state, rounds = sys.argv[1:]
def timed(name, action):
    start = time.perf_counter(); found = action(); print(name, time.perf_counter() - start); return found
with hutch.Engine(root=root, state=state) as engine:
    with engine.containers.run(image, ["sleep", "1000"], detach=True, network_mode="none") as container:
        container.put("/file", bytes(1 << 20))
        for _ in range(int(rounds)):
            timed("run", lambda: engine.containers.run(image, "true", remove=True, network_mode="none"))
            timed("exec", lambda: container.exec(["true"]))
            snapshot = timed("snapshot", container.snapshot)
            timed("reset", lambda: container.reset(snapshot))
"""


def _image(bench: Bench, name: str) -> str:
    reference = images.busybox().push(bench.registry, "bench/busybox:1")
    run(bench.hutch(name, "pull", "--quiet", reference))
    return reference


def end_engines(bench: Bench) -> None:
    """Kill what the rows have left running."""
    for name in os.listdir(bench.directory):
        end_engine(f"{bench.directory}/{name}/state")
    if bench.podman is not None:
        bench.podman("rm", "--force", "--all", "--time", "0")
    if bench.docker is not None and (names := bench.docker("ps", "-aq").stdout.split()):
        bench.docker("rm", "-f", *names)


def execute(bench: Bench, rounds: int) -> Row:
    """`exec CONTAINER true` in a container that sleeps."""
    reference = _image(bench, "exec")
    start = ["run", "-d", "--network", "none", "--name", "sleeper", reference, "sleep", "10000"]
    run(bench.hutch("exec", *start))
    contenders = [Contender("hutch", [bench.hutch("exec", "exec", "sleeper", "true")])]
    if bench.docker is not None:
        bench.docker("pull", "--quiet", reference)
        bench.docker(*start)
        contenders.append(Contender("docker", [["docker", "exec", "sleeper", "true"]], env=bench.docker.env))
    if bench.podman is not None:
        bench.podman("pull", "--quiet", "--tls-verify=false", reference)
        run(bench.podman.run_command("-d", "--network", "none", "--name", "sleeper", reference, "sleep", "10000"))
        contenders.append(Contender("podman", [bench.podman.command("exec", "sleeper", "true")]))
    return Row("exec CONTAINER true", contenders, rounds)


def memory(bench: Bench, _rounds: int) -> list[tuple[str, list[Timing]]]:
    """Private memory that the process beside an idle container holds, in MB."""
    reference = _image(bench, "memory")
    ask = ["run", "-d", "--network", "none"]
    before = _pids()
    for _ in range(_IDLE):
        run(bench.hutch("memory", *ask, reference, "sleep", "10000"))
    time.sleep(1)
    monitors = sorted(pid for pid in _pids() - before if b"forkserver" in _file(pid, "cmdline"))
    found = [Timing("hutch", [_private_mb(pid) for pid in monitors[1:]], unit="MB")]  # the first is the server
    if bench.podman is not None:
        bench.podman("pull", "--quiet", "--tls-verify=false", reference)
        before = _pids()
        run(bench.podman.run_command("-d", "--network", "none", reference, "sleep", "10000"))
        found.append(_timing("conmon", before))
    if bench.docker is not None:
        bench.docker("pull", "--quiet", reference)
        before = _pids()
        bench.docker(*ask, reference, "sleep", "10000")
        found.append(_timing("containerd-shim", before))
    end_engine(f"{bench.directory}/hutch-memory/state")
    return [("private memory beside an idle container", found)]


def _timing(name: str, before: set[int]) -> Timing:
    time.sleep(1)
    values = [_private_mb(pid) for pid in _pids() - before if _file(pid, "comm").strip().startswith(name[:15].encode())]
    return Timing(name, values, "" if values else f"no {name} was seen", "MB")


def ps(bench: Bench, rounds: int) -> list[tuple[str, list[Timing]]]:
    """`ps` with 100 and with many containers that exist, against `ps` with one."""
    reference = _image(bench, "ps")
    create = bench.hutch("ps", "create", "--network", "none", reference, "true")
    show = Contender("hutch", [bench.hutch("ps", "ps", "-a", "-q")])
    by_count: dict[int, Timing] = {}
    there = 0
    for count in (1, 100, MANY):
        for _ in range(count - there):
            run(create)
        there = count
        by_count[count] = Timing(f"with {count}", [once(show)[0] for _ in range(rounds)])
    return [(f"ps -a with {count} containers", [by_count[count], by_count[1]]) for count in (100, MANY)]


def thousand(bench: Bench, _rounds: int) -> list[tuple[str, list[Timing]]]:
    """Many containers started one after the other, listed and removed: the last ones against the first."""
    reference = _image(bench, "many")
    start = Contender("hutch", [bench.hutch("many", "run", "-d", "--network", "none", reference, "sleep", "10000")])
    free = _available_mb()
    seconds = [once(start)[0] for _ in range(MANY)]
    each = (free - _available_mb()) / MANY
    listed = once(Contender("hutch", [bench.hutch("many", "ps", "-q")]))[0]
    names = run(bench.hutch("many", "ps", "-q")).stdout.split()
    removed = once(Contender("hutch", [bench.hutch("many", "rm", "-f", *names)]))[0]
    edge = max(1, MANY // 20)
    return [
        (f"start of one more, with {MANY} running", [Timing("last", seconds[-edge:]), Timing("first", seconds[:edge])]),
        (f"ps with {MANY} running", [Timing("hutch", [listed])]),
        (f"rm -f of {len(names)}, a container", [Timing("hutch", [removed / max(1, len(names))])]),
        ("memory of the machine a running container", [Timing("hutch", [each], unit="MB")]),
    ]


def snapshots(bench: Bench, rounds: int) -> list[tuple[str, list[Timing]]]:
    """What `import hutch` takes in a program that runs already."""
    reference = _image(bench, "library")
    base = f"{bench.directory}/hutch-library"
    argv = [bench.installed.python, "-c", _PROGRAM, reference, f"{base}/data", f"{base}/state", str(rounds)]
    values: dict[str, list[float]] = {}
    for line in run(argv).stdout.splitlines():
        name, text = line.split()
        values.setdefault(name, []).append(float(text))
    return [(f"import hutch: {name}", [Timing("hutch", found)]) for name, found in values.items()]


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _file(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _private_mb(pid: int) -> float:
    lines = _file(pid, "smaps_rollup").decode().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _available_mb() -> float:
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("MemAvailable"))
