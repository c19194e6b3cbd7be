"""`hutch.aio`: the same names for asyncio.

    async with hutch.aio.Engine() as engine:
        async with await engine.containers.run("debian:bookworm", "sleep inf", detach=True) as c:
            result = await c.exec("true", timeout=5)
            async for line in c.logs(follow=True): ...

Calls run in threads, and what comes bit by bit is an asynchronous iterator. A call that is cancelled ends what it has
started, and its thread, before the cancellation goes on; `stop`, `restart`, `reset` and `remove` are finished first.
`status` and `attrs` ask the store, which is quick, and are plain properties.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from hutch.library.container import Container as _Container
from hutch.library.containers import Containers as _Containers
from hutch.library.engine import Engine as _Engine
from hutch.library.images import Images as _Images
from hutch.library.keywords import CreateKeywords, Table, Words
from hutch.library.snapshots import Snapshot
from hutch.library.streams import OUTPUT_LIMIT, ExecResult
from hutch.library.streams import Process as _Process
from hutch.library.threads import call, stream
from hutch.library.volumes import Volumes as _Volumes

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


def _later(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The same method, to be awaited."""

    async def run(self: Any, /, *args: P.args, **kw: P.kwargs) -> T:
        return await call(lambda: method(self.sync, *args, **kw))

    run.__name__, run.__doc__ = method.__name__, method.__doc__
    return run


