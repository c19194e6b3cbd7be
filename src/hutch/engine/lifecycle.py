"""What happens to containers between and after runs: their true status, and their removal."""

from __future__ import annotations

import time

from hutch.errors import ContainerNotFound, HutchError, InvalidState, NotFound, Unavailable
from hutch.runtime import signals
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_KILL_WAIT_S = 10.0
_UNKNOWN = 137


def settle(engine: Engine, directory: ContainerDirectory) -> str:
    """The status of a container as it is: what a killed run left of it is put right.

    Returns:
        creating, running, paused or exited; dead if its record is damaged.

    Raises:
        ContainerNotFound: it has just been removed, or is removed now since it never ran or was to be (--rm).
    """
    if not directory.lock(wait=False):
        status = _runtime_status(engine, directory.record.id)
        # What has ended but is not recorded yet is still its runner's.
        return status if status in ("running", "paused") else directory.record.status
    directory.refresh()
    if directory.record.status not in ("exited", "dead"):
        _bury(engine, directory)
    return directory.record.status


def sweep(engine: Engine) -> list[str]:
    """Put right, or remove, whatever killed runs left behind.

    Returns:
        What could not be, and why, for the user; it will be tried again.
    """
    problems = []
    for directory in engine.containers.abandoned():
        with directory:
            try:
                _sweep(engine, directory)
            except (HutchError, OSError) as error:
                short_id = directory.record.id[:12]
                problems.append(f"container {short_id}, whose run was killed, cannot be removed: {error}")
    return problems


def _sweep(engine: Engine, directory: ContainerDirectory) -> None:
    try:
        settle(engine, directory)
        engine.containers.finished(directory.record.id)
    except ContainerNotFound:
        if not directory.removed():  # then it was killed before its first record
            _remove_parts(engine, directory, volumes=True)


def _runtime_status(engine: Engine, container_id: str) -> str:
    from hutch.runtime.container import Container

    try:
        with Container.load(engine.runtime_state, container_id) as container:
            status = container.status()
    except ContainerNotFound:
        return ""
    return {"stopped": "exited"}.get(status, status)


def _bury(engine: Engine, directory: ContainerDirectory) -> None:
    """End what a killed hutch left of a run, and record that nobody saw how it ended. The lock is ours.

    Raises:
        ContainerNotFound: nobody wants to know that, so it is removed.
    """
    record = directory.record
    if record.auto_remove or not record.started:
        _remove_parts(engine, directory, volumes=True)
        raise ContainerNotFound(f"no such container: {record.name}")
    _end(engine, record.id)
    record.status, record.finished, record.exit_code = "exited", now(), _UNKNOWN
    record.error = "hutch ended before the container did, so its exit status is not known"
    directory.save()
    engine.containers.finished(record.id)


def _end(engine: Engine, container_id: str) -> None:
    """Kill what runs of a container, and take the runtime's part of it away."""
    from hutch.runtime.container import Container

    try:
        with Container.load(engine.runtime_state, container_id) as container:
            container.delete(force=True)
    except ContainerNotFound:
        pass


def remove(engine: Engine, text: str, *, force: bool = False, volumes: bool = False) -> str:
    """Remove a container with all that was made for it.

    Args:
        engine: where.
        text: name, id or beginning of an id.
        force: kill it first if it runs.
        volumes: its anonymous volumes too.

    Returns:
        What it was called with.

    Raises:
        ContainerNotFound: no such container.
        InvalidState: it runs.
        Unavailable: it did not end in time.
    """
    with engine.containers.find(text) as directory:
        status = settle(engine, directory)
        if not directory.lock(wait=False):
            if not force:
                raise InvalidState(
                    f'cannot remove container "{directory.record.name}": container is {status}',
                    have=status,
                    want="exited",
                    hint="stop it first, or use --force",
                )
            if not _kill(engine, directory):
                return text
        _remove_parts(engine, directory, volumes=volumes)
    return text


def _kill(engine: Engine, directory: ContainerDirectory) -> bool:
    """Kill a running container and wait for its runner to finish; False if it removed the container itself."""
    from hutch.runtime.container import Container

    try:
        with Container.load(engine.runtime_state, directory.record.id) as container:
            container.kill(signals.SIGKILL)
    except (ContainerNotFound, InvalidState):
        pass
    # Its runner may remove it: then there is nothing left for us.
    end = time.monotonic() + _KILL_WAIT_S
    while not directory.lock(wait=False):
        if time.monotonic() > end:
            raise Unavailable(f'container "{directory.record.name}": did not end within {_KILL_WAIT_S:.0f} seconds')
        time.sleep(0.02)
    try:
        directory.refresh()
    except ContainerNotFound:
        return False
    return True


def _remove_parts(engine: Engine, directory: ContainerDirectory, *, volumes: bool) -> None:
    """Everything, in an order in which a second attempt finds what a first one left."""
    record = directory.record
    _end(engine, record.id)
    lost = record.status == "dead"  # then what was made for it goes by its id
    snapshots = _of(record.id, engine.snapshots.snapshots()) if lost else record.snapshots
    for key in (record.id, *snapshots):
        engine.snapshots.remove(key)
    if volumes or record.auto_remove:
        remove_volumes(engine, record.volumes)
    if record.first_id or lost:
        from hutch.engine import idranges

        for start in idranges.taken(engine.root) if lost else (record.first_id,):
            idranges.give_back(engine.root, start, record.id)
    engine.containers.remove(directory)


def _of(container_id: str, keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith(f"{container_id}-")]


def remove_volumes(engine: Engine, names: list[str]) -> None:
    """Remove a container's anonymous volumes; one that is gone already is what was wanted."""
    for name in names:
        try:
            engine.volumes.remove(name)
        except NotFound:
            continue
