"""What a container leaves on disk, `state_dir/<id>/`, and who its first process is.

    state.json     a Record: what the kernel cannot be asked; replaced as a whole, by rename
    config.json    the specification the container was created from, as `update` has changed it since
    exec.fifo      there as long as the container waits for `start`

The directory is 0700 and is reached by descriptor. It is locked (flock) while its content changes. Nothing is synced
to disk: the directory belongs in a tmpfs, and after a power cut a record describes processes that no longer exist.
What a cut may leave behind, a torn state.json, is an error that names the file; `delete --force` removes it.

A process is known by pid, start time and boot id together: pids are used again, and start times count from boot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from hutch.errors import AlreadyExists, ContainerNotFound, Internal, InvalidArgument, InvalidConfig
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from hutch.spec.runtime import Spec

STATE, CONFIG, FIFO = "state.json", "config.json", "exec.fifo"

_ID_LIMIT = 128
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_ID_CHARACTERS = _ALPHANUMERIC | frozenset("_.-")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_id(container_id: str) -> str:
    """Return the id if it can name a directory and nothing else: ``[A-Za-z0-9][A-Za-z0-9_.-]{0,127}``.

    Raises:
        InvalidArgument: anything else, `..` and names with a slash among them.
    """
    if (
        0 < len(container_id) <= _ID_LIMIT
        and container_id[0] in _ALPHANUMERIC
        and _ID_CHARACTERS.issuperset(container_id)
    ):
        return container_id
    shown = container_id if len(container_id) <= _ID_LIMIT else container_id[:32] + "..."
    raise InvalidArgument(
        f"invalid container id format: {shown!r}",
        hint="an id is 1 to 128 letters, digits, '_', '.' and '-', and begins with a letter or digit",
    )


# --- processes --------------------------------------------------------------------------------------------------


def boot_id() -> str:
    """The random name of this boot of the kernel."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read(64).strip().decode("ascii")


def process_status(pid: int) -> tuple[str, int] | None:
    """A process's state letter and start time (clock ticks since boot), or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    return fields[0].decode("ascii"), int(fields[19])


# --- the record -------------------------------------------------------------------------------------------------


class Record:
    """The content of state.json.

    Attributes:
        id: the container's.
        oci_version: `ociVersion` of its configuration.
        bundle: absolute path on the host.
        rootfs: absolute path on the host, before the container's own mounts.
        created: seconds since the epoch and their text, RFC 3339 in UTC with nanoseconds.
        owner: uid of who created it.
        pid: of its init in the creator's pid namespace; 0 while it is being created.
        start_time: of that process, clock ticks since boot.
        boot_id: of the boot it was created in.
        annotations: from its configuration.
        cgroups_path: `linux.cgroupsPath` as it was resolved.
        cgroup_paths: controller to absolute path, from CgroupManager.paths().
        systemd_cgroup: whether systemd made the cgroup.
        rootless: whether it was created without privileges over the host.
    """

    __slots__ = (
        "annotations",
        "boot_id",
        "bundle",
        "cgroup_paths",
        "cgroups_path",
        "created",
        "id",
        "oci_version",
        "owner",
        "pid",
        "rootfs",
        "rootless",
        "start_time",
        "systemd_cgroup",
    )

    def __init__(self, container_id: str, *, bundle: str, spec: Spec) -> None:
        self.id = container_id
        self.oci_version = spec.get("ociVersion", "")
        self.bundle = bundle
        self.rootfs = os.path.normpath(os.path.join(bundle, spec.get("root", {}).get("path", "")))
        self.created = now()
        self.owner = os.geteuid()
        self.pid = 0
        self.start_time = 0
        self.boot_id = boot_id()
        self.annotations: dict[str, str] = dict(spec.get("annotations") or {})
        self.cgroups_path = ""
        self.cgroup_paths: dict[str, str] = {}
        self.systemd_cgroup = False
        self.rootless = False

    def set_init(self, pid: int) -> None:
        """Record which process is the container's init; it must not have been waited for."""
        status = process_status(pid)
        if status is None:
            raise Internal(f"container {self.id}: its init {pid} is gone")
        self.pid, self.start_time = pid, status[1]

    def alive(self) -> bool:
        """Whether init is there and more than a zombie."""
        if not self.pid or self.boot_id != boot_id():
            return False
        status = process_status(self.pid)
        return status is not None and status[1] == self.start_time and status[0] not in "ZX"

    def to_dict(self) -> dict[str, Any]:
        """The content of state.json."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, found: dict[str, Any], *, source: str) -> Record:
        """The record in a parsed state.json; Internal when a field is missing or of another type."""
        record = cls.__new__(cls)
        for name in cls.__slots__:
            value = found.get(name)
            if type(value) is not _TYPES[name]:
                raise Internal(f"{source}: {name}: {value!r} is not a {_TYPES[name].__name__}")
            setattr(record, name, value)
        return record


_TYPES = {
    "annotations": dict,
    "boot_id": str,
    "bundle": str,
    "cgroup_paths": dict,
    "cgroups_path": str,
    "created": str,
    "id": str,
    "oci_version": str,
    "owner": int,
    "pid": int,
    "rootfs": str,
    "rootless": bool,
    "start_time": int,
    "systemd_cgroup": bool,
}


def now() -> str:
    """The time in UTC as RFC 3339 with nanoseconds, such as ``2026-01-02T03:04:05.678901234Z``."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


