"""A container that exists: its state, and every verb but `create` and `exec`, which have modules of their own.

`create` reserves a Container, fills it and hands it out; everybody else loads one. Status is never stored: it is what
the kernel says of init, of the freezer and of the fifo at the moment of asking.

    reserve ──▶ creating ──record_init──▶ created ──start──▶ running ◀──pause/resume──▶ paused
                    │                        └──────────── init ends ────────────┴──▶ stopped ──delete──▶
                    └─ the creator died: stopped

A verb that changes a container holds its lock. Every step of `delete` may be the last before a crash: done again,
it goes on where it stopped.
"""

from __future__ import annotations

import errno
import os
import select

from hutch.errors import ContainerNotFound, InvalidState, Unavailable
from hutch.linux.process import pidfd_open, pidfd_send_signal
from hutch.runtime.signals import SIGKILL, exit_status
from hutch.runtime.state import CONFIG, FIFO, Directory, Record, container_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from hutch.runtime.cgroups.manager import CgroupManager
    from hutch.spec.runtime import LinuxResources, Spec, State

_KILL_WAIT_S = 10.0
_START_WAIT_S = 10.0


class Container:
    """One container; a context manager that closes its directory.

    Attributes:
        directory: where its record lies.
        record: the content of state.json when it was read.
    """

    __slots__ = ("_config", "directory", "record")

    def __init__(self, directory: Directory, record: Record, config: Spec | None = None) -> None:
        self.directory = directory
        self.record = record
        self._config = config

    # --- making and finding

    @classmethod
    def reserve(cls, state_dir: str, container_id: str, *, spec: Spec, bundle: str) -> Self:
        """Take an id for a container about to be created: its directory, locked, with record and configuration.

        The caller ends with `record_init`, or with `discard` if it fails.

        Raises:
            InvalidArgument: the id is outside the grammar.
            AlreadyExists: the id is taken.
            OSError: the directory cannot be made.
        """
        directory = Directory.make(state_dir, container_id)
        container = cls(directory, Record(container_id, bundle=bundle, spec=spec), spec)
        try:
            directory.save(CONFIG, spec)
            directory.save_record(container.record)
        except BaseException:
            container.discard()
            raise
        return container

    def record_init(self, pid: int) -> None:
        """Write down which process init is, and let others at the container: it is created.

        Args:
            pid: in the caller's pid namespace; the process must not have been waited for.
        """
        self.record.set_init(pid)
        self.directory.save_record(self.record)
        self.directory.unlock()

    def discard(self) -> None:
        """Forget a reserved container. Its processes, mounts and cgroup are the caller's to end."""
        self.directory.remove()
        self.directory.unlock()
        self.directory.close()

    @classmethod
    def load(cls, state_dir: str, container_id: str) -> Self:
        """Find a container.

        Raises:
            InvalidArgument: the id is outside the grammar.
            ContainerNotFound: there is none of that id.
            Internal: its record cannot be read.
        """
        directory = Directory.open(state_dir, container_id)
        try:
            return cls(directory, directory.record())
        except BaseException:
            directory.close()
            raise

    @classmethod
    def all(cls, state_dir: str) -> Iterator[Self]:
        """Every container below `state_dir` in the order of ids; one that vanishes meanwhile is left out."""
        for container_id in container_ids(state_dir):
            try:
                container = cls.load(state_dir, container_id)
            except ContainerNotFound:
                continue
            with container:
                yield container

    def close(self) -> None:
        """Close the directory; the container goes on."""
        self.directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def pid(self) -> int:
        """The pid of its init, 0 while it is being created; it may have ended since."""
        return self.record.pid

    @property
    def bundle(self) -> str:
        """The bundle it was created from."""
        return self.record.bundle

    @property
    def config(self) -> Spec:
        """The specification it runs by."""
        if self._config is None:
            self._config = self.directory.config()
        return self._config

    def cgroup(self) -> CgroupManager:
        """The manager of its cgroup."""
        from hutch.runtime.cgroups.manager import manager_for

        record = self.record
        return manager_for(
            record.cgroups_path,
            record.id,
            systemd=record.systemd_cgroup,
            rootless=record.rootless,
            stored=record.cgroup_paths,
        )

    def status(self) -> str:
        """One of creating, created, running, paused and stopped, as the kernel has it now."""
        if not self.record.pid:
            return self._status_without_init()
        if not self.record.alive():
            return "stopped"
        if self.directory.waiting():
            return "created"
        return "paused" if self.record.cgroup_paths and self.cgroup().frozen() else "running"

    def _status_without_init(self) -> str:
        if not self.directory.try_lock():
            return "creating"
        self.directory.unlock()
        record = self.directory.record()  # it may have been created between our reading and our locking
        if not record.pid:
            return "stopped"
        self.record = record
        return self.status()

    def state(self) -> State:
        """Its state as OCI runtime-spec runtime.md#state has it; `pid` is there only while init is."""
        status = self.status()
        record = self.record
        state: State = {
            "ociVersion": record.oci_version,
            "id": record.id,
            "status": status,
            "bundle": record.bundle,
        }
        if status not in ("stopped", "creating"):
            state["pid"] = record.pid
        if record.annotations:
            state["annotations"] = record.annotations
        return state

    def pids(self) -> list[int]:
        """Every process in its cgroup, in the caller's pid namespace."""
        return sorted(self.cgroup().pids())

    def stats(self) -> dict[str, Any]:
        """What its cgroup has counted, in the shape of runc's `events --stats`."""
        return self.cgroup().stats()

    def open_init(self) -> int:
        """A pidfd of init, verified by its start time; the caller closes it.

        Raises:
            InvalidState: init has ended.
        """
        try:
            pidfd = pidfd_open(self.record.pid)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EINVAL):
                raise
        else:
            if self.record.alive():  # the pid may have been another's before the pidfd held it
                return pidfd
            os.close(pidfd)
        raise InvalidState("container not running", have="stopped", want="created, running or paused")

    # --- doing

    def start(self, warn: Callable[[str], None] = lambda _: None) -> None:
        """Let init execute the program, and wait until it does; then run the poststart hooks.

        Args:
            warn: is told of hooks that failed, which the specification says is no reason to.

        Raises:
            InvalidState: it has been started already, or has stopped.
        """
        self.directory.lock()
        try:
            self._release_init()
        finally:
            self.directory.unlock()
        self._run_hooks("poststart", "running", warn)

    def _release_init(self) -> None:
        status = self.status()
        if status in ("running", "paused"):
            raise InvalidState("cannot start an already running container", have=status, want="created")
        if status != "created":
            raise InvalidState(f"cannot start a container that has {status}", have=status, want="created")
        pidfd = self.open_init()
        try:
            try:
                fifo_fd = os.open(FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.directory.fd)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                # Nobody waits: an earlier start was interrupted after init had read its byte.
                os.unlink(FIFO, dir_fd=self.directory.fd)
                message = "cannot start an already running container"
                raise InvalidState(message, have="running", want="created") from None
            try:
                os.write(fifo_fd, b"0")
                self._wait_until_read(fifo_fd, pidfd)
            finally:
                os.close(fifo_fd)
            os.unlink(FIFO, dir_fd=self.directory.fd)
        finally:
            os.close(pidfd)

    def _wait_until_read(self, fifo_fd: int, pidfd: int) -> None:
        """Init's end closes when the program is executed; POLLERR is the end without readers.

        Hooks at startContainer run before that, for as long as their own timeouts allow.
        """
        hooks = (self.config.get("hooks") or {}).get("startContainer")
        poll = select.poll()
        poll.register(fifo_fd, 0)
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(None if hooks else int(_START_WAIT_S * 1000)):
            raise Unavailable(f"container {self.id}: its init does not answer")

    def kill(self, signal: int, *, everyone: bool = False) -> None:
        """Send a signal to init, or to every process of the container.

        Args:
            signal: the number.
            everyone: also when init has ended and others have not (a shared pid namespace).

        Raises:
            InvalidState: there is nothing left to signal.
        """
        if everyone:
            cgroup = self.cgroup()
            if not cgroup.pids():
                raise InvalidState("container not running", have="stopped", want="created, running or paused")
            cgroup.kill(signal)
            return
        pidfd = self.open_init()
        try:
            pidfd_send_signal(pidfd, signal)
        except ProcessLookupError:
            raise InvalidState("container not running", have="stopped", want="created, running or paused") from None
        finally:
            os.close(pidfd)
        if signal == SIGKILL:
            self._thaw_for_death()

    def _thaw_for_death(self) -> None:
        """The v1 freezer holds even a killed process until it is thawed."""
        if self.record.cgroup_paths and (cgroup := self.cgroup()).frozen():
            cgroup.thaw()

    def pause(self) -> None:
        """Freeze every process; InvalidState unless created or running."""
        status = self.status()
        if status not in ("created", "running"):
            raise InvalidState(f"container not running: {status}", have=status, want="created or running")
        self.cgroup().freeze()

    def resume(self) -> None:
        """Thaw; InvalidState unless paused."""
        if not self.frozen():
            raise InvalidState("container not paused", have=self.status(), want="paused")
        self.cgroup().thaw()

    def frozen(self) -> bool:
        """A container paused before its start is "created" to the world, and can be resumed all the same."""
        return self.record.alive() and bool(self.record.cgroup_paths) and self.cgroup().frozen()

    def update(self, resources: LinuxResources) -> None:
        """Change limits now and in the stored configuration; what `resources` does not name stays.

        Raises:
            InvalidState: it has stopped.
            OSError, InvalidArgument, NotSupported: a limit was refused; the stored configuration is unchanged.
        """
        self.directory.lock()
        try:
            status = self.status()
            if status == "stopped":
                raise InvalidState("container not running", have=status, want="created, running or paused")
            config = self.directory.config()
            self.cgroup().apply(resources)
            linux = config.setdefault("linux", {})
            _merge(linux.setdefault("resources", {}), resources)
            self.directory.save(CONFIG, config)
            self._config = config
        finally:
            self.directory.unlock()

    def delete(self, *, force: bool = False, warn: Callable[[str], None] = lambda _: None) -> None:
        """Remove what is left of it: processes in its cgroup, the cgroup, the record; then the poststop hooks run.

        Args:
            force: end it first if it has not stopped.
            warn: is told of poststop hooks that failed.

        Raises:
            InvalidState: it has not stopped, without `force`.
        """
        self.directory.lock()
        try:
            status = self.status() if self.record.pid else "stopped"  # we hold the lock: nobody is creating it
            if status != "stopped":
                if not force:
                    message = f"cannot delete container {self.id} that is not stopped: {status}"
                    raise InvalidState(message, have=status, want="stopped", hint="delete --force kills it first")
                self._end_init()
            if self.record.cgroup_paths:
                cgroup = self.cgroup()
                cgroup.kill(SIGKILL)
                cgroup.destroy()
            self._run_hooks("poststop", "stopped", warn)
            self.directory.remove()
        finally:
            self.directory.unlock()

    def _end_init(self) -> None:
        try:
            pidfd = self.open_init()
        except InvalidState:
            return
        try:
            pidfd_send_signal(pidfd, SIGKILL)
            self._thaw_for_death()
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(int(_KILL_WAIT_S * 1000)):
                raise Unavailable(f"container {self.id}: its init {self.pid} did not die of SIGKILL")
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)

    def wait(self) -> int:
        """Wait for init, which must be a child of the caller (see `create`), and return its exit status.

        Returns:
            0 to 255, or 128 + the signal that ended it.
        """
        return exit_status(os.waitpid(self.pid, 0)[1])

    def _run_hooks(self, kind: str, status: str, warn: Callable[[str], None]) -> None:
        hooks = self.config.get("hooks") or {}
        if not hooks.get(kind):
            return
        from hutch.runtime.hooks import run_hooks

        state = self.state()
        state["status"] = status
        for text in run_hooks(hooks, kind, state):
            warn(text)


def remove_remains(state_dir: str, container_id: str) -> bool:
    """Remove a directory without a readable record, which a crash left behind; False if there is no directory.

    Raises:
        InvalidArgument: the id is outside the grammar.
    """
    try:
        directory = Directory.open(state_dir, container_id)
    except ContainerNotFound:
        return False
    with directory:
        if not directory.try_lock():
            raise InvalidState(f"container {container_id} is being created", have="creating", want="stopped")
        directory.remove()
    return True


def _merge(stored: Any, changes: Any) -> None:
    """Lay `changes` over `stored`, object by object; a list replaces a list."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(stored.get(key), dict):
            _merge(stored[key], value)
        else:
            stored[key] = value
