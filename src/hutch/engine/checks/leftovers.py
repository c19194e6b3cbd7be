"""What belongs to no container any more: files, ranges of ids, cgroups, sockets, the runtime's records."""

from __future__ import annotations

import os
import stat
import time

from hutch.engine.checks.finding import Finding, set_aside
from hutch.errors import ContainerNotFound, HutchError
from hutch.linux import seqpacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hutch.engine.engine import Engine

_PARENT = "hutch"
_QUIET_S = 60.0
"""A cgroup without processes may be of a container that is just being made, by another engine; but not for so long."""
_ID_DIGITS = 64
_HEX = frozenset("0123456789abcdef")


def check_leftovers(engine: Engine) -> Iterator[Finding]:
    """All of them; nothing of what is found is needed, but snapshots may hold what somebody wrote."""
    known = _known(engine)
    yield from _sockets(engine)
    yield from _runtime(engine)
    yield from _ids(engine)
    yield from _snapshots(engine, known)
    if os.geteuid() == 0:
        yield from _cgroups(engine, known)


def _known(engine: Engine) -> set[str]:
    """Containers that there are or may be: a directory without a row may get one back."""
    found = {row[0] for row in engine.database.read("SELECT id FROM containers")}
    folder = f"{engine.root}/containers"
    return found | set(os.listdir(folder)) if os.path.isdir(folder) else found


def _running(engine: Engine) -> set[str]:
    return {row[0] for row in engine.database.read("SELECT id FROM containers WHERE active")}


def _is_held(engine: Engine, container_id: str) -> bool:
    """Whether somebody is responsible for a container just now: its maker, its monitor, its remover."""
    try:
        with engine.containers.find(container_id) as directory:
            return directory.record.id == container_id and not directory.lock(wait=False)
    except (HutchError, OSError):
        return False


def _sockets(engine: Engine) -> Iterator[Finding]:
    folder = f"{engine.state}/monitors"
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if _is_deaf(folder, name) and not _is_held(engine, name):
            yield Finding(f"socket {path}: nobody listens", _unlinked(path), leftover=True)


def _is_deaf(folder: str, name: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(f"{folder}/{name}").st_mode):
            return True
        dir_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        seqpacket.connect(dir_fd, name).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # it went meanwhile, or is busy
    finally:
        os.close(dir_fd)
    return False


def _unlinked(path: str) -> Callable[[], str]:
    def mend() -> str:
        os.unlink(path)
        return "removed it"

    return mend


def _runtime(engine: Engine) -> Iterator[Finding]:
    folder = engine.runtime_state
    if not os.path.isdir(folder):
        return
    active = _running(engine)
    for name in sorted(os.listdir(folder)):
        if name not in active and not _is_held(engine, name):
            yield Finding(
                f"runtime {folder}/{name}: of a container that does not run", _ended(engine, name), leftover=True
            )


def _ended(engine: Engine, container_id: str) -> Callable[[], str]:
    def mend() -> str:
        try:
            with engine.containers.find(container_id) as directory:
                if not directory.lock(wait=False):
                    return "left it: the container is being started"
                return _deleted(engine, container_id)
        except ContainerNotFound:
            return _deleted(engine, container_id)

    return mend


def _deleted(engine: Engine, container_id: str) -> str:
    from hutch.runtime.container import Container, remove_remains

    try:
        with Container.load(engine.runtime_state, container_id) as container:
            container.delete(force=True)
    except HutchError:
        remove_remains(engine.runtime_state, container_id)
    return "ended what was left of it, and removed it"


def _ids(engine: Engine) -> Iterator[Finding]:
    folder = f"{engine.root}/ids"
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        try:
            owner = os.readlink(path)
        except OSError:
            continue
        if not os.path.lexists(f"{engine.root}/containers/{owner}"):
            yield Finding(f"id range {name}: of container {owner[:12]}, which is gone", _unlinked(path), leftover=True)


def _snapshots(engine: Engine, known: set[str]) -> Iterator[Finding]:
    for key in engine.snapshots.snapshots():
        if key[:_ID_DIGITS] not in known and not _is_held(engine, key[:_ID_DIGITS]):
            yield Finding(f"snapshot {key[:12]}: of no container", _snapshot_aside(engine, key), leftover=True)


def _snapshot_aside(engine: Engine, key: str) -> Callable[[], str]:
    def mend() -> str:
        path = f"{engine.root}/snapshots/{key}"
        if not os.path.isdir(path) or not _has_files(f"{path}/upper"):
            engine.snapshots.remove(key)
            return "removed it; nothing was written to it"
        return f"moved it to {set_aside(engine.root, path)}"

    return mend


def _has_files(path: str) -> bool:
    """Whether there is anything but directories below; what cannot be looked at counts."""
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        return True
                    pending.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False


def _cgroups(engine: Engine, known: set[str]) -> Iterator[Finding]:
    """Of containers that are gone or do not run. Other engines' containers are told by their processes."""
    for top in sorted(set(_hierarchies())):
        folder = f"{top}/{_PARENT}"
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = f"{folder}/{name}"
            if len(name) != _ID_DIGITS or not _HEX.issuperset(name) or _is_held(engine, name):
                continue
            if _is_empty(path) and (name in known or _age_s(path) > _QUIET_S):
                yield Finding(f"cgroup {path}: nothing runs in it", _without_cgroup(path), leftover=True)


def _hierarchies() -> list[str]:
    from hutch.linux.mountinfo import mountinfo

    return [mount.mount_point for mount in mountinfo() if mount.fstype in ("cgroup", "cgroup2") and mount.root == "/"]


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_ctime
    except FileNotFoundError:
        return 0.0


def _is_empty(path: str) -> bool:
    for folder, _, _ in os.walk(path):
        try:
            with open(f"{folder}/cgroup.procs", "rb") as file:
                if file.read(1):
                    return False
        except OSError:
            return False
    return True


def _without_cgroup(path: str) -> Callable[[], str]:
    def mend() -> str:
        for folder, _, _ in os.walk(path, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
        return "removed it"

    return mend
