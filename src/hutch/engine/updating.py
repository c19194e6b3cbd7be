"""`hutch update`: limits and the restart policy of a container that is there already, running or not."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from hutch.engine import events, lifecycle, limits
from hutch.engine.containers import CONFIG, write_atomically
from hutch.engine.options import RestartPolicy, RunOptions
from hutch.errors import Conflict, ContainerNotFound, InvalidArgument, InvalidState
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.spec.runtime import LinuxResources

_LIMIT = 16 << 20
_LOCK = "update.lock"
_SECTIONS = {
    "memory": ("memory", "memory_swap", "memory_reservation"),
    "cpu": ("nano_cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus", "cpuset_mems"),
    "pids": ("pids_limit",),
    "blockIO": ("blkio_weight",),
}
FIELDS = tuple(name for names in _SECTIONS.values() for name in names)


def update(engine: Engine, text: str, changes: dict[str, Any], restart: RestartPolicy | None = None) -> None:
    """Change what a container may take, and when it is started again.

    Args:
        engine: where.
        text: name, id or beginning of an id.
        changes: fields of `RunOptions` that are limits; the others stay.
        restart: the new policy, None for no change.

    Raises:
        ContainerNotFound: no such container.
        InvalidArgument: a limit that cannot be, alone or with those that stay.
        Conflict: a restart policy for a container that is removed when it ends.
        InvalidState: it is being removed.
        OSError: the kernel refuses a limit.
    """
    with engine.containers.find(text) as directory:
        status = lifecycle.status_of(engine, directory)
        record = directory.record
        if status in ("removing", "dead"):
            raise InvalidState(
                f"cannot update container {record.id}: container is marked for removal", have=status, want="created"
            )
        if restart is not None and restart.name != "no" and record.auto_remove:
            raise Conflict(
                f"cannot update container {record.id}: restart policy cannot be updated because AutoRemove is enabled "
                "for the container"
            )
        with _one_at_a_time(directory):
            directory.refresh()
            record = directory.record
            options = dict(record.options)
            if changes:
                options.update(changes)
                resources = _resources(engine, options, changes, _stored(directory))
                _apply(engine, directory, resources)
            if restart is not None:
                options["restart"] = restart.asdict()
                record.restart = {"Name": restart.name, "MaximumRetryCount": restart.retries}
            record.options = options
            directory.save()
        events.publish(engine.database, record, "update")


@contextmanager
def _one_at_a_time(directory: ContainerDirectory) -> Iterator[None]:
    """The container's own lock is its monitor's, who takes no part in this."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(_LOCK, flags, 0o600, dir_fd=directory.fd)
    except FileNotFoundError:
        raise ContainerNotFound(f"no such container: {directory.record.name}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _stored(directory: ContainerDirectory) -> dict[str, Any]:
    return documents.read_object(CONFIG, _LIMIT, dir_fd=directory.fd)


def _resources(
    engine: Engine, options: dict[str, Any], changes: dict[str, Any], config: dict[str, Any]
) -> LinuxResources:
    """The cgroup settings that change, checked together with those that stay."""
    before = (config.get("linux") or {}).get("resources") or {}
    merged = {name: options[name] for name in FIELDS if name in options}
    swap = (before.get("memory") or {}).get("swap", 0)
    if changes.get("memory") and not merged.get("memory_swap") and swap > 0:
        if changes["memory"] > swap:
            raise InvalidArgument(
                "memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same "
                "time"
            )
        merged["memory_swap"] = swap
    found: Any = limits.resources(RunOptions(**merged).checked(), engine.facts, [])
    resources: dict[str, Any] = {
        section: found[section]
        for section, names in _SECTIONS.items()
        if section in found and any(name in changes for name in names)
    }
    changed: LinuxResources = resources  # type: ignore[assignment]
    return changed


def _apply(engine: Engine, directory: ContainerDirectory, resources: LinuxResources) -> None:
    """Set them where it runs, and in config.json for when it is started again."""
    from hutch.runtime.container import Container

    try:
        with Container.load(engine.runtime_state, directory.record.id) as container:
            container.update(resources)
    except (ContainerNotFound, InvalidState):
        pass  # it does not run
    config = _stored(directory)
    stored = config.setdefault("linux", {}).setdefault("resources", {})
    for section, values in resources.items():
        stored[section] = {**(stored.get(section) or {}), **values}  # type: ignore[dict-item]
    write_atomically(directory.fd, CONFIG, documents.dump_bytes(config, "  "), durable=not directory.record.auto_remove)
