"""The engine's records of containers, as directories: containers/<id>/ and names/<name>, which links to an id.

    containers/<id>/container.json   what it is and how it ended; replaced atomically
    containers/<id>/config.json      what the runtime was given
    containers/<id>/…                hosts, hostname, resolv.conf, rootfs (an empty mount point)
    unfinished/<id>                  an empty file from before its directory is made until its run is over

Whoever runs a container holds an flock on its directory until the last trace of the run is dealt with. One that is
unfinished and whose lock is free is of a run that was killed: whoever finds it puts it right (`lifecycle.sweep`), and
there are never more to look at than run now.
"""

from __future__ import annotations

import fcntl
import os

from hutch.engine.ids import new_id, new_name
from hutch.errors import AlreadyExists, ContainerNotFound, HutchError, Internal, InvalidArgument
from hutch.runtime import documents
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

RECORD = "container.json"
_LIMIT = 4 << 20
_HEX = frozenset("0123456789abcdef")
_ATTEMPTS = 64


class ContainerRecord:
    """What container.json holds.

    Attributes:
        status: creating, running or exited, as last written, or dead if the record is damaged; see `lifecycle.settle`.
        image: what the user called it; image_id and chain_ids are what that was.
        mounted_images: image id → chain ids of images that it mounts besides.
        exit_code: of the last run, -1 before one.
        error: why it could not be run, in one line.
        snapshots: keys of those made for it besides its root.
        first_id: of its private range of ids, 0 if it has none.
    """

    __slots__ = (
        "auto_remove",
        "chain_ids",
        "command",
        "created",
        "error",
        "exit_code",
        "finished",
        "first_id",
        "id",
        "image",
        "image_id",
        "labels",
        "mounted_images",
        "name",
        "oom_killed",
        "snapshots",
        "started",
        "status",
        "stop_signal",
        "volumes",
    )

    def __init__(self, container_id: str, name: str) -> None:
        self.id, self.name = container_id, name
        self.created, self.started, self.finished = now(), "", ""
        self.status = "creating"
        self.image = self.image_id = ""
        self.chain_ids: list[str] = []
        self.mounted_images: dict[str, list[str]] = {}
        self.command: list[str] = []
        self.labels: dict[str, str] = {}
        self.stop_signal = ""
        self.volumes: list[str] = []
        self.snapshots: list[str] = []
        self.auto_remove = self.oom_killed = False
        self.exit_code = -1
        self.first_id = 0
        self.error = ""

    @classmethod
    def parse(cls, found: dict[str, Any], source: str) -> Self:
        """The record in a parsed container.json; Internal when a field has another type."""
        record = cls("", "")
        for name in cls.__slots__:
            value = found.get(name, getattr(record, name))
            if type(value) is not type(getattr(record, name)):
                raise Internal(f"{source}: field {name} is damaged")
            setattr(record, name, value)
        return record

    def to_dict(self) -> dict[str, Any]:
        """The content of container.json."""
        return {name: getattr(self, name) for name in sorted(self.__slots__)}


