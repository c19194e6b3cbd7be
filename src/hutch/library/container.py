"""`Container`: one container, and what can be done to it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from hutch.engine import lifecycle, values
from hutch.engine.containers import ContainerRecord
from hutch.engine.engine import Engine
from hutch.engine.undo import Undo
from hutch.errors import ContainerNotFound
from hutch.library.cancelling import abortable, is_cancelled
from hutch.library.files import Files
from hutch.library.options import limits as changed
from hutch.library.processes import Processes
from hutch.library.snapshots import Snapshot
from hutch.library.streams import Process
from hutch.linux.seqpacket import Channel


class Container(Files, Processes):
    """A container. As a context manager it is killed and removed at the end, also if the caller is killed.

    What it knows is of the last `reload`, or of when it was found; `status` and `attrs` are asked for each time.

    Attributes:
        id: 64 hexadecimal digits.
        name: as given, or a random one.
        labels: key → value.
        image: what it was made from, as it was called then.
    """

    def __init__(self, engine: Engine, record: ContainerRecord) -> None:
        super().__init__(engine, record)
        self._lifeline: Channel | None = None
        self._held = False
        self._lock = threading.Lock()

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
