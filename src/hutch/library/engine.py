"""`hutch.Engine`: where a program begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from hutch.engine import boot
from hutch.engine.engine import Engine as _Engine
from hutch.library.containers import Containers
from hutch.library.images import Images
from hutch.library.moments import nanos
from hutch.library.streams import warn
from hutch.library.volumes import Volumes


class Engine:
    """One container engine: the caller's own, as `hutch` on the command line has it, or a private one.

    Safe for any number of threads and processes at once. What runs does not depend on it: leaving the `with` block
    closes a file. The first one after a boot sees to what the boot ended, and starts what is to be started again.

    Args:
        root: images, containers and volumes; None is /var/lib/hutch, or $XDG_DATA_HOME/hutch for a user.
        state: what runs; None is /run/hutch, or $XDG_RUNTIME_DIR/hutch; beside `root` if only that is given.

    Attributes:
        containers: `Containers`.
        images: `Images`.
        volumes: `Volumes`.
    """

    def __init__(self, root: str | None = None, state: str | None = None) -> None:
        self._engine = _Engine(root, state or (f"{root}/run" if root else None))
        self.containers = Containers(self._engine)
        self.images = Images(self._engine)
        self.volumes = Volumes(self._engine)
        for problem in boot.notice(self._engine):
            warn(problem)

    @property
    def root(self) -> str:
        """The data root."""
        return self._engine.root

    @property
    def state(self) -> str:
        """The state directory."""
        return self._engine.state

    def events(
        self,
        *,
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
        filters: Mapping[str, str | Sequence[str]] | None = None,
        follow: bool | None = None,
    ) -> Iterator[dict[str, Any]]:
        """What happened, as Docker's API has it: ``Type``, ``Action``, ``Actor``, ``time``, ``timeNano``.

        Args:
            since: the first moment; None is the beginning, or now if following.
            until: the last moment; None is now, or never if following.
            filters: key → value or values, as Docker's.
            follow: wait for more. None, the default, follows unless `until` or `since` is given.

        Raises:
            InvalidArgument: no such filter or moment.
        """
        from hutch.engine.events import read_events
        from hutch.library.cancelling import WatchedDatabase

        self._engine.prepare_directories()
        following = follow if follow is not None else since is None and until is None
        wanted = {key: [value] if isinstance(value, str) else list(value) for key, value in (filters or {}).items()}
        found = read_events(
            WatchedDatabase(self._engine.root),
            since_nanos=None if since is None else nanos(since),
            until_nanos=None if until is None else nanos(until),
            filters=wanted,
            follow=following,
        )
        return (
            {
                "Type": event.type,
                "Action": event.action,
                "Actor": {"ID": event.actor, "Attributes": event.attributes},
                "scope": "local",
                "time": event.time_nanos // 1_000_000_000,
                "timeNano": event.time_nanos,
            }
            for event in found
        )

    def info(self) -> dict[str, Any]:
        """The host and the engine, as `hutch info` has it."""
        from hutch.engine.info import information

        return information(self._engine)

    def version(self) -> dict[str, str]:
        """Of hutch."""
        from hutch import __version__

        return {"Version": __version__}

    def close(self) -> None:
        """Close the store's file; the next use opens it again."""
        self._engine.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def destroy(self) -> None:
        """Remove everything there is: containers, images, volumes, both directories. For private roots.

        Raises:
            HutchError: a container cannot be removed; what is left stays.
        """
        from hutch.engine.forkserver import client
        from hutch.snapshot.layers import delete

        for container in self.containers.list(all=True):
            container.remove(force=True)
        client.end(self._engine.state)
        self.close()
        for path in (self._engine.state, self._engine.root):
            try:
                delete(path)
            except FileNotFoundError:
                continue
