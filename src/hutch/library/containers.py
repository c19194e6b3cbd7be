"""`engine.containers`: making, finding and sweeping containers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal, Unpack, overload

from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.engine.options import RunOptions
from hutch.engine.prepare import Prepared, prepare
from hutch.engine.undo import Undo
from hutch.errors import ContainerError, ContainerNotFound, HutchError
from hutch.library.cancelling import check
from hutch.library.container import Container
from hutch.library.filtering import container_matcher, flat
from hutch.library.images import Teller
from hutch.library.keywords import CreateKeywords, Words
from hutch.library.options import run_options
from hutch.library.streams import OUTPUT_LIMIT, HutchWarning, Process, warn

Filters = Mapping[str, Any]


class Containers:
    """The containers of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @overload
    def run(
        self, image: str, command: Words | None = None, *, detach: Literal[True], **options: Unpack[CreateKeywords]
    ) -> Container: ...

    @overload
    def run(
        self,
        image: str,
        command: Words | None = None,
        *,
        detach: Literal[False] = False,
        stdout: bool = True,
        stderr: bool = False,
        stream: Literal[True],
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = OUTPUT_LIMIT,
        **options: Unpack[CreateKeywords],
    ) -> Process: ...

    @overload
    def run(
        self,
        image: str,
        command: Words | None = None,
        *,
        detach: Literal[False] = False,
        stdout: bool = True,
        stderr: bool = False,
        stream: Literal[False] = False,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = OUTPUT_LIMIT,
        **options: Unpack[CreateKeywords],
    ) -> bytes: ...

    def run(
        self,
        image: str,
        command: Words | None = None,
        *,
        detach: bool = False,
        stdout: bool = True,
        stderr: bool = False,
        stream: bool = False,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = OUTPUT_LIMIT,
        **options: Unpack[CreateKeywords],
    ) -> Container | Process | bytes:
        """Make a container and start it.

        Args:
            image: a reference, which is pulled if it is missing; ``@host``; or "" with ``rootfs``.
            command: words, or a string that is split as a shell would.
            detach: return as soon as it runs. Otherwise it is waited for, and it is killed and removed if the caller is
                killed or interrupted meanwhile.
            stdout: return what it writes there.
            stderr: the same; both are in the order in which they came.
            stream: return the process, to iterate over, as soon as it runs; the container ends with it.
            stdin: what it reads; the container is interactive then.
            timeout: seconds; then it is killed.
            output_limit: most bytes of output to keep.
            options: docker-py's, see `CreateKeywords`; ``remove=True`` removes it at its end.

        Returns:
            The container if detached, the process if streamed, else what it wrote.

        Raises:
            TypeError: no such option.
            ContainerError: it ended with another status than 0, and was neither detached nor streamed.
            ExecTimeout, OutputTooLarge: it was killed for that.
            HutchError: it could not be made or started; see `hutch.errors`.
        """
        if stdin is not None:
            options["stdin_open"] = True
        wanted = run_options(image, command, options)
        with Undo() as undo:
            prepared = self._prepare(wanted, undo)
            record = prepared.directory.record
            container = Container(self._engine, record)
            attach = {"stdin": stdin is not None, "stdout": not detach, "stderr": not detach}
            channel = lifecycle.start(self._engine, prepared.directory, {"attach": attach, "lifeline": True})
            assert channel is not None, "the lock was ours"
            undo.keep()
        # Until it is let go, the container ends with this connection: whatever happens to us, nobody is left behind.
        process = Process(channel, stdin=stdin is not None, keep=True)
        try:
            if detach or stream:
                process.await_start()
            if detach:
                process.release()
                process.close()
                return container
            if stream:
                return process.streaming(stdin)
            result = process.communicate(stdin, timeout=timeout, limit=output_limit)
        except HutchError:
            # In front of the caller, who may want to use the name again.
            process.close()
            self._discard(record.id)
            raise
        except BaseException:
            process.close()
            raise
        process.close()
        if result.exit_code != 0:
            raise ContainerError(record.name, result.exit_code, record.command, record.image, result.stderr)
        if stdout and stderr:
            return result.output
        return result.stdout if stdout else result.stderr if stderr else b""

    def create(self, image: str, command: Words | None = None, **options: Unpack[CreateKeywords]) -> Container:
        """Make a container without starting it; see `run`."""
        wanted = run_options(image, command, options)
        with Undo() as undo:
            prepared = self._prepare(wanted, undo)
            prepared.directory.record.status = "created"
            prepared.directory.save()
            undo.keep()
        prepared.directory.close()
        return Container(self._engine, prepared.directory.record)

    def _discard(self, container_id: str) -> None:
        try:
            lifecycle.remove(self._engine, container_id, force=True, volumes=True)
        except ContainerNotFound:
            pass  # its monitor was faster

    def _prepare(self, wanted: RunOptions, undo: Undo) -> Prepared:
        check()
        prepared = prepare(
            self._engine,
            wanted,
            console=(24, 80) if wanted.tty else None,
            undo=undo,
            pulling=lambda _name: nullcontext(Teller(None)),
        )
        undo.add(prepared.directory.close)
        check()
        for text in prepared.warnings:
            warn(text)
        return prepared

    def get(self, name: str) -> Container:
        """A container by name, id or an unambiguous beginning of an id.

        Raises:
            ContainerNotFound: there is none.
        """
        with self._engine.containers.find(name) as directory:
            return Container(self._engine, directory.record)

    def list(
        self,
        all: bool = False,  # noqa: A002
        *,
        filters: Filters | None = None,
        limit: int | None = None,
    ) -> list[Container]:
        """Containers, the newest first.

        Args:
            all: also those that do not run.
            filters: Docker's: ``{"status": "exited", "label": ["a", "b=c"]}``; one for a status is for all of these.
            limit: most of them.
        """
        for problem in lifecycle.sweep(self._engine):
            warnings.warn(str(problem), HutchWarning, stacklevel=2)
        matches, everything = container_matcher(self._engine, flat(filters))
        found = []
        for directory in self._engine.containers.all():
            with directory:
                try:
                    status = lifecycle.status_of(self._engine, directory)
                except ContainerNotFound:
                    continue
                if (all or everything or status in ("running", "paused", "restarting")) and matches(directory, status):
                    found.append(Container(self._engine, directory.record))
            if limit is not None and len(found) >= limit:
                break
        return found

    def prune(self, *, filters: Filters | None = None) -> dict[str, Any]:
        """Remove containers that do not run.

        Args:
            filters: ``until``, ``label``, ``label!``.

        Returns:
            ``ContainersDeleted``: ids; ``SpaceReclaimed``: bytes.
        """
        deleted, freed = [], 0
        matches, _ = container_matcher(self._engine, flat(filters), prune=True)
        for directory in self._engine.containers.all():
            with directory:
                try:
                    status = lifecycle.status_of(self._engine, directory)
                    record = directory.record
                    if status not in ("created", "exited", "dead") or not matches(directory, status):
                        continue
                    size = _size(self._engine, record.id)
                    lifecycle.remove(self._engine, record.id)
                except HutchError:
                    continue  # it was removed, or started, in between
                deleted.append(record.id)
                freed += size
        return {"ContainersDeleted": deleted, "SpaceReclaimed": freed}


def _size(engine: Engine, container_id: str) -> int:
    try:
        return engine.snapshots.usage(container_id).size
    except HutchError:
        return 0
