"""From a container's record and files to a created one: what must be looked up anew at each start is, here."""

from __future__ import annotations

import os

from hutch.engine.containers import CONFIG, ROOT_MOUNTS
from hutch.engine.joining import joined_namespaces
from hutch.errors import ContainerNotFound
from hutch.runtime import documents
from hutch.runtime.container import Container
from hutch.runtime.create import create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.runtime.steps import Explain
    from hutch.spec.runtime import Spec

_LIMIT = 16 << 20


class Starter:
    """Creates one container, as often as it is started.

    Args:
        engine: where.
        directory: the container's, locked.
    """

    def __init__(self, engine: Engine, directory: ContainerDirectory) -> None:
        self._engine, self._directory = engine, directory
        self._cgroup = ""

    def create(
        self,
        stdio: tuple[int, int, int],
        console_fd: int | None,
        *,
        warn: Callable[[str], None],
        explain: Explain | None = None,
    ) -> Container:
        """Create it; its init waits for `Container.start`.

        Raises:
            HutchError: see `hutch.runtime.create.create`.
        """
        record, path = self._directory.record, self._directory.path
        clear_runtime(self._engine, record.id)
        spec: Spec = documents.read_object(CONFIG, _LIMIT, dir_fd=self._directory.fd)  # type: ignore[assignment]
        mounts = documents.read_object(ROOT_MOUNTS, _LIMIT, dir_fd=self._directory.fd)["mounts"]
        self._renew(spec)
        return create(
            spec,
            container_id=record.id,
            bundle=path,
            state_dir=self._engine.runtime_state,
            stdio=stdio,
            console_socket=console_fd,
            root_mounts=mounts,
            explain=explain,
            warn=warn,
        )

    def _renew(self, spec: Spec) -> None:
        linux = spec["linux"]
        joined = joined_namespaces(self._engine, self._directory.record.joined)
        for namespace in linux["namespaces"]:
            if namespace["type"] in joined:
                namespace["path"] = joined[namespace["type"]]
        if self._engine.facts.rootless and self._engine.facts.delegated:
            if not self._cgroup:
                from hutch.engine.delegation import container_cgroup

                parent = str(self._directory.record.options.get("cgroup_parent", ""))
                self._cgroup = container_cgroup(self._directory.record.id, parent)
            linux["cgroupsPath"] = self._cgroup
        facts = self._engine.facts
        if spec["process"].get("apparmorProfile") and facts.apparmor and not facts.rootless:
            from hutch.engine import apparmor

            if spec["process"]["apparmorProfile"] == apparmor.DEFAULT_PROFILE:
                apparmor.ensure(self._engine.state)


def clear_runtime(engine: Engine, container_id: str) -> None:
    """Take away what a killed monitor left of an earlier run."""
    try:
        with Container.load(engine.runtime_state, container_id) as left:
            left.delete(force=True)
    except ContainerNotFound:
        pass


def socket_place(engine: Engine, container_id: str) -> tuple[int, str]:
    """The directory of the monitors' sockets, opened (the caller closes it), and the name of one's."""
    path = f"{engine.state}/monitors"
    os.makedirs(path, 0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), container_id