class Process:
    """See `hutch.Process`. Iterate over it with `async for`.

    Attributes:
        sync: the process for who may block.
    """

    def __init__(self, sync: _Process) -> None:
        self.sync = sync

    @property
    def exit_code(self) -> int | None:
        """None until it has ended."""
        return self.sync.exit_code

    @property
    def pid(self) -> int:
        """In the host's namespace."""
        return self.sync.pid

    def __aiter__(self) -> AsyncIterator[bytes]:
        """What it writes, as it comes."""
        return stream(lambda: iter(self.sync))

    def chunks(self, *, timeout: float | None = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """Pairs of standard output and error, one of them empty."""
        return stream(lambda: self.sync.chunks(timeout=timeout))

    wait = _later(_Process.wait)
    write = _later(_Process.write)
    close_stdin = _later(_Process.close_stdin)
    resize = _later(_Process.resize)
    signal = _later(_Process.signal)
    kill = _later(_Process.kill)
    close = _later(_Process.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync.close()


class Container:
    """See `hutch.Container`.

    Attributes:
        sync: the container for who may block.
    """

    def __init__(self, sync: _Container) -> None:
        self.sync = sync

    def __repr__(self) -> str:
        return repr(self.sync)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.sync == self.sync

    def __hash__(self) -> int:
        return hash(self.sync)

    @property
    def id(self) -> str:
        """Its id."""
        return self.sync.id

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self.sync.short_id

    @property
    def name(self) -> str:
        """Its name, as of the last `reload`."""
        return self.sync.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels and its image's."""
        return self.sync.labels

    @property
    def image(self) -> str:
        """The image's name as it was given."""
        return self.sync.image

    @property
    def status(self) -> str:
        """What it does now."""
        return self.sync.status

    @property
    def attrs(self) -> dict[str, Any]:
        """Everything, in the shape of `docker inspect`."""
        return self.sync.attrs

    reload = _later(_Container.reload)
    start = _later(_Container.start)
    stop = _later(_Container.stop)
    restart = _later(_Container.restart)
    kill = _later(_Container.kill)
    pause = _later(_Container.pause)
    unpause = _later(_Container.unpause)
    wait = _later(_Container.wait)
    rename = _later(_Container.rename)
    update = _later(_Container.update)
    remove = _later(_Container.remove)
    stats = _later(_Container.stats)
    top = _later(_Container.top)
    put = _later(_Container.put)
    get = _later(_Container.get)
    put_archive = _later(_Container.put_archive)
    diff = _later(_Container.diff)
    commit = _later(_Container.commit)
    snapshot = _later(_Container.snapshot)
    snapshots = _later(_Container.snapshots)
    reset = _later(_Container.reset)

    async def clone(self, name: str = "", *, snapshot: Snapshot | str = "", start: bool | None = None) -> Container:
        """A new container like it."""
        twin = await call(
            lambda: self.sync.clone(name, snapshot=snapshot, start=start), lambda made: made.remove(force=True, v=True)
        )
        return Container(twin)

    @overload
    async def exec(
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
    async def exec(
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

    async def exec(self, command: Words, **options: Any) -> ExecResult | Process:
        """Run one more process in it; cancelled, it is killed."""
        found: Any = await call(lambda: self.sync.exec(command, **options), _close)
        return Process(found) if isinstance(found, _Process) else found

    async def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """Attach to its own process."""
        return Process(await call(lambda: self.sync.attach(stdin=stdin, stdout=stdout, stderr=stderr), _close))

    def logs(
        self,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
        tail: int | Literal["all"] = "all",
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> AsyncIterator[bytes]:
        """The lines it wrote, always as an iterator."""
        return stream(
            lambda: self.sync.logs(
                stream=True,
                follow=follow,
                stdout=stdout,
                stderr=stderr,
                timestamps=timestamps,
                tail=tail,
                since=since,
                until=until,
            )
        )

    def export(self) -> AsyncIterator[bytes]:
        """A tar of its file system, in chunks."""
        return stream(self.sync.export)

    async def get_archive(self, path: str) -> tuple[AsyncIterator[bytes], dict[str, Any]]:
        """A tar of a path, in chunks, and what the path is."""
        chunks, described = await call(lambda: self.sync.get_archive(path))
        return stream(lambda: chunks), described

    async def __aenter__(self) -> Self:
        await call(self.sync.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(lambda: self.sync.__exit__(kind, error, trace))


class Containers:
    """See `hutch.library.containers.Containers`."""

    def __init__(self, sync: _Containers) -> None:
        self.sync = sync

    @overload
    async def run(
        self, image: str, command: Words | None = None, *, detach: Literal[True], **options: Unpack[CreateKeywords]
    ) -> Container: ...

    @overload
    async def run(
        self,
        image: str,
        command: Words | None = None,
        *,
        stdout: bool = True,
        stderr: bool = False,
        stream: Literal[True],
        stdin: bytes | None = None,
        **options: Unpack[CreateKeywords],
    ) -> Process: ...

    @overload
    async def run(
        self,
        image: str,
        command: Words | None = None,
        *,
        stdout: bool = True,
        stderr: bool = False,
        stream: Literal[False] = False,
        stdin: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = OUTPUT_LIMIT,
        **options: Unpack[CreateKeywords],
    ) -> bytes: ...

    async def run(self, image: str, command: Words | None = None, **options: Any) -> Container | Process | bytes:
        """Make a container and start it; cancelled, it is killed and removed."""
        found: Container | Process | bytes = _wrapped(
            await call(lambda: self.sync.run(image, command, **options), _discard)
        )
        return found

    async def create(self, image: str, command: Words | None = None, **options: Unpack[CreateKeywords]) -> Container:
        """Make a container without starting it."""
        return Container(await call(lambda: self.sync.create(image, command, **options), _discard))

    async def get(self, name: str) -> Container:
        """A container by name or id."""
        return Container(await call(lambda: self.sync.get(name)))

    async def list(
        self,
        all: bool = False,  # noqa: A002
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Sequence[Container]:
        """Containers, the newest first."""
        return [Container(one) for one in await call(lambda: self.sync.list(all, filters=filters, limit=limit))]

    prune = _later(_Containers.prune)


class Images:
    """See `hutch.library.images.Images`; an `Image` is the same as without asyncio."""

    def __init__(self, sync: _Images) -> None:
        self.sync = sync

    pull = _later(_Images.pull)
    get = _later(_Images.get)
    load = _later(_Images.load)
    import_ = _later(_Images.import_)
    tag = _later(_Images.tag)
    remove = _later(_Images.remove)
    prune = _later(_Images.prune)
    list = _later(_Images.list)

    def save(self, names: str | Sequence[str], *, kind: str = "docker-archive") -> AsyncIterator[bytes]:
        """Images as one archive, in chunks."""
        return stream(lambda: self.sync.save(names, kind=kind))


class Volumes:
    """See `hutch.library.volumes.Volumes`; a `Volume` is the same as without asyncio."""

    def __init__(self, sync: _Volumes) -> None:
        self.sync = sync

    create = _later(_Volumes.create)
    get = _later(_Volumes.get)
    prune = _later(_Volumes.prune)
    list = _later(_Volumes.list)


class Engine:
    """See `hutch.Engine`.

    Attributes:
        sync: the engine for who may block.
        containers: `Containers`.
        images: `Images`.
        volumes: `Volumes`.
    """

    def __init__(self, root: str | None = None, state: str | None = None) -> None:
        self.sync = _Engine(root, state)
        self.containers = Containers(self.sync.containers)
        self.images = Images(self.sync.images)
        self.volumes = Volumes(self.sync.volumes)

    def events(
        self,
        *,
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
        filters: Mapping[str, str | Sequence[str]] | None = None,
        follow: bool | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """What happened, and what happens."""
        return stream(lambda: self.sync.events(since=since, until=until, filters=filters, follow=follow))

    info = _later(_Engine.info)
    close = _later(_Engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(self.sync.close)


def _close(found: object) -> None:
    if isinstance(found, _Process):
        found.close()


def _discard(found: object) -> None:
    if isinstance(found, _Container):
        found.remove(force=True, v=True)
    _close(found)


def _wrapped(found: Any) -> Any:
    if isinstance(found, _Container):
        return Container(found)
    return Process(found) if isinstance(found, _Process) else found
