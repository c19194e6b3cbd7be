"""LEAK0: what a test may not leave behind.

Mounts of this session, its processes (a session adopts its orphans), its temporary directories and the cgroups
below its own parent are always compared. What belongs to the whole machine (other cgroups, network interfaces,
the nft rule set, loop devices) is compared only while no other session of these tests runs beside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from tests.support import session
from tests.support.host import cgroup_mounts, read

Inventory = dict[str, frozenset[str]]

OWN = f"hutch-tests-{os.getpid()}"
_FOREIGN = ("hutch-tests-",)
_PATIENCE_S = 3.0
# Whoever lives below these from before the session (the machine's own services) comes and goes as he likes.
_RESIDENTS = frozenset(
    entry.name for top, _, _ in cgroup_mounts() for entry in os.scandir(top) if entry.is_dir() and entry.name != "hutch"
)


def inventory() -> Inventory:
    """What there is now, by kind, each thing as a readable line."""
    found = {"mounts": _mounts(), "cgroups of this session": _cgroups(own=True), "processes": _processes()}
    found["temporary directories"] = _temporary()
    if session.alone():
        found |= {
            "cgroups": _cgroups(own=False),
            "network interfaces": frozenset(os.listdir("/sys/class/net")),
            "nft rules": _nft(),
            "loop devices": _loops(),
        }
    return found


def difference(before: Inventory) -> str:
    """What appeared or vanished since `before`, as text; empty if nothing. Waits a moment for the kernel's cleaning."""
    deadline = time.monotonic() + _PATIENCE_S
    pause = 0.005
    while True:
        reap()
        text = _compare(before, inventory())
        if not text or time.monotonic() > deadline:
            return text
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def reap() -> None:
    """Collect adopted orphans that ended; the children that `subprocess` knows are left to it."""
    known = {process.pid for process in getattr(subprocess, "_active", None) or ()}
    for pid in _children():
        if pid not in known and _stat(pid)[:1] == ["Z"] and pid not in EXPECTED:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


EXPECTED: set[int] = set()
"""Daemons of the session (registries), started in the middle of it on purpose."""


def _compare(before: Inventory, after: Inventory) -> str:
    lines = []
    for kind in before.keys() & after.keys():
        lines += [f"  + {kind}: {line}" for line in sorted(after[kind] - before[kind])]
        lines += [f"  - {kind}: {line}" for line in sorted(before[kind] - after[kind]) if kind != "processes"]
    return "\n".join(lines)


def _mounts() -> frozenset[str]:
    lines = read("/proc/self/mountinfo").splitlines()
    return frozenset(_mount_line(line) for line in lines)


def _mount_line(line: str) -> str:
    left, _, right = line.partition(" - ")
    fields = left.split(" ")
    return f"{fields[4]} {fields[5]} {' '.join(fields[6:])} {right}"


def _cgroups(*, own: bool) -> frozenset[str]:
    found: set[str] = set()
    for top, _, _ in cgroup_mounts():
        for path, names, _ in os.walk(top):
            if path == top:
                mine = [name for name in names if (name == OWN) == own]
                names[:] = [name for name in mine if own or not (name.startswith(_FOREIGN) or name in _RESIDENTS)]
            found.update(f"{path}/{name}" for name in names)
    return frozenset(found)


def _children() -> list[int]:
    pids: list[int] = []
    for task in os.listdir("/proc/self/task"):
        pids += map(int, read(f"/proc/self/task/{task}/children").split())
    return pids


def _stat(pid: int) -> list[str]:
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def _processes() -> frozenset[str]:
    lines = set()
    for pid in _children():
        fields = _stat(pid)
        if pid in EXPECTED or not fields:
            continue
        command = read(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or read(f"/proc/{pid}/comm").strip()
        lines.add(f"{pid} ({fields[0]}) started at {fields[19]}: {command[:200]}")
    return frozenset(lines)


def _temporary() -> frozenset[str]:
    return frozenset(name for name in os.listdir("/var/tmp") if name.startswith(f"hutch-{os.getpid()}-"))


def _nft() -> frozenset[str]:
    if os.geteuid() != 0 or not (nft := shutil.which("nft")):
        return frozenset()
    out = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False).stdout
    return frozenset(out.splitlines())


def _loops() -> frozenset[str]:
    return frozenset(
        f"{name}: {file.strip()}"
        for name in os.listdir("/sys/block")
        if name.startswith("loop") and (file := read(f"/sys/block/{name}/loop/backing_file"))
    )
