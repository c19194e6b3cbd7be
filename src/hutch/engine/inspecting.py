"""Gathering what `hutch.engine.inspection` shows of a container, whatever of it is damaged."""

from __future__ import annotations

from hutch.engine import execs, lifecycle, mountrecord
from hutch.engine.accounts import total
from hutch.engine.containers import CONFIG, ROOT_MOUNTS
from hutch.engine.inspection import Facts, inspection
from hutch.errors import HutchError
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerDirectory, ContainerRecord
    from hutch.engine.engine import Engine
    from hutch.image.manifest import RunConfig

_LIMIT = 16 << 20


def inspect_container(engine: Engine, text: str, *, size: bool = False) -> dict[str, Any]:
    """A container in Docker's shape.

    Args:
        engine: where.
        text: name, id or beginning of an id.
        size: count its files too, which takes as long as there are many.

    Raises:
        ContainerNotFound: no such container.
    """
    with engine.containers.find(text) as directory:
        status = lifecycle.status_of(engine, directory)
        record = directory.record
        mounts = _mounts(directory)
        facts = Facts(
            status=status,
            path=directory.path,
            driver=engine.snapshots.name,
            log_path=_log_path(directory),
            spec=_document(directory, CONFIG),
            root_mounts=tuple(_document(directory, ROOT_MOUNTS).get("mounts") or ()),
            mounts=tuple(mounts),
            volume_paths={each.source: _volume_path(engine, each.source) for each in mounts if each.kind == "volume"},
            execs=_execs(engine, record.id) if status in ("running", "paused") else (),
            image=_image(engine, record),
            usage=total([record.usage, _running(engine, record)]) if status in ("running", "paused") else record.usage,
            size=sizes(engine, record) if size else None,
        )
        return inspection(record, facts)


def sizes(engine: Engine, record: ContainerRecord) -> tuple[int, int]:
    """Bytes that a container has written, and bytes of all that it sees with its image."""
    below = sum(engine.snapshots.info(chain).size for chain in record.chain_ids if engine.snapshots.has(chain))
    own = engine.snapshots.usage(record.id).size if record.chain_ids else 0
    return own, own + below


def _execs(engine: Engine, container_id: str) -> tuple[str, ...]:
    return tuple(one.id for one in execs.of_container(engine.database, container_id) if one.running)


def _document(directory: ContainerDirectory, name: str) -> dict[str, Any]:
    """A file of the container; nothing if it is damaged, for that is when one wants to look at the rest."""
    try:
        return documents.read_object(name, _LIMIT, dir_fd=directory.fd)
    except (HutchError, OSError):
        return {}


def _mounts(directory: ContainerDirectory) -> list[Any]:
    try:
        return mountrecord.read(directory)
    except HutchError:
        return []


def _log_path(directory: ContainerDirectory) -> str:
    if directory.record.log_driver not in ("json-file", "local"):
        return ""
    from hutch.engine.logs.drivers import file_name

    return f"{directory.path}/{file_name(directory.record.log_driver, directory.path)}"


def _volume_path(engine: Engine, name: str) -> str:
    try:
        return engine.volumes.get(name).path
    except HutchError:
        return ""  # removed, or damaged


def _running(engine: Engine, record: ContainerRecord) -> dict[str, Any]:
    """What the run that goes on has taken so far; nothing if it has just ended."""
    from hutch.engine.counters import current_usage
    from hutch.runtime.container import Container

    try:
        with Container.load(engine.runtime_state, record.id) as container:
            return current_usage(container, record)
    except (HutchError, OSError):
        return {}


def _image(engine: Engine, record: ContainerRecord) -> dict[str, Any]:
    if not record.image_id:
        return {}
    try:
        return image_settings(engine.images.get(record.image_id).config.config)
    except HutchError:
        return {}  # removed by force, or damaged


def image_settings(run: RunConfig) -> dict[str, Any]:
    """What of an image's settings a container shows as its own."""
    return {
        "ExposedPorts": {key: {} for key in run.exposed_ports} or None,
        "Env": list(run.env),
        "Cmd": list(run.cmd) or None,
        "Volumes": {key: {} for key in run.volumes} or None,
        "WorkingDir": run.working_dir,
        "Entrypoint": list(run.entrypoint) or None,
        "OnBuild": list(run.on_build) or None,
        "Shell": list(run.shell) or None,
    }
