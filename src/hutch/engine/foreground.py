"""One run of a prepared container in the foreground, and the truth about how it ended.

hutch ──fork──▶ guardian           waits for hutch's end; cleans up if that comes too early (SIGKILL)
  └─ create ─▶ start ─▶ relay signals and terminal ─▶ wait ─▶ delete ─▶ record
"""

from __future__ import annotations

import os

from hutch.errors import ContainerNotFound, ContainerSetupFailed, HutchError, NoUserNamespaces
from hutch.linux.process import set_child_subreaper
from hutch.linux.seqpacket import Channel, pair
from hutch.runtime import signals
from hutch.runtime.relay import SignalPipe, foreground
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from hutch.engine.engine import Engine
    from hutch.engine.options import RunOptions
    from hutch.engine.prepare import Prepared
    from hutch.engine.undo import Undo
    from hutch.runtime.container import Container
    from hutch.runtime.relay import Terminal
    from hutch.runtime.steps import Explain

_KILLED = 137


def run(
    engine: Engine,
    prepared: Prepared,
    options: RunOptions,
    undo: Undo,
    *,
    terminal: Callable[[int], Terminal],
    warn: Callable[[str], None],
    explain: Explain | None = None,
) -> int:
    """Create, start and wait for the container; its record tells how it ended, or it is gone with --rm.

    Args:
        engine: whose runtime state it is kept in.
        prepared: what to run; stays locked until the end.
        options: interactive, tty and rm are read.
        undo: takes the container's files away again.
        terminal: makes the relay for a pseudo-terminal's descriptor.
        warn: told what is not as asked for and no reason to fail.
        explain: told of each step.

    Returns:
        The exit status of the container's process.

    Raises:
        HutchError: it could not be created or started; exit_code is 126 or 127 when the command is to blame.
    """
    set_child_subreaper(True)
    run_once = _Run(engine, prepared, options, undo, warn)
    with SignalPipe() as pipe, Guardian(run_once.clean_up_after_death):
        try:
            return run_once.to_the_end(pipe, terminal, explain)
        except HutchError as error:
            run_once.failed(error)
            raise
        finally:
            run_once.finish()


class _Run:
    def __init__(
        self, engine: Engine, prepared: Prepared, options: RunOptions, undo: Undo, warn: Callable[[str], None]
    ) -> None:
        self._engine, self._prepared, self._options, self._undo = engine, prepared, options, undo
        self._warn = warn
        self._record = prepared.directory.record
        self._container: Container | None = None

    def to_the_end(self, pipe: SignalPipe, terminal: Callable[[int], Terminal], explain: Explain | None) -> int:
        console: tuple[Channel, Channel] | None = pair() if self._options.tty else None
        try:
            container = self._create(console[1].fileno() if console else None, explain)
            self._container = container
            ptmx_fd = _received(console[0]) if console else -1
            status = foreground(container.pid, pipe, ptmx_fd, lambda: self._start(container), terminal=terminal)
        finally:
            for channel in console or ():
                channel.close()
        self._ended(status)
        return status

    def _create(self, console_fd: int | None, explain: Explain | None) -> Container:
        from hutch.runtime.create import create

        directory = self._prepared.directory
        stdin_fd = 0 if self._options.interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return create(
                self._prepared.spec,
                container_id=directory.record.id,
                bundle=directory.path,
                state_dir=self._engine.runtime_state,
                stdio=(stdin_fd, 1, 2),
                console_socket=console_fd,
                root_mounts=self._prepared.root_mounts,
                explain=explain,
                warn=self._warn,
            )
        finally:
            if stdin_fd:
                os.close(stdin_fd)

    def _start(self, container: Container) -> None:
        self._record.status, self._record.started = "running", now()
        self._prepared.directory.save(durable=not self._options.rm)
        container.start()

    def _ended(self, status: int) -> None:
        record = self._record
        record.status, record.finished, record.exit_code = "exited", now(), status
        if self._container is not None:
            record.oom_killed = _oom_killed(self._container)

    def failed(self, error: HutchError) -> None:
        """Note why the container did not run, and whose fault that was."""
        if isinstance(error, ContainerSetupFailed):
            error.exit_code = exit_code_of(error)
            if error.step == "create user namespace":
                error.hint = NoUserNamespaces.because(error.errno).hint
        record = self._record
        record.status, record.finished, record.exit_code = "exited", now(), error.exit_code
        record.error = str(error)[:4096]

    def finish(self) -> None:
        """Take the runtime's part away, then the record with --rm, else write it."""
        if self._container is not None:
            self._container.delete(force=True)
            self._container.close()
        if not self._options.rm:
            self._keep()
            self._undo.keep()
            self._prepared.directory.close()

    def _keep(self) -> None:
        self._prepared.directory.save()
        self._engine.containers.finished(self._record.id)

    def clean_up_after_death(self) -> None:
        """In the guardian: hutch was killed, so nobody relays or waits any more; end the container."""
        from hutch.runtime.container import Container

        try:
            self._container = Container.load(self._engine.runtime_state, self._record.id)
            self._container.delete(force=True)
        except ContainerNotFound:
            pass
        record = self._record
        record.status, record.finished, record.exit_code = "exited", now(), _KILLED
        record.error = "hutch was killed while the container ran in its foreground"
        if self._options.rm:
            with self._undo:
                return
        self._keep()


def _received(channel: Channel) -> int:
    """The pseudo-terminal that init sends; the caller closes it."""
    _, fds = channel.recv(4096)
    if len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise ContainerSetupFailed("receive the terminal", 0, detail="it was not sent")
    return fds[0]


def _oom_killed(container: Container) -> bool:
    try:
        return container.cgroup().oom_kills() > 0
    except (OSError, HutchError):  # without a cgroup of its own there is nothing to ask
        return False


def exit_code_of(error: ContainerSetupFailed) -> int:
    """Docker's status for a container that could not be set up: 127 no such command, 126 not executable, else 125."""
    import errno

    if not error.step.startswith(("execute", "find program")):
        return 125
    if error.errno in (errno.ENOENT, errno.ENOTDIR) or "not found" in str(error):
        return 127
    return 126 if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOEXEC, errno.ELOOP) else 125


class Guardian:
    """A forked process that outlives this one by as much as it takes to clean up; a context manager.

    It waits on a pipe. A byte means that all is well; the end of the pipe without one, that this process was killed.

    Args:
        clean_up: what to do then, in the guardian.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up

    def __enter__(self) -> Self:
        read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._write_fd)
            _guard(read_fd, self._clean_up)
        os.close(read_fd)
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._write_fd, b".")
        os.close(self._write_fd)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:  # the relay reaps every orphan, and it may have ended before
            pass


def _guard(read_fd: int, clean_up: Callable[[], None]) -> None:
    status = 1
    try:
        os.setsid()  # the terminal's signals are not for it
        for number in (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM):
            signals.handle(number, signals.SIG_IGN)
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null_fd, fd)  # a reader of our output must see its end when hutch is gone
        if not os.read(read_fd, 1):
            clean_up()
        status = 0
    finally:
        os._exit(status)
