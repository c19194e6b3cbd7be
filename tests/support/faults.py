"""Faults made with strace: a command killed, failed or delayed in its Nth call of some kind; and what is left then."""

from __future__ import annotations

import collections
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from tests.support.host import cgroup_mounts
from tests.support.programs import run

CHANGES = (
    "openat,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,symlink,symlinkat,link,linkat,"
    "write,pwrite64,ftruncate,truncate,fsync,fdatasync,fchmod,fchmodat,chmod,chown,fchown,lchown,fchownat,"
    "flock,sendmsg,sendto,recvmsg,connect,bind,listen,fork,vfork,clone,clone3,kill,pidfd_send_signal,exit_group"
)
"""The calls in which a command changes something that others see, or hears from them."""


def calls(words: Sequence[str], env: Mapping[str, str], names: str = CHANGES) -> dict[str, int]:
    """How often a command makes each of `names`, by running it to its end."""
    log = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace=?{names.replace(',', ',?')}", "-e", "signal=none"]
    done = run([*log, *words], env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"^(?:\[pid +\d+\] )?([a-z0-9_]+)\(", done.stderr, re.MULTILINE)
    return dict(collections.Counter(found))


def injected(
    words: Sequence[str], env: Mapping[str, str], call: str, what: str, when: int | str, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command with `what` (``signal=KILL``, ``error=EIO``, ``delay_enter=…``) in its `when`th `call`."""
    tracer = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{what}:when={when}",
    ]
    return run([*tracer, *words], env=env, timeout_s=timeout_s, check=False)


def left(root: str, state: str, cgroup: str, *, but: Sequence[str] = ()) -> dict[str, list[str]]:
    """What is there of containers, by place; names that begin with one of `but` do not count."""
    places = [f"{root}/{name}" for name in ("containers", "ids", "snapshots", "volumes", "tmp")]
    places += [f"{state}/runtime", f"{state}/monitors"]
    found = {place: _names(place, but) for place in places if os.path.isdir(place)}
    for top, _, _ in cgroup_mounts():
        found[f"{top}{cgroup}"] = _names(f"{top}{cgroup}", but, directories=True)
    return {place: names for place, names in found.items() if names}


def _names(place: str, but: Sequence[str], *, directories: bool = False) -> list[str]:
    if not os.path.isdir(place):
        return []
    entries = [entry.name for entry in os.scandir(place) if not directories or entry.is_dir(follow_symlinks=False)]
    if os.path.basename(place) == "ids":
        return sorted(name for name in entries if not os.readlink(f"{place}/{name}").startswith(tuple(but)))
    if os.path.basename(place) == "volumes":  # its lock and its index are no volumes
        entries = [name for name in entries if os.path.isdir(f"{place}/{name}")]
    return sorted(name for name in entries if not name.startswith(tuple(but)))


def processes(state: str) -> list[int]:
    """The fork server of an engine, and what it forked."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (OSError, ValueError):
            continue
        if os.fsencode(state) in words and any(b"forkserver" in word for word in words):
            found.append(int(name))
    return found


def server(state: str) -> int:
    """The fork server alone: what it forks leads a session of its own."""
    (found,) = (pid for pid in processes(state) if session(pid) not in (pid, 0))
    return found


def session(pid: int) -> int:
    """The session of a process, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