# --- the directory ----------------------------------------------------------------------------------------------


class Directory:
    """One container's directory, held by descriptor; a context manager that closes it.

    Attributes:
        fd: the directory; closed by close().
        path: its absolute path, for messages and for the children of this process only.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    @classmethod
    def make(cls, state_dir: str, container_id: str) -> Directory:
        """Make the directory of a new container, locked.

        Raises:
            InvalidArgument: the id is outside the grammar.
            AlreadyExists: a container has that id.
            OSError: mkdir(2) or open(2) failed.
        """
        path = f"{os.path.abspath(state_dir)}/{check_id(container_id)}"
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise AlreadyExists(f"container with given ID already exists: {container_id}") from None
        fd = os.open(path, _DIRECTORY)
        directory = cls(fd, path)
        directory.lock()
        return directory

    @classmethod
    def open(cls, state_dir: str, container_id: str) -> Directory:
        """Open the directory of an existing container.

        Raises:
            InvalidArgument: the id is outside the grammar.
            ContainerNotFound: there is none, or what is there belongs to another user.
            OSError: open(2) failed.
        """
        path = f"{os.path.abspath(state_dir)}/{check_id(container_id)}"
        try:
            fd = os.open(path, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerNotFound(f"container {container_id} does not exist") from None
        if os.fstat(fd).st_uid not in (os.geteuid(), 0):
            os.close(fd)
            raise ContainerNotFound(f"container {container_id} does not exist: {path} belongs to another user")
        return cls(fd, path)

    def close(self) -> None:
        """Close the descriptor, and with it this process's hold on the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Wait for the container's lock. It counts once per process: children that inherit `fd` share it."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def try_lock(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock up, for children that inherited `fd` as well."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def save(self, name: str, document: object) -> None:
        """Replace one file as a whole: a reader sees the old or the new document."""
        temporary = f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                data = memoryview(documents.dump_bytes(document))
                while data:
                    data = data[file.write(data) :]
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            os.unlink(temporary, dir_fd=self.fd)
            raise

    def save_record(self, record: Record) -> None:
        """Replace state.json."""
        self.save(STATE, record.to_dict())

    def record(self) -> Record:
        """Read state.json.

        Raises:
            ContainerNotFound: it is not there (yet, or any more).
            Internal: it is not the record of this directory's container.
        """
        source = f"{self.path}/{STATE}"
        try:
            found = documents.read_object(STATE, dir_fd=self.fd)
        except FileNotFoundError:
            raise ContainerNotFound(f"container {os.path.basename(self.path)} does not exist") from None
        except InvalidConfig as error:
            raise Internal(f"{self.path}/{error}", hint="delete --force removes the container") from None
        record = Record.from_dict(found, source=source)
        if record.id != os.path.basename(self.path):
            raise Internal(f"{source}: describes container {record.id!r}")
        return record

    def config(self) -> Spec:
        """Read config.json; Internal when it is missing or torn."""
        try:
            found: Any = documents.read_object(CONFIG, dir_fd=self.fd)
        except (OSError, InvalidConfig) as error:
            raise Internal(f"{self.path}/{CONFIG}: {error}") from None
        spec: Spec = found
        return spec

    def waiting(self) -> bool:
        """Whether exec.fifo is there: created, and not started yet."""
        try:
            return stat.S_ISFIFO(os.stat(FIFO, dir_fd=self.fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Remove the directory; state.json goes last, so that an interrupted removal can be taken up again."""
        names = sorted(os.listdir(self.fd), key=lambda name: name == STATE)
        for name in names:
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                continue
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return


def container_ids(state_dir: str) -> Iterator[str]:
    """The ids of the containers below `state_dir`, in order; other names that lie there are passed over."""
    try:
        names = sorted(os.listdir(state_dir))
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield check_id(name)
        except InvalidArgument:
            continue
