"""Ending what still runs of a container whose monitor has gone, also by a state file that was torn or edited.

What is killed must be the container's: a cgroup bears its id, which is random, and init has its pid and start time.
"""

from __future__ import annotations

import os

from hutch.engine.containers import CONFIG
from hutch.errors import ContainerNotFound, HutchError, Internal
from hutch.runtime import documents, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_LIMIT = 16 << 20


def end(engine: Engine, directory: ContainerDirectory) -> None:
    """Kill what runs of a container, and take the runtime's part of it away.

    Args:
        engine: where.
        directory: locked.

    Raises:
        Unavailable: a process did not die.
    """
    from hutch.runtime.container import Container, remove_remains

    container_id = directory.record.id
    try:
        os.unlink(f"{engine.state}/monitors/{container_id}")  # nobody listens there: the lock is ours
    except FileNotFoundError:
        pass
    try:
        container = Container.load(engine.runtime_state, container_id)
    except ContainerNotFound:
        return
    except Internal:
        container = None
    if container is not None:
        with container:
            places = container.record.cgroup_paths.values()
            if all(os.path.basename(place) == container_id for place in places):
                try:
                    container.delete(force=True)
                    return
                except Internal:
                    pass  # its config.json is torn, which is needed for the hooks alone
    _end_by_name(engine, directory)
    remove_remains(engine.runtime_state, container_id)


def _end_by_name(engine: Engine, directory: ContainerDirectory) -> None:
    """Do without the runtime's record: kill init, and what is in the cgroup that config.json names."""
    from hutch.runtime.cgroups.manager import manager_for

    signal_init(directory, signals.SIGKILL)
    container_id = directory.record.id
    try:
        spec = documents.read_object(CONFIG, _LIMIT, dir_fd=directory.fd)
        path = str(spec["linux"]["cgroupsPath"])
    except (OSError, HutchError, KeyError, TypeError):
        return  # this is damaged, too: there is no way to know more
    if os.path.basename(path) == container_id:
        manager = manager_for(path, container_id, rootless=engine.facts.rootless)
        manager.kill(signals.SIGKILL)
        manager.destroy()


def signal_init(directory: ContainerDirectory, signal: int) -> bool:
    """Send a container's init a signal without its monitor.

    Returns:
        False if it has ended; whoever has its pid now is left alone.
    """
    from hutch.engine.joining import is_alive
    from hutch.linux.process import pidfd_open, pidfd_send_signal

    record = directory.record
    if record.pid <= 0:
        return False
    try:
        pidfd = pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(record.pid, record.start_time, record.boot_id):  # the pidfd holds whoever this is about
            return False
        pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