class ContainerDirectory:
    """One container's directory, held by descriptor; a context manager that closes it, and gives up the lock with it.

    Attributes:
        fd: the directory, closed by close().
        path: its absolute path.
    """

    __slots__ = ("fd", "path", "record")

    def __init__(self, fd: int, path: str, record: ContainerRecord) -> None:
        self.fd, self.path, self.record = fd, path, record

    def close(self) -> None:
        """Close the descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self, *, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False if somebody else has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def refresh(self) -> None:
        """Read the record again: before the lock was ours, somebody else may have changed or removed the container.

        Raises:
            ContainerNotFound: it was removed.
        """
        self.record = _read_record(self.fd, self.record.id, said=self.record.name or self.record.id[:12])

    def removed(self) -> bool:
        """Whether it was removed, through this or from under it."""
        return self.fd < 0 or os.fstat(self.fd).st_nlink == 0

    def save(self, *, durable: bool = True) -> None:
        """Write the record."""
        write_atomically(self.fd, RECORD, documents.dump_bytes(self.record.to_dict()), durable=durable)


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
    """

    def __init__(self, root: str) -> None:
        self._containers = f"{root}/containers"
        self._names = f"{root}/names"
        self._unfinished = f"{root}/unfinished"

    def create(self, name: str = "") -> ContainerDirectory:
        """Make a container's directory, locked, under a new id and a name that nobody else has.

        Args:
            name: already checked; empty for a random one.

        Raises:
            AlreadyExists: the name is taken.
        """
        container_id = new_id()
        for folder in (self._containers, self._names, self._unfinished):
            os.makedirs(folder, 0o700, exist_ok=True)
        path = f"{self._containers}/{container_id}"
        making_fd = _open_directory(self._unfinished)
        try:
            fcntl.flock(making_fd, fcntl.LOCK_SH)  # for a moment the entry has no directory, or no lock on it
            _touch(f"{self._unfinished}/{container_id}")
            os.mkdir(path, 0o700)
            directory = ContainerDirectory(_open_directory(path), path, ContainerRecord(container_id, name))
            directory.lock()
        finally:
            os.close(making_fd)
        try:
            directory.save(durable=False)  # so that whoever finds the name taken can find out by whom
            directory.record.name = self._take(name, container_id)
        except BaseException:
            self.remove(directory)
            raise
        return directory

    def abandoned(self) -> list[ContainerDirectory]:
        """Containers whose run was killed, locked, their records not read; the caller closes each.

        None are found in the moment in which another container is made: they will be next time.
        """
        found = []
        try:
            making_fd = _open_directory(self._unfinished)
        except FileNotFoundError:
            return []
        try:
            fcntl.flock(making_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for container_id in os.listdir(making_fd):
                directory = self._abandoned(container_id)
                if directory is not None:
                    found.append(directory)
        except BlockingIOError:
            pass
        finally:
            os.close(making_fd)
        return found

    def _abandoned(self, container_id: str) -> ContainerDirectory | None:
        path = f"{self._containers}/{container_id}"
        try:
            fd = _open_directory(path)
        except FileNotFoundError:
            self.finished(container_id)
            return None
        directory = ContainerDirectory(fd, path, ContainerRecord(container_id, ""))
        if directory.lock(wait=False):
            return directory
        directory.close()
        return None

    def finished(self, container_id: str) -> None:
        """The run of a container is over, or there is none."""
        try:
            os.unlink(f"{self._unfinished}/{container_id}")
        except FileNotFoundError:
            pass

    def _take(self, name: str, container_id: str) -> str:
        """Link a name to the id; the link is the reservation, and exactly one of two racing creators makes it."""
        for attempt in range(_ATTEMPTS):
            wanted = name or new_name(attempt)
            try:
                os.symlink(container_id, f"{self._names}/{wanted}")
            except FileExistsError:
                owner = self._owner(wanted)
                if name and owner:
                    raise AlreadyExists(
                        f'the container name "{name}" is already in use by container {owner[:12]}',
                        hint=f"remove it with: hutch rm {name}",
                    ) from None
                continue
            return wanted
        raise Internal("no free container name found")

    def _owner(self, name: str) -> str:
        """Whose a name is; a name left by a creator that died before its first record is given free."""
        path = f"{self._names}/{name}"
        try:
            owner = os.readlink(path)
        except FileNotFoundError:
            return ""
        if os.path.lexists(f"{self._containers}/{owner}"):
            return owner
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        return ""

    def find(self, text: str) -> ContainerDirectory:
        """Open a container by id, name or unambiguous beginning of an id.

        Raises:
            ContainerNotFound: none, or one whose record cannot be read yet.
            InvalidArgument: several.
        """
        if text and set(text) <= _HEX and len(text) == 64:
            return self._open(text, text)
        if text and "/" not in text and len(text) <= 128:
            try:
                return self._open(os.readlink(f"{self._names}/{text}"), text)
            except OSError:
                pass
        if text and set(text) <= _HEX:
            found = [container_id for container_id in self._ids() if container_id.startswith(text)]
            if len(found) > 1:
                raise InvalidArgument(f"multiple containers found with the prefix {text}")
            if found:
                return self._open(found[0], text)
        raise ContainerNotFound(f"no such container: {text[:128]}")

    def all(self) -> Iterator[ContainerDirectory]:
        """Every container, newest first; the caller's loop closes each."""
        found = []
        for container_id in self._ids():
            try:
                found.append(self._open(container_id, container_id))
            except ContainerNotFound:
                continue
        yield from sorted(found, key=lambda directory: directory.record.created, reverse=True)

    def _ids(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._containers) if len(name) == 64]
        except FileNotFoundError:
            return []

    def _open(self, container_id: str, said: str) -> ContainerDirectory:
        path = f"{self._containers}/{container_id}"
        try:
            fd = _open_directory(path)
        except FileNotFoundError:
            raise ContainerNotFound(f"no such container: {said}") from None
        try:
            record = _read_record(fd, container_id, said=said)
        except BaseException:
            os.close(fd)
            raise
        return ContainerDirectory(fd, path, record)

    def remove(self, directory: ContainerDirectory) -> None:
        """Forget a container: its name, its files, then its directory. The rest was removed before."""
        from hutch.snapshot.removal import empty_directory

        name = directory.record.name
        for path in [f"{self._names}/{name}"] if name else self._links(directory.record.id):
            try:
                if os.readlink(path) == directory.record.id:
                    os.unlink(path)
            except FileNotFoundError:
                continue
        empty_directory(directory.fd)
        os.rmdir(directory.path)
        self.finished(directory.record.id)
        directory.close()

    def _links(self, container_id: str) -> Iterator[str]:
        """The names of a container whose creation was killed before they were recorded."""
        for name in os.listdir(self._names):
            path = f"{self._names}/{name}"
            try:
                if os.readlink(path) == container_id:
                    yield path
            except FileNotFoundError:
                continue


def _read_record(dir_fd: int, container_id: str, *, said: str) -> ContainerRecord:
    """The record in a container's directory; of a damaged one, an empty one that says so and lets it be removed.

    Raises:
        ContainerNotFound: none was written, or it was removed.
    """
    try:
        found = documents.read_object(RECORD, _LIMIT, dir_fd=dir_fd)
        return ContainerRecord.parse(found, f"container {container_id[:12]}")
    except FileNotFoundError:
        raise ContainerNotFound(f"no such container: {said}") from None
    except HutchError as error:
        record = ContainerRecord(container_id, "")
        record.status, record.error = "dead", str(error)
        return record


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
