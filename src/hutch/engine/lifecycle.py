"""What is done to containers from outside: their true status, start, stop, removal, and clearing up after deaths.

A container that lives has a monitor, which holds its lock and is asked for whatever concerns its processes; the rest is
done here, by whoever wants it, under that same lock.
"""

from __future__ import annotations

import errno
import os
import select
import time

from hutch.engine import events
from hutch.engine.monitor import protocol
from hutch.errors import Conflict, ContainerNotFound, HutchError, InvalidState, NotFound, Unavailable
from hutch.linux import seqpacket
from hutch.runtime import signals
from hutch.runtime.state import boot_id, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.engine.containers import ContainerDirectory, ContainerRecord
    from hutch.engine.engine import Engine
    from hutch.linux.seqpacket import Channel

DEFAULT_STOP_TIMEOUT_S = 10
_KILL_WAIT_S = 10.0
_ANSWER_WAIT_S = 60.0
_BUSY_WAIT_S = 10.0
_UNKNOWN = 137

# --- the truth -------------------------------------------------------------------------------------------------


def status_of(engine: Engine, directory: ContainerDirectory) -> str:
    """The status of a container as it is; what a killed monitor left of it is put right first.

    Returns:
        created, running, paused, restarting, removing, exited, creating; dead if its record is damaged.

    Raises:
        ContainerNotFound: it has just been removed, or is removed now since it never ran or was to be (--rm).
    """
    record = directory.record
    if record.status in ("created", "exited", "dead"):
        return record.status
    if not directory.lock(wait=False):
        return "paused" if record.status == "running" and is_paused(record) else record.status
    try:
        directory.refresh()
        if directory.record.status not in ("created", "exited", "dead"):
            _bury(engine, directory)
        return directory.record.status
    finally:
        if not directory.removed():
            directory.unlock()


def is_paused(record: ContainerRecord) -> bool:
    """Whether a running container's cgroup is frozen, as the kernel has it."""
    if not record.freezer:
        return False
    try:
        with open(record.freezer, "rb", buffering=0) as file:
            return file.read(64).strip() in (b"1", b"FROZEN", b"FREEZING")
    except OSError:
        return False


def sweep(engine: Engine) -> list[str]:
    """Put right, or remove, whatever killed processes left behind.

    Returns:
        What could not be, and why, for the user; it will be tried again.
    """
    problems = []
    abandoned = engine.containers.abandoned()
    for directory in abandoned:
        with directory:
            try:
                if directory.record.status not in ("created", "exited", "dead"):
                    _bury(engine, directory)
            except ContainerNotFound:
                continue
            except (HutchError, OSError) as error:
                name = directory.record.name
                problems.append(f"container {name}, whose monitor was killed, cannot be cleaned up: {error}")
    if abandoned:
        engine.volumes.sweep()  # whoever was killed may have been in the middle of deleting
    return problems


def _bury(engine: Engine, directory: ContainerDirectory) -> None:
    """End what a killed process left of a run, and record that nobody saw how it ended. The lock is ours.

    Raises:
        ContainerNotFound: nobody wants to know that, so it is removed.
    """
    record = directory.record
    if record.auto_remove or not record.started or record.status == "removing":
        remove_parts(engine, directory, volumes=record.auto_remove or not record.started)
        raise ContainerNotFound(f"no such container: {record.name}")
    _end(engine, directory)
    lost = "the machine was restarted" if record.boot_id not in ("", boot_id()) else "its monitor was killed"
    record.status, record.finished, record.exit_code = "exited", now(), _UNKNOWN
    record.error = f"{lost} before the container ended, so its exit status is not known"
    record.pid = record.start_time = 0
    directory.save()
    _publish(engine, record, "die", exitCode=str(_UNKNOWN))


def _publish(engine: Engine, record: ContainerRecord, action: str, **attributes: str) -> None:
    """Enter an event of what has been done; on a full disk that is lost, rather than that the command fails."""
    try:
        events.publish(engine.database, record, action, **attributes)
    except OSError:
        return


def _end(engine: Engine, directory: ContainerDirectory) -> None:
    from hutch.engine.ending import end

    end(engine, directory)


# --- talking to monitors ---------------------------------------------------------------------------------------


