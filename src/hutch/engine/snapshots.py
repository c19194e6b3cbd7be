"""A container's own files at one moment: kept, put back, and given to a copy of the container.

    capture       snapshots/<id> ──▶ snapshots/<key>/files    the container stands still meanwhile
    put_back      snapshots/<key>/files ──▶ snapshots/<id>    it does not run
    clone         a new container like it, with files of its own

What is copied is what the container has changed; the image's layers are shared as they are between containers. So the
time a snapshot takes grows with the changes alone, and where files can share their blocks not even with their size.
Volumes, tmpfs and what processes hold in memory are no part of it.
"""

from __future__ import annotations

import os

from hutch.engine.freezing import StandingStill
from hutch.errors import Conflict, InvalidArgument, NotFound, NotSupported, Unavailable
from hutch.linux.files import exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.engine.prepare import Prepared
    from hutch.engine.undo import Undo

_MARK = "snapshot"
_FILES = "files"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def key_of(container_id: str, name: str) -> str:
    """The key of a snapshot of a container.

    Raises:
        InvalidArgument: not a name.
    """
    from hutch.engine.options import check_container_name

    try:
        check_container_name(name)
    except InvalidArgument:
        raise InvalidArgument(f"invalid snapshot name: {name[:64]!r}") from None
    return f"{container_id}-{_MARK}-{name}"


def names(engine: Engine, directory: ContainerDirectory) -> list[str]:
    """The names of a container's snapshots, oldest first."""
    prefix = f"{directory.record.id}-{_MARK}-"
    found = [key for key in directory.record.snapshots if key.startswith(prefix)]
    return [key.removeprefix(prefix) for key in found if os.path.isdir(_files(engine, key))]


def take(engine: Engine, directory: ContainerDirectory, name: str = "") -> str:
    """Keep the files of a container as they are now.

    Args:
        engine: whose container.
        directory: the container, running or not.
        name: of the snapshot; empty for a random one.

    Returns:
        The name.

    Raises:
        Conflict: there is one of that name.
        NotSupported: its root is a directory of the host's.
    """
    name = name or os.urandom(6).hex()
    key = key_of(directory.record.id, name)
    if os.path.isdir(_files(engine, key)):
        raise Conflict(f"snapshot {name} of container {directory.record.name}: is there already")
    try:
        _capture(engine, directory, key, directory.record.first_id)
    except BaseException:
        _drop(engine, directory, key)
        raise
    return name


def remove(engine: Engine, directory: ContainerDirectory, name: str) -> None:
    """Forget a snapshot.

    Raises:
        NotFound: there is none of that name.
    """
    key = key_of(directory.record.id, name)
    if not os.path.isdir(_files(engine, key)):
        raise NotFound(f"no such snapshot of container {directory.record.name}: {name}")
    _drop(engine, directory, key)


def reset(engine: Engine, directory: ContainerDirectory, name: str) -> bool:
    """Give a container the files of a snapshot; one that runs is killed, and started again with them.

    Returns:
        Whether it runs again.

    Raises:
        NotFound: there is no such snapshot.
        HutchError: it could not be started again.
    """
    from hutch.engine import lifecycle
    from hutch.runtime.signals import SIGKILL

    key = key_of(directory.record.id, name)
    if not os.path.isdir(_files(engine, key)):
        raise NotFound(f"no such snapshot of container {directory.record.name}: {name}")
    lifecycle.status_of(engine, directory)
    request = {"op": "restart", "signal": SIGKILL, "timeout": 0, "reset": key}
    channel = lifecycle.connect(engine, directory.record.id, request)
    if channel is not None:
        with channel:
            lifecycle.await_end(channel)
        return True
    if not directory.lock(wait=False):
        raise Conflict(f"container {directory.record.name}: it is being started or stopped")
    try:
        directory.refresh()
        put_back(engine, directory, key)
    finally:
        directory.unlock()
    return False


def put_back(engine: Engine, directory: ContainerDirectory, key: str) -> None:
    """Exchange a container's files for a copy of a snapshot's. It does not run, and its lock is the caller's."""
    record = directory.record
    if not key.startswith(f"{record.id}-{_MARK}-"):
        raise InvalidArgument(f"snapshot {key[:140]!r}: is not of this container")
    temporary = f"{record.id}-reset-{os.urandom(6).hex()}"
    _note(engine, directory, temporary)
    try:
        _duplicate(engine, _files(engine, key), temporary, record.first_id, record.first_id)
        _install(engine, temporary, record.id)
    finally:
        _drop(engine, directory, temporary)


