"""The engine's containers: a row of hutch.db each, and a directory containers/<id>/ for files.

    hutch.db                         what it is, what it does now and how it ended; see `ContainerRecord`
    containers/<id>/config.json      what the runtime is given; root.json: what makes the root file system
    containers/<id>/…                logs, hosts, hostname, resolv.conf, rootfs (an empty mount point)

Whoever makes, runs or removes a container holds an flock on its directory until that is dealt with; the monitor
holds it as long as the container lives. An active one whose lock is free is of a process that was killed: whoever
finds it puts it right (`lifecycle.sweep`).
"""

from __future__ import annotations

import fcntl
import os

from hutch.engine.database import UniqueViolation, as_json
from hutch.engine.ids import new_id, new_name
from hutch.errors import AlreadyExists, ContainerNotFound, HutchError, Internal, InvalidArgument
from hutch.runtime import documents
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from hutch.engine.database import Database

CONFIG, ROOT_MOUNTS = "config.json", "root.json"
ACTIVE = ("creating", "running", "restarting", "removing")
"""Statuses in which somebody must hold the lock."""
_HEX = frozenset("0123456789abcdef")
_ATTEMPTS = 64


class ContainerRecord:
    """What the store knows of a container. Fields of the second half change while it lives.

    Attributes:
        image: what the user called it; image_id and chain_ids are what that was.
        mounted_images: image id → chain ids of images that it mounts besides.
        options: `RunOptions` as JSON: what the user asked for.
        command: the program and its arguments; the first word is what is executed.
        environment: of the program, as in config.json.
        joined: namespace kind → id of the container whose it shares.
        volumes: its anonymous volumes; mounted_volumes: the named ones.
        snapshots: keys of those made for it besides its root.
        first_id: of its private range of ids, 0 if it has none.
        stop_timeout: seconds between the stop signal and SIGKILL, -1 for the default.
        restart: policy, such as ``{"Name": "on-failure", "MaximumRetryCount": 3}``.
        healthcheck: Docker's ``Healthcheck`` object, durations in nanoseconds; empty for none.
        status: creating, created, running, restarting, removing, exited, or dead if the record is damaged. Paused is
            not stored: see `lifecycle.settle`.
        pid, start_time, boot_id: init's pid in the host's namespace while it runs, when it was started (in ticks since
            boot), and in which boot.
        freezer: the file that says whether its cgroup is frozen.
        stopped: by the user, so that no policy starts it again.
        exit_code: of the last run, -1 before one.
        error: why it could not be run, in one line.
        health: Docker's ``State.Health``: Status, FailingStreak, Log.
        usage: what its runs took, see `hutch.engine.monitor.usage`.
    """

    __slots__ = (
        "_read",
        "auto_remove",
        "boot_id",
        "chain_ids",
        "command",
        "created",
        "environment",
        "error",
        "exit_code",
        "finished",
        "first_id",
        "freezer",
        "health",
        "healthcheck",
        "hostname",
        "id",
        "image",
        "image_id",
        "interactive",
        "joined",
        "labels",
        "log_driver",
        "log_options",
        "mounted_images",
        "mounted_volumes",
        "name",
        "networks",
        "oom_killed",
        "options",
        "pid",
        "ports",
        "restart",
        "restart_count",
        "snapshots",
        "start_time",
        "started",
        "status",
        "stop_signal",
        "stop_timeout",
        "stopped",
        "tty",
        "usage",
        "user",
        "volumes",
        "working_dir",
    )

    def __init__(self, container_id: str, name: str) -> None:
        self.id, self.name = container_id, name
        self.created, self.started, self.finished = now(), "", ""
        self.status = "creating"
        self.image = self.image_id = self.hostname = self.user = self.working_dir = ""
        self.chain_ids: list[str] = []
        self.mounted_images: dict[str, list[str]] = {}
        self.options: dict[str, Any] = {}
        self.command: list[str] = []
        self.environment: list[str] = []
        self.labels: dict[str, str] = {}
        self.joined: dict[str, str] = {}
        self.interactive = self.tty = False
        self.log_driver, self.log_options = "json-file", dict[str, str]()
        self.volumes: list[str] = []
        self.mounted_volumes: list[str] = []
        self.snapshots: list[str] = []
        self.networks: dict[str, Any] = {}
        self.ports: dict[str, Any] = {}
        self.first_id = 0
        self.auto_remove = False
        self.stop_signal, self.stop_timeout = "", -1
        self.restart: dict[str, Any] = {"Name": "no", "MaximumRetryCount": 0}
        self.healthcheck: dict[str, Any] = {}
        self.pid = self.start_time = self.restart_count = 0
        self.boot_id = self.freezer = ""
        self.stopped = self.oom_killed = False
        self.exit_code = -1
        self.error = ""
        self.health: dict[str, Any] = {}
        self.usage: dict[str, Any] = {}
        self._read = ""

    @classmethod
    def parse(cls, found: dict[str, Any], source: str) -> Self:
        """The record in a parsed JSON object; Internal when a field has another type."""
        record = cls.__new__(cls)
        for name, kind in _KINDS.items():
            value = found.get(name)
            if type(value) is not kind:
                if name in found:
                    raise Internal(f"{source}: field {name} is damaged")
                value = getattr(cls("", ""), name)  # it is older than the field
            setattr(record, name, value)
        record.remember("")
        return record

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {name: getattr(self, name) for name in FIELDS}

    def remember(self, text: str) -> None:
        """From here on `changes` is what differs from `text`, the record as it is stored."""
        self._read = text

    def changes(self) -> dict[str, Any]:
        """The fields assigned or altered since the record was read or saved."""
        before = documents.parse(self._read, source="record") if self._read else {}
        missing = object()
        return {name: getattr(self, name) for name in FIELDS if before.get(name, missing) != getattr(self, name)}


