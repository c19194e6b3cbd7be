"""A container's files, through a helper process that alone touches them.

    with inside(engine, directory) as files:
        files.stat(b"/etc")
        with files.read(b"/etc/hosts", b"hosts") as stream: …

The helper (`hutch.engine.inside_child`) is a fresh interpreter without the caller's threads and descriptors. It speaks
tar through pipes and knows no names of users, no compression and no program.
"""

from __future__ import annotations

import os
import time

from hutch.engine.record import Record
from hutch.errors import ContainerNotFound, Internal, InvalidState, Unavailable
from hutch.linux import seqpacket
from hutch.runtime import documents
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any, Self

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.spec.runtime import Mount, Spec

_CHILD = "hutch.engine.inside_child"
_REPLY_BYTES_MAX = 1 << 20
_SPEC_BYTES_MAX = 16 << 20
_CHUNK = 256 << 10
_BUSY_WAIT_S = 10.0
_TRIES = 5
_RUNS = ("created", "running", "paused")


class PathStat(Record):
    """What a path in a container is.

    Attributes:
        name: the last component as it was asked for, "/" for the root.
        mode: type and permission bits, as in `os.stat_result.st_mode`.
        size: bytes.
        mtime_nanos: since the epoch.
        link: of a symbolic link, the absolute path in the container that it leads to.
    """

    name: bytes
    mode: int
    size: int
    mtime_nanos: int
    link: bytes = b""


