"""`python -m tests.bench [--rounds N] [--only WORD] [--out DIRECTORY]`: measure, print, write."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from tests.bench import report
from tests.bench.living import end_engines, execute, memory, ps, snapshots, thousand
from tests.bench.measure import Row, Timing, measure
from tests.bench.rows import Bench, private_docker, private_podman, pull, run_true, runtime
from tests.support import leaks, registries, session
from tests.support.files import private_directory, unmount_below
from tests.support.users import installation

ROWS: dict[str, Callable[[Bench, int], Row | list[tuple[str, list[Timing]]]]] = {
    "run": run_true,
    "exec": execute,
    "memory": memory,
    "ps": ps,
    "thousand": thousand,
    "snapshots": snapshots,
    "runtime": runtime,
    "pull": pull,
}
VERSIONS = {
    "docker": ["dockerd", "--version"],
    "podman": ["podman", "--version"],
    "runc": ["runc", "--version"],
    "crun": ["crun", "--version"],
    "skopeo": ["skopeo", "--version"],
    "umoci": ["umoci", "--version"],
}


def main() -> int:
    """Run the rows asked for; the exit status says only whether the measuring worked, not who won."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each program in a row (default 15)")
    parser.add_argument("--only", choices=ROWS, action="append", help="measure just this row; may be repeated")
    parser.add_argument("--out", default="bench-out", help="directory for bench.json, bench.svg and bench.txt")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: the peers' daemons need root", file=sys.stderr)
        return 1
    session.adopt_orphans()
    if session.enter_private_mounts():
        session.hide_hybrid_cgroup2()
    results: list[tuple[str, list[Timing]]] = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(private_directory("bench"))
        stack.callback(unmount_below, directory)  # podman mounts its storage on itself
        installed = stack.enter_context(installation())
        os.mkdir(f"{directory}/registry")
        registry = stack.enter_context(registries.plain(f"{directory}/registry"))
        docker = stack.enter_context(private_docker(f"{directory}/docker"))
        podman = stack.enter_context(private_podman(f"{directory}/podman"))
        bench = Bench(directory, installed, registry, docker, podman)
        stack.callback(end_engines, bench)
        for name, make in ROWS.items():
            if options.only and name not in options.only:
                continue
            rounds = max(3, options.rounds // 5) if name == "pull" else options.rounds
            made = make(bench, rounds)
            found = [(made.title, measure(made, _progress))] if isinstance(made, Row) else made
            results += found
            _progress("")
            print(report.table(found), flush=True)
    leaks.reap()
    report.write(results, _versions(), options.out)
    print(f"\n{options.out}/bench.json, bench.svg, bench.txt")
    return 0


def _progress(text: str) -> None:
    leaks.reap()  # what dockerd starts becomes ours
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _versions() -> dict[str, str]:
    found = {}
    for name, argv in VERSIONS.items():
        if shutil.which(argv[0]):
            found[name] = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return found


if __name__ == "__main__":
    sys.exit(main())
