"""`Container`: one container, and what can be done to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, overload

from hutch.engine import lifecycle, values
from hutch.engine.containers import ContainerDirectory, ContainerRecord
from hutch.engine.engine import Engine
from hutch.engine.undo import Undo
from hutch.errors import ContainerNotFound, InvalidState
from hutch.library import logs
from hutch.library.cancelling import abortable, is_cancelled
from hutch.library.files import Files
from hutch.library.keywords import Table, Words
from hutch.library.options import environment as variables
from hutch.library.options import limits as changed
from hutch.library.options import words
from hutch.library.snapshots import Snapshot
from hutch.library.streams import OUTPUT_LIMIT, ExecResult, Process
from hutch.linux.seqpacket import Channel
from hutch.runtime.container import Container as RunningContainer


class Container(Files):
    """A container. As a context manager it is killed and removed at the end, also if the caller is killed.

    What it knows is of the last `reload`, or of when it was found; `status` and `attrs` are asked for each time.

    Attributes:
        id: 64 hexadecimal digits.
        name: as given, or a random one.
        labels: key → value.
        image: what it was made from, as it was called then.
    """

    def __init__(self, engine: Engine, record: ContainerRecord) -> None:
        self._engine, self._record = engine, record
        self._lifeline: Channel | None = None
        self._held = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id and other._engine.root == self._engine.root

    def __hash__(self) -> int:
        return hash(self.id)

    # -- what it is

    @property
    def id(self) -> str:
        """Its id."""
        return self._record.id

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self._record.id[:12]

    @property
    def name(self) -> str:
        """Its name, as of the last `reload`."""
        return self._record.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels and its image's."""
        return dict(self._record.labels)

    @property
    def image(self) -> str:
        """The image's name as it was given."""
        return self._record.image

    @property
    def status(self) -> str:
        """created, running, paused, restarting, removing, exited or dead, as it is now.

        Raises:
            ContainerNotFound: it was removed.
        """
        with self._directory() as directory:
            return lifecycle.status_of(self._engine, directory)

    @property
    def attrs(self) -> dict[str, Any]:
        """Everything, in the shape of `docker inspect`, as it is now."""
        from hutch.engine.inspecting import inspect_container

        return inspect_container(self._engine, self.id)

    def reload(self) -> None:
        """Read again what others may have changed.

        Raises:
            ContainerNotFound: it was removed.
        """
        with self._directory() as directory:
            self._record = directory.record

    def _directory(self) -> ContainerDirectory:
        return self._engine.containers.find(self.id)

    # -- its life

    def start(self) -> None:
        """Start it; one that runs is left as it is.

        Raises:
            HutchError: it could not be started.
        """
        directory = self._directory()
        lifecycle.status_of(self._engine, directory)
        channel = lifecycle.start(self._engine, directory, {"lifeline": self._held})
        if channel is None:
            return
        try:
            with abortable(channel.shutdown):
                lifecycle.await_start(channel)
        except BaseException:
            channel.close()
            if is_cancelled():
                lifecycle.stop(self._engine, self.id, timeout_s=0)
            raise
        self._hold(channel if self._held else None)
        if not self._held:
            channel.close()

    def stop(self, *, timeout: int | None = None, signal: str | int | None = None) -> None:
        """Ask it to end, and kill it if it has not after a while; one that does not run is left as it is.

        Args:
            timeout: seconds, -1 for ever; None is the container's own, or 10.
            signal: instead of the container's own.
        """
        number = None if signal is None else values.parse_signal(str(signal))
        lifecycle.stop(self._engine, self.id, signal=number, timeout_s=timeout)

    def restart(self, *, timeout: int | None = None) -> None:
        """Stop it and start it again; one that does not run is started.

        Raises:
            HutchError: it could not be started again.
        """
        lifecycle.restart(self._engine, self.id, timeout_s=timeout)
        if self._held:
            self._hold(self._new_lifeline())

    def kill(self, signal: str | int = "KILL") -> None:
        """Send its first process a signal.

        Raises:
            InvalidState: it does not run.
        """
        lifecycle.kill(self._engine, self.id, values.parse_signal(str(signal)))

    def pause(self) -> None:
        """Freeze every process of it."""
        lifecycle.pause(self._engine, self.id)

    def unpause(self) -> None:
        """Let it go on."""
        lifecycle.unpause(self._engine, self.id)

    def wait(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it does not run.

        Args:
            timeout: seconds.

        Returns:
            ``StatusCode``, and ``Error``: None.

        Raises:
            TimeoutError: it runs on.
        """
        with self._directory() as directory:
            lifecycle.status_of(self._engine, directory)
            channel = lifecycle.connect(self._engine, self.id, {"op": "attach"})
            if channel is None:
                directory.refresh()
                return {"StatusCode": max(0, directory.record.exit_code), "Error": None}
        with Process(channel) as process:
            return {"StatusCode": process.await_end(timeout), "Error": None}

    def rename(self, name: str) -> None:
        """Give it another name.

        Raises:
            AlreadyExists: it is taken.
        """
        lifecycle.rename(self._engine, self.id, name)
        self.reload()

    def update(self, /, **limits: Any) -> None:
        """Change its limits and its restart policy, while it runs or not.

        Args:
            limits: those of `run` that can be changed: ``mem_limit`` or ``memory``, ``memswap_limit``,
                ``mem_reservation``, ``cpus`` or ``nano_cpus``, ``cpu_shares``, ``cpu_period``, ``cpu_quota``,
                ``cpuset_cpus``, ``cpuset_mems``, ``pids_limit``, ``blkio_weight``, ``restart_policy``.

        Raises:
            TypeError: another one.
            InvalidArgument: a limit that cannot be.
        """
        from hutch.engine.updating import update

        changes = changed(limits)
        restart = changes.pop("restart", None)
        update(self._engine, self.id, changes, restart)
        self.reload()

    def remove(self, *, force: bool = False, v: bool = False) -> None:
        """Remove it.

        Args:
            force: kill it first if it runs.
            v: its anonymous volumes too.

        Raises:
            InvalidState: it runs.
        """
        lifecycle.remove(self._engine, self.id, force=force, volumes=v)

    # -- processes in it

    @overload
    def exec(
        self,
        command: Words,
        *,
        stdin: bytes | bool | None = None,
        timeout: float | None = None,
        stream: Literal[True],
        detach: Literal[False] = False,
        tty: bool = False,
        user: str | int = "",
        environment: Table | None = None,
        cwd: str = "",
        privileged: bool = False,
        output_limit: int = OUTPUT_LIMIT,
    ) -> Process: ...

    @overload
    def exec(
        self,
        command: Words,
        *,
        stdin: bytes | bool | None = None,
        timeout: float | None = None,
        stream: Literal[False] = False,
        detach: bool = False,
        tty: bool = False,
        user: str | int = "",
        environment: Table | None = None,
        cwd: str = "",
        privileged: bool = False,
        output_limit: int = OUTPUT_LIMIT,
    ) -> ExecResult: ...

    def exec(
        self,
        command: Words,
        *,
        stdin: bytes | bool | None = None,
        timeout: float | None = None,
        stream: bool = False,
        detach: bool = False,
        tty: bool = False,
        user: str | int = "",
        environment: Table | None = None,
        cwd: str = "",
        privileged: bool = False,
        output_limit: int = OUTPUT_LIMIT,
    ) -> ExecResult | Process:
        """Run one more process in it.

        Args:
            command: words, or a string that is split as a shell would.
            stdin: what it reads; with `stream`, True keeps it open for `Process.write`.
            timeout: seconds; then it is killed with all it started.
            stream: return at once; iterate over the process for what it writes.
            detach: leave it running, and return with exit code 0 as soon as it runs.
            tty: give it a terminal.
            user: name or id, perhaps ``:group``.
            environment: variables besides the container's.
            cwd: working directory.
            privileged: give it every capability.
            output_limit: most bytes of output to keep.

        Raises:
            InvalidState: the container does not run.
            ExecTimeout, OutputTooLarge: it was killed for that.
            HutchError: it could not be started: no such program, no such user.
        """
        if detach and (stream or stdin):
            raise TypeError("detach goes with neither stream nor stdin")
        if stream and timeout is not None:
            raise TypeError("timeout: give it to Process.chunks or Process.wait")
        arguments = words(command)
        if not arguments:
            raise TypeError("command: there is none")
        attach = {"stdin": bool(stdin) or stdin == b"", "stdout": not detach, "stderr": not detach}
        request = {
            "args": list(arguments),
            "env": list(variables(environment)),
            "cwd": cwd,
            "user": str(user),
            "tty": tty,
            "privileged": privileged,
            "detach": detach,
            "attach": {**attach, "lifeline": not detach},
            "size": [24, 80] if tty else None,
        }
        process = Process(lifecycle.execute(self._engine, self.id, request), stdin=bool(attach["stdin"]))
        if stream:
            return process.streaming(stdin if isinstance(stdin, bytes) else None)
        with process:
            data = stdin if isinstance(stdin, bytes) else None
            return process.communicate(data, timeout=timeout, limit=output_limit)

    def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """Attach to its own process: iterate over what comes back for what it writes from now on.

        Raises:
            InvalidState: it does not run.
        """
        with self._directory() as directory:
            status = lifecycle.status_of(self._engine, directory)
        request = {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}
        channel = lifecycle.connect(self._engine, self.id, request) if status in ("running", "paused") else None
        if channel is None:
            raise InvalidState(f"container {self.name}: is not running", have=status, want="running")
        return Process(channel, stdin=stdin)

    # -- what it wrote

    @overload
    def logs(
        self,
        *,
        stream: Literal[False] = False,
        follow: Literal[False] = False,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
        tail: int | Literal["all"] = "all",
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> bytes: ...

    @overload
    def logs(
        self,
        *,
        stream: bool = True,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
        tail: int | Literal["all"] = "all",
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> Iterator[bytes]: ...

    def logs(
        self,
        *,
        stream: bool = False,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
        tail: int | Literal["all"] = "all",
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> bytes | Iterator[bytes]:
        """What it wrote.

        Args:
            stream: return an iterator over lines.
            follow: an iterator that waits for more until the container ends.
            stdout: what it wrote there.
            stderr: what it wrote there.
            timestamps: begin each line with when it was written.
            tail: this many lines from the end.
            since: from a moment: a datetime, seconds since 1970, ``"10m"`` ago.
            until: up to a moment.

        Raises:
            NotSupported: the log driver's logs cannot be read.
        """
        lines = logs.lines(
            self._engine,
            self._directory(),
            follow=follow,
            streams=(1,) * stdout + (2,) * stderr,
            timestamps=timestamps,
            tail=tail,
            since=since,
            until=until,
        )
        return lines if stream or follow else b"".join(lines)

    # -- what it takes

    def stats(self) -> dict[str, int]:
        """What it has used and uses now.

        Returns:
            ``nanos`` (when, of the monotonic clock), ``cpu_nanos``, ``memory`` and its ``limit``, ``received``,
            ``sent``, ``read``, ``written`` (bytes), ``pids``.

        Raises:
            InvalidState: it does not run.
        """
        from hutch.engine.counters import read_counters

        with self._running() as running:
            return read_counters(running).asdict()

    def top(self, ps_args: str = "") -> dict[str, Any]:
        """Its processes: ``Titles`` and ``Processes``, pids as the host has them.

        Args:
            ps_args: of ps; empty is ``-ef``.

        Raises:
            InvalidState: it does not run.
        """
        from hutch.engine.processes import table

        with self._running() as running:
            titles, *rows = table(running.pids(), ps_args.split())
        return {"Titles": titles, "Processes": rows}

    def _running(self) -> RunningContainer:
        try:
            return RunningContainer.load(self._engine.runtime_state, self.id)
        except ContainerNotFound:
            raise InvalidState(f"container {self.name}: is not running", have=self.status, want="running") from None

    # -- copies of its files

    def snapshot(self, name: str = "") -> Snapshot:
        """Keep its files as they are now: what it has changed since it was made, without volumes.

        A container that runs stands still meanwhile.

        Args:
            name: empty for a random one.
        """
        from hutch.engine import snapshots

        with self._directory() as directory:
            return Snapshot(self._engine, self.id, snapshots.take(self._engine, directory, name))

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, oldest first."""
        from hutch.engine import snapshots

        with self._directory() as directory:
            return [Snapshot(self._engine, self.id, name) for name in snapshots.names(self._engine, directory)]

    def reset(self, snapshot: Snapshot | str) -> None:
        """Give it the files of one of its snapshots. If it runs, it is killed and started again with them.

        Raises:
            NotFound: there is no such snapshot.
        """
        from hutch.engine import snapshots

        with self._directory() as directory:
            name = snapshot if isinstance(snapshot, str) else snapshot.name
            snapshots.reset(self._engine, directory, name)

    def clone(self, name: str = "", *, snapshot: Snapshot | str = "", start: bool | None = None) -> Container:
        """A new container like it: the same image and options, and a copy of its files. Nothing in memory is copied.

        Args:
            name: of the new one; empty for a random one.
            snapshot: of which the files are; the files as they are now if empty.
            start: start the new one; None starts it if this one runs.
        """
        from hutch.engine import snapshots

        with self._directory() as directory, Undo() as undo:
            running = lifecycle.status_of(self._engine, directory) == "running" if start is None else start
            chosen = snapshot if isinstance(snapshot, str) else snapshot.name
            prepared = snapshots.clone(self._engine, directory, undo, name=name, snapshot=chosen)
            prepared.directory.record.status = "created"
            prepared.directory.save()
            undo.keep()
        prepared.directory.close()
        twin = Container(self._engine, prepared.directory.record)
        if running:
            twin.start()
        return twin

    # -- with

    def __enter__(self) -> Self:
        self._held = True
        self._hold(self._new_lifeline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        try:
            self.remove(force=True, v=True)
        except ContainerNotFound:
            pass
        finally:
            self._hold(None)

    def _new_lifeline(self) -> Channel | None:
        """A connection whose end is the container's end; None if it does not run."""
        return lifecycle.connect(self._engine, self.id, {"op": "attach", "lifeline": True})

    def _hold(self, channel: Channel | None) -> None:
        with self._lock:
            before, self._lifeline = self._lifeline, channel
        if before is not None:
            with Process(before) as old:
                old.release()