def start(engine: Engine, directory: ContainerDirectory, request: dict[str, Any]) -> Channel | None:
    """Have a container started by a monitor of its own, which takes over the lock.

    Args:
        engine: where.
        directory: not running; locked by the caller, or free. It is closed.
        request: ``attach``, ``explain``, ``lifeline``, ``size``: see `hutch.engine.monitor.monitor`.

    Returns:
        The connection to its monitor; STARTED or FAILED is what comes next. None if it runs already.

    Raises:
        InvalidState: it is being removed, or is damaged.
    """
    from hutch.engine.forkserver import client

    with directory:
        if not _take(directory):
            return None
        directory.refresh()
        record = directory.record
        if record.status in ("removing", "dead"):
            raise InvalidState(
                f"container {record.name} is marked for removal and cannot be started",
                have=record.status,
                want="created",
            )
        if record.status in ("running", "restarting"):
            _bury(engine, directory)
        document = {**request, "op": "start", "id": record.id}
        return client.ask(engine.root, engine.state, document, [directory.fd])


def _take(directory: ContainerDirectory) -> bool:
    """Take the lock of a container that does not run; False if it does. Others than its monitor hold it for moments."""
    end = time.monotonic() + _BUSY_WAIT_S
    while not directory.lock(wait=False):
        directory.refresh()
        if directory.record.status in ("running", "restarting"):
            return False
        if time.monotonic() > end:
            raise Unavailable(f'container "{directory.record.name}": another command is at work on it')
        time.sleep(0.01)
    return True


def await_start(channel: Channel, told: Callable[[bytes, bytes], object] = lambda *_: None) -> dict[str, Any]:
    """Wait until the container runs, and say what its monitor says of that.

    Args:
        channel: of `start`.
        told: gets kind and content of every other message.

    Raises:
        HutchError: it could not be started.
        Unavailable: its monitor was killed.
    """
    return _await(channel, protocol.STARTED, told)


def await_end(channel: Channel) -> dict[str, Any]:
    """Wait until the container has ended, and say how.

    Raises:
        HutchError: its monitor reports one.
        Unavailable: its monitor was killed.
    """
    return _await(channel, protocol.ENDED, lambda *_: None)


def _await(channel: Channel, wanted: bytes, told: Callable[[bytes, bytes], object]) -> dict[str, Any]:
    while True:
        kind, content = protocol.receive(channel)
        if not kind:
            raise Unavailable("the container's monitor has gone")
        if kind == protocol.FAILED:
            raise protocol.as_error(content)
        if kind == wanted:
            return protocol.parse(content)
        told(kind, content)


