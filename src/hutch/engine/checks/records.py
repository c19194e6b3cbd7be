"""Whether hutch.db is sound, and whether its rows and the directories of containers go together."""

from __future__ import annotations

import fcntl
import os
import time

from hutch.engine import lifecycle, mountrecord
from hutch.engine.checks.finding import Finding
from hutch.engine.containers import CONFIG, ROOT_MOUNTS, ContainerRecord
from hutch.engine.ids import new_name
from hutch.errors import HutchError, Internal
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine

_LIMIT = 16 << 20
_HEX = frozenset("0123456789abcdef")
_SETTLED = ("created", "exited", "dead")
_MOMENT_S = 0.2
_CHECKED_ROWS = 10


def check_database(engine: Engine) -> Iterator[Finding]:
    """What SQLite finds wrong with its own file; if anything is, nothing else can be said of containers."""
    try:
        rows = engine.database.read(f"PRAGMA quick_check({_CHECKED_ROWS})")
    except Internal as error:
        rows = [(str(error),)]
    problems = [str(row[0]) for row in rows if row[0] != "ok"]
    if not problems:
        return
    text = " ".join(problems[0].split())[:200].removeprefix(f"{engine.database.path}: ")
    yield Finding(
        f"hutch.db: {text}", lambda: _rebuild(engine), hint="with --repair what can be read is put into a new one"
    )


def _rebuild(engine: Engine) -> str:
    from hutch.engine.checks.salvage import salvage

    monitors = f"{engine.state}/monitors"
    if os.path.isdir(monitors) and os.listdir(monitors):
        raise Internal("containers run, whose monitors write to it", hint="stop them first: kill their processes")
    kept, aside = salvage(engine)
    return f"put {kept} rows that can be read into a new one; the damaged one is {aside}"


def check_records(engine: Engine) -> Iterator[Finding]:
    """Rows without directories, directories without rows, and damaged records and files of containers."""
    folder = f"{engine.root}/containers"
    if not os.path.isdir(folder):
        return
    known = set()
    for directory in engine.containers.all():
        with directory:
            known.add(directory.record.id)
            yield from _check_container(engine, directory)
    making_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(making_fd, fcntl.LOCK_EX)  # nobody is between row and directory now
        names = os.listdir(folder)
        known |= {row[0] for row in engine.database.read("SELECT id FROM containers")}
    finally:
        os.close(making_fd)
    for name in sorted(names):
        if name not in known and len(name) == 64 and _HEX.issuperset(name):
            yield Finding(f"container {name[:12]}: a directory without a record", _entry(engine, name))


def _check_container(engine: Engine, directory: ContainerDirectory) -> Iterator[Finding]:
    record = directory.record
    what = f"container {record.name}"
    if not os.path.isdir(directory.path):
        if not _is_going(engine, record.id):
            yield Finding(f"{what}: its directory is gone", _replacement(directory))
        return
    if record.status == "dead":
        yield Finding(f"{what}: {record.error or 'its record is damaged'}", hint=f"'hutch rm {record.name}' removes it")
        return
    if record.status not in _SETTLED and _is_abandoned(directory):
        yield Finding(f"{what}: {record.status}, but its monitor is gone", lambda: _settled(engine, record.id))
        return
    if record.status in ("creating", "removing"):
        return
    try:
        for name in (CONFIG, ROOT_MOUNTS):
            documents.read_object(name, _LIMIT, dir_fd=directory.fd)
        mountrecord.read(directory)
    except FileNotFoundError as error:
        if not _is_going(engine, record.id):
            yield Finding(f"{what}: {error.filename} is gone", hint=f"'hutch rm {record.name}' removes it")
    except (HutchError, OSError) as error:
        hint = f"'hutch export {record.name}' may save its files, 'hutch rm {record.name}' removes it"
        yield Finding(f"{what}: {error}", hint=hint)


def _is_going(engine: Engine, container_id: str) -> bool:
    """Whether it is just being removed, or was: its row goes last."""
    time.sleep(_MOMENT_S)
    return not engine.database.read("SELECT 1 FROM containers WHERE id = ?", [container_id])


def _is_abandoned(directory: ContainerDirectory) -> bool:
    if not directory.lock(wait=False):
        return False
    directory.unlock()
    time.sleep(_MOMENT_S)  # its maker may not have locked it yet
    if not directory.lock(wait=False):
        return False
    directory.unlock()
    return True


def _settled(engine: Engine, container_id: str) -> str:
    with engine.containers.find(container_id) as directory:
        lifecycle.status_of(engine, directory)
        return f"ended what was left of it; it is {directory.record.status}"


def _replacement(directory: ContainerDirectory) -> Callable[[], str]:
    def mend() -> str:
        """Without a directory it can be neither looked at nor removed."""
        os.mkdir(directory.path, 0o700)
        record = directory.record
        record.status, record.error = "dead", "its directory was lost"
        directory.save()
        return f"made an empty one, so that 'hutch rm {record.name}' removes the rest"

    return mend


def _entry(engine: Engine, container_id: str) -> Callable[[], str]:
    def mend() -> str:
        """Enter it as far as its files tell what it was."""
        record = ContainerRecord(container_id, f"{new_name(0)}-{container_id[:6]}")
        record.status, record.error = "dead", "its record was lost"
        try:
            process = documents.read_object(f"{engine.root}/containers/{container_id}/{CONFIG}", _LIMIT)["process"]
            record.command = [str(word) for word in process["args"]]
            record.environment = [str(word) for word in process.get("env") or ()]
        except (HutchError, OSError, KeyError, TypeError, AttributeError):
            pass  # then its files are all there is of it
        text = documents.dump(record.to_dict())
        with engine.database.transaction() as transaction:
            transaction.execute(
                "INSERT OR IGNORE INTO containers (id, name, created, active, record) VALUES (?, ?, ?, 0, ?)",
                [record.id, record.name, record.created, text],
            )
        return f"entered it as {record.name}, so that 'hutch export' and 'hutch rm' find it"

    return mend
