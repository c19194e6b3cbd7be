"""A cgroup for one test, in every hierarchy, below one for the session; both removed at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from tests.support.host import cgroup_mounts, is_cgroup2, read
from tests.support.leaks import OWN

_numbers = itertools.count(1)


@contextlib.contextmanager
def parent(*, sweep: bool = False) -> Iterator[str]:
    """Make /hutch-tests-PID/N wherever cgroups are mounted; yields that path.

    On v2 the controllers of the root are handed down; on v1 the cpuset of the parent is copied, without which no
    process can enter. At the end the directories must be removable: what a test leaves inside is named by the leak
    check, and removed here only if it is empty; with `sweep`, empty ones below are nobody's fault (other engines
    leave them).
    """
    name = f"{OWN}/{next(_numbers)}"
    tops = _tops()
    for top in tops:
        for path in (f"{top}/{OWN}", f"{top}/{name}"):
            os.makedirs(path, exist_ok=True)
            _enable(path)
    try:
        yield f"/{name}"
    finally:
        left = [path for top in tops for path in _remove(f"{top}/{name}", sweep=sweep)]
        for top in tops:
            with contextlib.suppress(OSError):  # other tests of this session may still use it
                os.rmdir(f"{top}/{OWN}")
        if left:
            raise AssertionError(f"left in the test's cgroups: {', '.join(left)}")


def _tops() -> list[str]:
    """Each hierarchy once: on hybrid hosts cpu and cpuacct may be one directory with two names."""
    seen, tops = set(), []
    for top, _, _ in cgroup_mounts():
        identity = (os.stat(top).st_dev, os.stat(top).st_ino)
        if identity not in seen:
            seen.add(identity)
            tops.append(top)
    return tops


def _enable(path: str) -> None:
    above = os.path.dirname(path)
    if is_cgroup2():
        names = read(f"{above}/cgroup.controllers").split()
        with open(f"{above}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(" ".join(f"+{name}" for name in names))
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{path}/{name}") and not read(f"{path}/{name}").strip():
            with open(f"{path}/{name}", "w", encoding="ascii") as file:
                file.write(read(f"{above}/{name}"))


def _remove(path: str, *, sweep: bool) -> list[str]:
    """Remove the cgroup and the empty ones below; name those that were found below, or that hold processes."""
    left = []
    for below, names, _ in os.walk(path, topdown=False):
        del names
        if below != path and not sweep:
            left.append(below)
        try:
            os.rmdir(below)
        except OSError as error:
            pids = read(f"{below}/cgroup.procs").split()
            left.append(f"{below} ({error.strerror}; processes {pids})")
    return left