def connect(engine: Engine, container_id: str, request: dict[str, Any]) -> Channel | None:
    """Ask the monitor of a container for something.

    Returns:
        The connection, the request accepted; None if it has no monitor, which is to say that it does not run.

    Raises:
        HutchError: the monitor refuses.
    """
    try:
        dir_fd = os.open(f"{engine.state}/monitors", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        channel = seqpacket.connect(dir_fd, container_id)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        os.close(dir_fd)
    try:
        channel.send(protocol.document(b"", request))
        _await_answer(channel, container_id)
        kind, content = protocol.receive(channel)
    except OSError as error:
        channel.close()
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
        return None
    if kind == protocol.ACCEPTED:
        return channel
    channel.close()
    if kind == protocol.FAILED:
        raise protocol.as_error(content)
    return None


def _await_answer(channel: Channel, container_id: str) -> None:
    """Wait for the first answer of a monitor, which never keeps anybody waiting, unless somebody has stopped it."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(int(_ANSWER_WAIT_S * 1000)):
        channel.close()
        raise Unavailable(
            f"container {container_id[:12]}: its monitor does not answer", hint="if it was killed, try again"
        )


def stop(engine: Engine, text: str, *, signal: int | None = None, timeout_s: int | None = None) -> None:
    """Ask a container's init to end, and kill it when it takes too long; one that does not run is left as it is.

    Args:
        engine: where.
        text: name, id or beginning of an id.
        signal: instead of the container's own stop signal.
        timeout_s: instead of its own, seconds; -1 waits for ever.

    Raises:
        ContainerNotFound: no such container.
    """
    with engine.containers.find(text) as directory:
        status_of(engine, directory)
        record = directory.record
        channel = connect(engine, record.id, {"op": "stop", "signal": signal, "timeout": timeout_s})
        if channel is None:
            if not _stop_init(directory, signal, timeout_s):
                return
        else:
            with channel:
                await_end(channel)
        _publish(engine, record, "stop")


def restart(engine: Engine, text: str, *, signal: int | None = None, timeout_s: int | None = None) -> None:
    """Stop a container and start it again; its monitor does both, so that it starts even if we are killed meanwhile.

    Raises:
        ContainerNotFound: no such container.
        HutchError: it could not be started again.
    """
    with engine.containers.find(text) as directory:
        status_of(engine, directory)
        record = directory.record
        channel = connect(engine, record.id, {"op": "restart", "signal": signal, "timeout": timeout_s})
        if channel is not None:
            with channel:
                await_end(channel)
            return
        _stop_init(directory, signal, timeout_s)
        channel = start(engine, directory, {})
        if channel is not None:
            with channel:
                await_start(channel)
        _publish(engine, record, "restart")


def start_detached(engine: Engine, text: str) -> None:
    """Start a container and let it run; one that runs already is left as it is.

    Raises:
        ContainerNotFound: no such container.
        HutchError: it could not be started.
    """
    directory = engine.containers.find(text)
    status_of(engine, directory)
    channel = start(engine, directory, {})
    if channel is not None:
        with channel:
            await_start(channel)


def wait(engine: Engine, text: str) -> int:
    """Wait until a container ends; its exit status.

    Raises:
        ContainerNotFound: no such container.
    """
    with engine.containers.find(text) as directory:
        status_of(engine, directory)
        record = directory.record
        channel = connect(engine, record.id, {"op": "attach"})
        if channel is None:
            directory.refresh()
            return max(0, directory.record.exit_code)
        with channel:
            return int(await_end(channel)["exit_code"])


def execute(engine: Engine, text: str, request: dict[str, Any]) -> Channel:
    """Start one more process in a running container.

    Args:
        engine: where.
        text: name, id or beginning of an id.
        request: see `hutch.engine.monitor.session.fork_session`.

    Returns:
        The connection to its session.

    Raises:
        ContainerNotFound: no such container.
        InvalidState: it does not run.
    """
    with engine.containers.find(text) as directory:
        status = status_of(engine, directory)
        record = directory.record
    if status == "paused":
        message = f"container {record.name} is paused, unpause the container before exec"
        raise InvalidState(message, have=status, want="running")
    channel = connect(engine, record.id, {**request, "op": "exec"}) if status == "running" else None
    if channel is None:
        raise InvalidState(f"container {record.id} is not running", have=status, want="running")
    return channel


def pause(engine: Engine, text: str) -> None:
    """Freeze every process of a container.

    Raises:
        ContainerNotFound: no such container.
        InvalidState: it does not run, or is paused.
    """
    _freeze(engine, text, wanted=True)


def unpause(engine: Engine, text: str) -> None:
    """Let a paused container go on.

    Raises:
        ContainerNotFound: no such container.
        InvalidState: it is not paused.
    """
    _freeze(engine, text, wanted=False)


def _freeze(engine: Engine, text: str, *, wanted: bool) -> None:
    from hutch.engine.joining import is_alive
    from hutch.runtime.container import Container

    with engine.containers.find(text) as directory:
        status = status_of(engine, directory)
        record = directory.record
        if wanted and status == "paused":
            raise InvalidState(f"container {record.id} is already paused", have=status, want="running")
        if status != ("running" if wanted else "paused"):
            what = "running" if wanted else "paused"
            raise InvalidState(f"container {record.id} is not {what}", have=status, want=what)
        try:
            with Container.load(engine.runtime_state, record.id) as container:
                if wanted:
                    container.pause()
                else:
                    container.resume()
        except (HutchError, OSError):
            if is_alive(record.pid, record.start_time, record.boot_id):
                raise
            # It ended meanwhile, and its cgroup with it.
            raise InvalidState(f"container {record.id} is not running", have="exited", want="running") from None
        _publish(engine, record, "pause" if wanted else "unpause")


def kill(engine: Engine, text: str, signal: int = signals.SIGKILL) -> None:
    """Send a container's init a signal, and after SIGKILL wait until it has ended.

    Raises:
        ContainerNotFound: no such container.
        InvalidState: it does not run.
    """
    with engine.containers.find(text) as directory:
        status = status_of(engine, directory)
        record = directory.record
        channel = connect(engine, record.id, {"op": "kill", "signal": signal})
        if channel is None:
            if _signal_init(directory, signal):
                return
            raise InvalidState(
                f"cannot kill container: {text}: container {record.id} is not running", have=status, want="running"
            )
        with channel:
            await_end(channel)


def _signal_init(directory: ContainerDirectory, signal: int) -> bool:
    """Signal init itself, where the state directory and with it the monitor's socket was removed; False if it ended."""
    from hutch.engine.ending import signal_init

    directory.refresh()
    return directory.record.status == "running" and signal_init(directory, signal)


def _stop_init(directory: ContainerDirectory, signal: int | None, timeout_s: int | None) -> bool:
    """Do what a monitor does that is asked to stop its container; False if that does not run."""
    record = directory.record
    if not _signal_init(directory, signal or signals.number(record.stop_signal or "TERM")):
        return False
    if timeout_s is None:
        timeout_s = record.stop_timeout if record.stop_timeout >= 0 else DEFAULT_STOP_TIMEOUT_S
    if timeout_s < 0:
        directory.lock()
    elif not _locked_within(directory, timeout_s):
        _signal_init(directory, signals.SIGKILL)
        _locked_within(directory, _KILL_WAIT_S)
    directory.unlock()
    return True


def _locked_within(directory: ContainerDirectory, patience_s: float) -> bool:
    """Take the lock as soon as its holder gives it up; False if he does not."""
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + patience_s
    while not directory.lock(wait=False):
        if time.clock_gettime(time.CLOCK_BOOTTIME) > end:
            return False
        time.sleep(0.01)
    return True


def rename(engine: Engine, text: str, name: str) -> None:
    """Give a container another name.

    Raises:
        ContainerNotFound: no such container.
        InvalidArgument: not a name.
        AlreadyExists: the name is taken.
    """
    from hutch.engine.options import check_container_name

    check_container_name(name)
    with engine.containers.find(text) as directory:
        before = directory.record.name
        if name == before:
            raise Conflict("renaming a container with the same name as its current name")
        directory.record.name = name
        directory.save()
        _publish(engine, directory.record, "rename", oldName=before)


# --- removal ---------------------------------------------------------------------------------------------------


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
        status = status_of(engine, directory)
        if not directory.lock(wait=False):
            if not force:
                raise InvalidState(
                    f'cannot remove container "{directory.record.name}": container is {status}',
                    have=status,
                    want="exited",
                    hint="stop it first, or use --force",
                )
            if not _kill_and_wait(engine, directory):
                return text
        directory.refresh()
        remove_parts(engine, directory, volumes=volumes)
    return text


def _kill_and_wait(engine: Engine, directory: ContainerDirectory) -> bool:
    """Kill a running container and wait for its monitor to finish; False if that removed it."""
    for _ in range(int(_KILL_WAIT_S)):
        try:
            kill(engine, directory.record.id)
        except (ContainerNotFound, InvalidState):
            pass
        if _locked_within(directory, 1.0):
            break  # else somebody else may have started it again meanwhile
    else:
        raise Unavailable(f'container "{directory.record.name}": did not end within {_KILL_WAIT_S:.0f} seconds')
    try:
        directory.refresh()
    except ContainerNotFound:
        return False
    return True


def remove_parts(engine: Engine, directory: ContainerDirectory, *, volumes: bool) -> None:
    """Everything, in an order in which a second attempt finds what a first one left. The lock is the caller's."""
    record = directory.record
    lost = record.status == "dead"  # then what was made for it goes by its id
    if record.status != "removing" or (volumes and not record.auto_remove):
        record.status = "removing"
        record.auto_remove = record.auto_remove or volumes  # who goes on after us is to take the volumes, too
        try:
            directory.save(durable=False)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # What is removed now makes the room that forgetting the container takes.
    _end(engine, directory)
    snapshots = _of(record.id, engine.snapshots.snapshots()) if lost else record.snapshots
    for key in (record.id, *snapshots):
        engine.snapshots.remove(key)
    if volumes:
        remove_volumes(engine, record)
    unfinished = lost or not record.started  # perhaps its maker was killed between taking a range and noting it
    if record.first_id or unfinished:
        from hutch.engine import idranges

        for first in idranges.taken(engine.root) if unfinished else (record.first_id,):
            idranges.give_back(engine.root, first, record.id)
    engine.containers.remove(directory)
    _publish(engine, record, "destroy")


def _of(container_id: str, keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith(f"{container_id}-")]


def remove_volumes(engine: Engine, record: ContainerRecord) -> None:
    """Remove a container's anonymous volumes; one that is gone, or that another container took up, is left."""
    from hutch.engine.storage import remove_volume

    for name in record.volumes:
        try:
            remove_volume(engine, name, but=record.id)
        except (NotFound, Conflict):
            continue