def clone(engine: Engine, directory: ContainerDirectory, undo: Undo, *, name: str = "", snapshot: str = "") -> Prepared:
    """Make a new container like another: the same image and options, and the same files.

    Volumes with a name are shared with it, anonymous ones are its own and new.

    Args:
        engine: whose container.
        directory: the container, running or not.
        undo: gets a step for everything done.
        name: of the new one; empty for a random one.
        snapshot: of the old one, whose files it gets; empty for the files as they are now.

    Returns:
        The new one, locked, as `hutch.engine.prepare.prepare` has it.
    """
    from hutch.engine.prepare import prepare
    from hutch.engine.restoring import restored_options

    record = directory.record
    prepared = prepare(engine, restored_options(directory, name=name), console=None, undo=undo)
    new = prepared.directory.record
    new.image = record.image
    prepared.directory.save(durable=False)
    temporary = f"{new.id}-clone"
    _note(engine, prepared.directory, temporary)
    if snapshot:
        key = key_of(record.id, snapshot)
        if not os.path.isdir(_files(engine, key)):
            raise NotFound(f"no such snapshot of container {record.name}: {snapshot}")
        _duplicate(engine, _files(engine, key), temporary, record.first_id, new.first_id)
    else:
        _capture(engine, directory, temporary, new.first_id, noted=True)
    _install(engine, temporary, new.id)
    _drop(engine, prepared.directory, temporary)
    return prepared


def capture_still(engine: Engine, directory: ContainerDirectory, key: str, first_id: int) -> None:
    """Copy a container's files to `snapshots/<key>/files` while it stands still.

    Args:
        engine: whose container.
        directory: the container, whose lock is held by its monitor or by the caller.
        key: of the snapshot to be.
        first_id: what the first id of the container's private range becomes; 0 if it has none.
    """
    record = directory.record
    still = StandingStill(engine, directory)
    try:
        still.__enter__()
    except NotSupported:
        pass  # an ordinary user's host may have no freezer for him: then it is one moment after the other
    try:
        _duplicate(engine, f"{engine.root}/snapshots/{record.id}", key, record.first_id, first_id)
    finally:
        still.__exit__()


def _capture(engine: Engine, directory: ContainerDirectory, key: str, first_id: int, *, noted: bool = False) -> None:
    from hutch.engine import lifecycle

    record = directory.record
    if not os.path.isdir(f"{engine.root}/snapshots/{record.id}"):
        raise NotSupported(f"container {record.name}: its root file system is a directory of the host")
    if not noted:
        _note(engine, directory, key)
    lifecycle.status_of(engine, directory)
    request = {"op": "capture", "key": key, "first_id": first_id}
    while True:
        channel = lifecycle.connect(engine, record.id, request)
        if channel is not None:
            with channel:
                lifecycle.await_end(channel)
            return
        if directory.lock(wait=False):
            break
        os.sched_yield()
    try:
        capture_still(engine, directory, key, first_id)
    finally:
        directory.unlock()


def _duplicate(engine: Engine, source: str, key: str, first: int, to: int) -> None:
    """Copy to `snapshots/<key>/files`, which is there when it is whole."""
    from hutch.engine.idranges import SIZE
    from hutch.snapshot import helper, idmap
    from hutch.snapshot.duplicate import Shift, duplicate

    place = f"{engine.root}/snapshots/{key}"
    try:
        os.mkdir(place, 0o700)
        if idmap.needs_user_namespace():
            helper.run("hutch.snapshot.tree_child", ["duplicate", source, f"{place}/new"])
        else:
            duplicate(source, f"{place}/new", Shift(first, SIZE if first and to else 0, to))
        os.rename(f"{place}/new", f"{place}/{_FILES}")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Unavailable(f"snapshot {key}: {error.filename or source}: {reason}") from None


def _install(engine: Engine, key: str, container_id: str) -> None:
    """Let the files of a snapshot and a container's change places."""
    top_fd = os.open(f"{engine.root}/snapshots", _DIRECTORY)
    try:
        exchange(top_fd, f"{key}/{_FILES}", top_fd, container_id)
    finally:
        os.close(top_fd)


def _files(engine: Engine, key: str) -> str:
    return f"{engine.root}/snapshots/{key}/{_FILES}"


def _note(engine: Engine, directory: ContainerDirectory, key: str) -> None:
    """Note a snapshot to be on the container's record: it is removed with it, whatever happens now."""
    _change(engine, directory, lambda keys: keys.append(key))


def _drop(engine: Engine, directory: ContainerDirectory, key: str) -> None:
    engine.snapshots.remove(key)
    _change(engine, directory, lambda keys: keys.remove(key) if key in keys else None)


def _change(engine: Engine, directory: ContainerDirectory, change: Any) -> None:
    """Alter the list of snapshots as it is now; others may have altered it."""
    with engine.database.transaction(durable=False):
        directory.refresh()
        change(directory.record.snapshots)
        directory.save(durable=False)