FIELDS = tuple(name for name in ContainerRecord.__slots__ if not name.startswith("_"))
_KINDS = {name: type(getattr(ContainerRecord("", ""), name)) for name in FIELDS}


class ContainerDirectory:
    """One container: its record, and its directory as a context manager; closing it gives up the lock.

    Attributes:
        path: the directory's absolute path.
        record: as last read; `save` writes what was changed in it.
    """

    __slots__ = ("_database", "_fd", "path", "record")

    def __init__(self, path: str, record: ContainerRecord, database: Database) -> None:
        self.path, self.record, self._database = path, record, database
        self._fd = -1

    @property
    def fd(self) -> int:
        """The directory, opened when first asked for and closed by close().

        Raises:
            ContainerNotFound: it was removed.
        """
        if self._fd < 0:
            try:
                self._fd = _open_directory(self.path)
            except FileNotFoundError:
                raise ContainerNotFound(f"no such container: {self.record.name or self.record.id[:12]}") from None
        return self._fd

    def adopt(self, fd: int) -> None:
        """Take over a descriptor of the directory, which may hold the lock."""
        self.close()
        self._fd = fd

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self, *, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False if somebody else has it.

        Raises:
            ContainerNotFound: it was removed.
        """
        try:
            fd = self.fd
        except ContainerNotFound:
            self.refresh()
            if self.record.status in ("creating", "removing"):
                raise
            os.mkdir(self.path, 0o700)  # somebody deleted it; what still runs, or is left, has to go by its row
            fd = self.fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock up."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def refresh(self) -> None:
        """Read the record again: somebody else may have changed or removed the container.

        Raises:
            ContainerNotFound: it was removed.
        """
        rows = self._database.read("SELECT id, name, record FROM containers WHERE id = ?", [self.record.id])
        if not rows:
            raise ContainerNotFound(f"no such container: {self.record.name or self.record.id[:12]}")
        self.record = _parsed(*rows[0])

    def removed(self) -> bool:
        """Whether it was removed, through this or from under it."""
        return self._fd >= 0 and os.fstat(self._fd).st_nlink == 0

    def save(self, *, durable: bool = True) -> None:
        """Write the fields that were changed; others may have changed other ones meanwhile.

        Raises:
            ContainerNotFound: it was removed.
            AlreadyExists: its new name is taken.
        """
        changes = self.record.changes()
        if not changes:
            return
        with self._database.transaction(durable=durable) as transaction:
            rows = transaction.execute("SELECT id, name, record FROM containers WHERE id = ?", [self.record.id])
            if not rows:
                raise ContainerNotFound(f"no such container: {self.record.name or self.record.id[:12]}")
            merged = _parsed(*rows[0])
            if merged.status == "dead" and self.record.status not in ("dead", "removing"):
                changes = self.record.to_dict()  # it was damaged after we had read it: it is written anew
            for name, value in changes.items():
                setattr(merged, name, value)
            text = as_json(merged.to_dict())
            try:
                transaction.execute(
                    "UPDATE containers SET name = ?, active = ?, record = ? WHERE id = ?",
                    [merged.name, merged.status in ACTIVE, text, merged.id],
                )
            except UniqueViolation:
                raise _name_taken(self._database, merged.name) from None
        # In place: others hold this record too.
        for name in FIELDS:
            setattr(self.record, name, getattr(merged, name))
        self.record.remember(text)


def write_atomically(dir_fd: int, name: str, data: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Replace a file: temporary file, write, fsync, rename, fsync of the directory.

    Args:
        dir_fd: the engine's own directory.
        name: a plain name.
        data: the new content.
        durable: False leaves out both fsyncs, for what a power cut may take.
        mode: of the file.
    """
    temporary = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode, dir_fd=dir_fd)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            os.fsync(fd)
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    if durable:
        os.fsync(dir_fd)