class Helper:
    """One helper process; a context manager that ends it."""

    def __init__(self, task: dict[str, Any], pass_fds: tuple[int, ...] = ()) -> None:
        """Start it with what it shall get at, and wait until it has that open.

        Raises:
            HutchError, OSError: what it met.
        """
        import subprocess

        from hutch.snapshot.helper import command

        self._channel, theirs = seqpacket.pair()
        with theirs:
            text = documents.dump_bytes({**task, "control": theirs.fileno()}).decode()
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command(_CHILD, [text]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
                bufsize=0,
                pass_fds=(theirs.fileno(), *pass_fds),
                start_new_session=True,  # a control-C is for us, who then end it
            )
        try:
            self.answer()
        except BaseException:
            self.close()
            raise

    @property
    def stdin_fd(self) -> int:
        """Where an archive goes in."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def stdout_fd(self) -> int:
        """Where an archive or a list comes out."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def control_fd(self) -> int:
        """Readable once there is an answer."""
        return self._channel.fileno()

    def end_input(self) -> None:
        """Nothing more goes in."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def ask(self, verb: str, **arguments: object) -> None:
        """Send a request."""
        try:
            self._channel.send(documents.dump_bytes({"verb": verb, **arguments}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # why it ended is what `answer` says

    def answer(self) -> dict[str, Any]:
        """What it answers to the last request.

        Raises:
            HutchError, OSError: what it met.
            Internal: it ended without a word.
        """
        try:
            data, _ = self._channel.recv(_REPLY_BYTES_MAX)
        except ConnectionResetError:
            data = b""
        found = documents.parse_object(data, source=_CHILD) if data else {"failure": [""]}
        if "failure" in found:
            from hutch.snapshot.helper import understood

            status = 1
            if found.get("over", True):
                self._process.kill()
                status = self._process.wait()
            report = b"\0".join(str(field).encode("latin-1") for field in found["failure"])
            understood(_CHILD, report, status)
            raise Internal(f"{_CHILD}: an error without words")
        return found

    def call(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.ask(verb, **arguments)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stream:
    """Bytes that the helper writes, up to its answer; a context manager that lets go of the helper too, if it owns it.

    Attributes:
        fd: to read from, for `os.read`, `select` and `sendfile`; its end is not yet success: see `finish`.
        answer: what the helper said at the end.
        stat: what it is an archive of, if somebody looked.
        size: bytes read so far.
    """

    def __init__(self, helper: Helper, owner: Callable[[], None] | None = None) -> None:
        self.fd = helper.stdout_fd
        self.answer: dict[str, Any] = {}
        self.stat: PathStat | None = None
        self.size = 0
        self._helper, self._owner = helper, owner
        self._done = False

    def read(self, size: int = _CHUNK) -> bytes:
        """At most `size` bytes, b"" at the end.

        Raises:
            HutchError, OSError: what the helper met on the way: the bytes so far are not all.
        """
        if self._done:
            return b""
        while True:
            ready = self._ready()
            if ready & 1:
                chunk = os.read(self.fd, size)
                self.size += len(chunk)
                return chunk or self._ended()
            if ready & 2:  # the answer came, and nothing more will
                return self._ended()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        chunk = self.read()
        if not chunk:
            raise StopIteration
        return chunk

    def _ready(self) -> int:
        import select

        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(self._helper.control_fd, select.POLLIN)
        found = dict(poll.poll())
        return (1 if found.get(self.fd, 0) & select.POLLIN else 0) | (2 if self._helper.control_fd in found else 0)

    def _ended(self) -> bytes:
        self._done = True
        self.answer = self._helper.answer()
        return b""

    def close(self) -> None:
        """Let go."""
        self._done = True
        owner, self._owner = self._owner, None
        if owner is not None:
            owner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Inside:
    """The files of one container as it sees them, while this is open; a context manager.

    Args:
        engine: whose container.
        directory: the container.
        alone: without what is mounted below the root.

    Raises:
        HutchError, OSError: the files cannot be got at.
    """

    def __init__(self, engine: Engine, directory: ContainerDirectory, *, alone: bool = False) -> None:
        self._locked = False
        self._directory = directory
        for left in reversed(range(_TRIES)):
            try:
                self._begin(engine, directory, alone=alone)
                break
            except ProcessLookupError:  # its init ended just then; it may be started again by its policy
                if not left:
                    raise Unavailable(f"container {directory.record.name}: it is being started or stopped") from None

    def _begin(self, engine: Engine, directory: ContainerDirectory, *, alone: bool) -> None:
        pidfd = open_init(engine, directory)
        spec = read_spec(directory)
        try:
            if pidfd >= 0:
                task = {"kind": "live", "pidfd": pidfd, "own_users": _own_users(spec), "alone": alone}
                self._helper = Helper(task, (pidfd,))
            else:
                self._locked = True
                task = {
                    "kind": "mounted",
                    "bundle": directory.path,
                    "rootfs": spec["root"]["path"],
                    "root_mounts": root_mounts(engine, directory),
                    "alone": alone,
                    "own_users": _own_users(spec),
                }
                self._helper = Helper(task)
        except BaseException:
            self._unlock()
            raise
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def stat(self, path: bytes) -> PathStat:
        """What `path` is; its last name is not followed, unless a slash or `/.` comes after it.

        Raises:
            OSError: ENOENT, ENOTDIR, ELOOP.
        """
        found = self._helper.call("stat", path=path.decode("latin-1"))
        return PathStat(
            name=path.rstrip(b"/").rpartition(b"/")[2] or b"/",
            mode=found["mode"],
            size=found["size"],
            mtime_nanos=found["mtime_nanos"],
            link=found["link"].encode("latin-1"),
        )

    def read(self, path: bytes, name: bytes, *, owner: Callable[[], None] | None = None) -> Stream:
        """An archive of `path` and all below it, whose names begin with `name`."""
        self._helper.ask("read", path=path.decode("latin-1"), name=name.decode("latin-1"))
        return Stream(self._helper, owner)

    def begin_write(self, path: bytes, owner: tuple[int, int] | None) -> int:
        """Begin to extract an archive into a directory: write it to the descriptor, then call `end_write`.

        Args:
            path: of a directory that is there.
            owner: ids in the container that everything gets; None keeps the archive's.
        """
        self._helper.ask("write", path=path.decode("latin-1"), owner=list(owner) if owner else None)
        return self._helper.stdin_fd

    def end_write(self) -> dict[str, int]:
        """What was left out, once everything is extracted.

        Raises:
            InvalidArgument: the path is no directory, is read-only, or something is in the way.
            InvalidLayer: not a tar, or a hostile one.
            OSError: the machine failed.
        """
        try:
            self._helper.end_input()
        except BrokenPipeError:
            pass
        notes: dict[str, int] = self._helper.answer()["notes"]
        return notes

    def close(self) -> None:
        """Let go of the container."""
        self._helper.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._locked:
            import fcntl

            fcntl.flock(self._directory.fd, fcntl.LOCK_UN)
            self._locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_init(engine: Engine, directory: ContainerDirectory) -> int:
    """A pidfd of the container's init; or -1, and the container's lock is ours, if it does not run.

    Raises:
        Unavailable: it is starting or stopping for long.
    """
    deadline = time.monotonic() + _BUSY_WAIT_S
    while True:
        try:
            with Container.load(engine.runtime_state, directory.record.id) as running:
                if running.status() in _RUNS:
                    return running.open_init()
        except (ContainerNotFound, InvalidState):
            pass
        if directory.lock(wait=False):
            return -1
        if time.monotonic() > deadline:
            raise Unavailable(f"container {directory.record.name}: it is being started or stopped")
        time.sleep(0.02)


def read_spec(directory: ContainerDirectory) -> Spec:
    """The container's config.json."""
    return documents.read_object(f"{directory.path}/config.json", _SPEC_BYTES_MAX)  # type: ignore[return-value]


def root_mounts(engine: Engine, directory: ContainerDirectory) -> list[Mount]:
    """What the container's root is made of, as it was when it was created."""
    try:
        found: list[Mount] = documents.read_object(f"{directory.path}/root.json", _SPEC_BYTES_MAX)["mounts"]
    except FileNotFoundError:
        record = directory.record
        if not record.image_id:
            return []
        mounts = engine.snapshots.prepare(record.id, record.chain_ids).mounts
        more = ["idmap"] if record.first_id else []
        found = [{**entry, "options": [*entry["options"], *more]} for entry in mounts]
    return found


def _own_users(spec: Spec) -> bool:
    namespaces = (spec.get("linux") or {}).get("namespaces") or []
    return any(entry["type"] == "user" for entry in namespaces)
