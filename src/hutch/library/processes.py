"""Processes of a container: more of them, those it has, what they wrote and what they take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, overload

from hutch.engine import lifecycle
from hutch.errors import ContainerNotFound, InvalidState
from hutch.library import logs
from hutch.library.handle import Handle
from hutch.library.keywords import Table, Words
from hutch.library.options import environment as variables
from hutch.library.options import words
from hutch.library.streams import OUTPUT_LIMIT, ExecResult, Process
from hutch.runtime.container import Container as RunningContainer


class Processes(Handle):
    """The part of `Container` that is about processes."""

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