class ContainerStore:
    """Every container below one data root.

    Args:
        root: the data root, 0700.
        database: its hutch.db.
    """

    def __init__(self, root: str, database: Database) -> None:
        self._containers = f"{root}/containers"
        self._database = database

    def create(self, name: str = "") -> ContainerDirectory:
        """Enter a container, locked, under a new id and a name that nobody else has.

        Args:
            name: already checked; empty for a random one.

        Raises:
            AlreadyExists: the name is taken.
        """
        os.makedirs(self._containers, 0o700, exist_ok=True)
        making_fd = _open_directory(self._containers)
        try:
            fcntl.flock(making_fd, fcntl.LOCK_SH)  # for a moment the row has no directory, or no lock on it
            record = self._enter(name)
            path = f"{self._containers}/{record.id}"
            directory = ContainerDirectory(path, record, self._database)
            try:
                os.mkdir(path, 0o700)
                directory.lock()
            except BaseException:
                self._forget(record.id)
                raise
            if directory.removed():  # somebody looked in between, and took it for a killed process's
                directory.close()
                return self.create(name)
        finally:
            os.close(making_fd)
        return directory

    def _enter(self, name: str) -> ContainerRecord:
        for attempt in range(_ATTEMPTS):
            record = ContainerRecord(new_id(), name or new_name(attempt))
            text = as_json(record.to_dict())
            try:
                with self._database.transaction(durable=False) as transaction:
                    transaction.execute(
                        "INSERT INTO containers (id, name, created, active, record) VALUES (?, ?, ?, 1, ?)",
                        [record.id, record.name, record.created, text],
                    )
            except UniqueViolation:
                if name:
                    raise _name_taken(self._database, name) from None
                continue
            record.remember(text)
            return record
        raise Internal("no free container name found")

    def abandoned(self) -> list[ContainerDirectory]:
        """Active containers of processes that were killed, locked; the caller closes each.

        None are found in the moment in which another container is made: they will be next time.
        """
        rows = self._database.read("SELECT id, name, record FROM containers WHERE active")
        if not rows:
            return []
        found = []
        making_fd = _open_directory(self._containers)
        try:
            fcntl.flock(making_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for row in rows:
                directory = self._directory(_parsed(*row))
                try:
                    if directory.lock(wait=False):
                        directory.refresh()
                        found.append(directory)
                        continue
                except ContainerNotFound:
                    self._forget_if_bare(directory)
                directory.close()
        except BlockingIOError:
            pass
        finally:
            os.close(making_fd)
        return found

    def _forget_if_bare(self, directory: ContainerDirectory) -> None:
        """A row whose maker was killed before the directory was there, or whose remover was after it had gone."""
        if not os.path.lexists(directory.path):
            self._forget(directory.record.id)

    def _forget(self, container_id: str) -> None:
        with self._database.transaction(durable=False) as transaction:
            transaction.execute("DELETE FROM containers WHERE id = ?", [container_id])

    def find(self, text: str) -> ContainerDirectory:
        """A container by id, name or unambiguous beginning of an id.

        Raises:
            ContainerNotFound: none.
            InvalidArgument: several.
        """
        if text and len(text) <= 256:
            rows = self._database.read(
                "SELECT id, name, record FROM containers WHERE id = ? OR name = ? ORDER BY id = ? DESC",
                [text, text.removeprefix("/"), text],
            )
            if not rows and set(text) <= _HEX:
                rows = self._database.read(
                    "SELECT id, name, record FROM containers WHERE id >= ? AND id < ? LIMIT 2", [text, text + "g"]
                )
                if len(rows) > 1:
                    raise InvalidArgument(f"multiple containers found with the prefix {text}")
            if rows:
                return self._directory(_parsed(*rows[0]))
        raise ContainerNotFound(f"no such container: {text[:128]}")

    def all(self) -> Iterator[ContainerDirectory]:
        """Every container, newest first; the caller's loop closes each."""
        for row in self._database.read("SELECT id, name, record FROM containers ORDER BY created DESC, id"):
            yield self._directory(_parsed(*row))

    def _directory(self, record: ContainerRecord) -> ContainerDirectory:
        return ContainerDirectory(f"{self._containers}/{record.id}", record, self._database)

    def remove(self, directory: ContainerDirectory) -> None:
        """Forget a container, its lock held: its files, its directory, then its name. The rest was removed before."""
        from hutch.snapshot.removal import empty_directory

        try:
            empty_directory(directory.fd)
            os.rmdir(directory.path)
        except (ContainerNotFound, FileNotFoundError):
            pass  # an earlier removal came as far as that
        self._forget(directory.record.id)
        directory.close()


def _parsed(container_id: str, name: str, text: str | bytes) -> ContainerRecord:
    """The record of a row; of a damaged one, an empty one that says so and lets it be removed."""
    source = f"container {container_id[:12]}"
    try:
        data = text if isinstance(text, bytes) else str(text).encode()
        record = ContainerRecord.parse(documents.parse_object(data, source=source), source)
        if (record.id, record.name) == (container_id, name):
            record.remember(data.decode())
            return record
        raise Internal(f"{source}: its record is another's")
    except HutchError as error:
        record = ContainerRecord(container_id, name)
        record.status, record.error = "dead", str(error)
        record.remember(as_json(record.to_dict()))
        return record


def _name_taken(database: Database, name: str) -> AlreadyExists:
    rows = database.read("SELECT id FROM containers WHERE name = ?", [name])
    owner = f" by container {rows[0][0][:12]}" if rows else ""
    return AlreadyExists(
        f'the container name "{name}" is already in use{owner}', hint=f"remove it with: hutch rm {name}"
    )


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
