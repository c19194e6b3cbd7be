"""The options of a container, read back from its record, to make another like it."""

from __future__ import annotations

from hutch.engine import mountrecord
from hutch.engine.healthchecks import HealthOptions
from hutch.engine.mountspec import DeviceRequest, MountRequest
from hutch.engine.options import RestartPolicy, RunOptions, SecurityOptions, ThrottleRequest, Ulimit
from hutch.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerDirectory

_RECORDS: dict[str, Any] = {
    "blkio_weight_device": ThrottleRequest,
    "device_read_bps": ThrottleRequest,
    "device_read_iops": ThrottleRequest,
    "device_write_bps": ThrottleRequest,
    "device_write_iops": ThrottleRequest,
    "devices": DeviceRequest,
    "health": HealthOptions,
    "mounts": MountRequest,
    "restart": RestartPolicy,
    "security": SecurityOptions,
    "ulimits": Ulimit,
}


def restored_options(directory: ContainerDirectory, *, name: str) -> RunOptions:
    """What a container was made with.

    Args:
        directory: the container.
        name: of the one that is to be made.

    Returns:
        The options: the image by its id, for its name may be another's by now, directories of the host by their
        whole paths, and variables with the values they had.

    Raises:
        NotSupported: it was made by a version that kept no options.
    """
    record = directory.record
    if not record.options:
        raise NotSupported(f"container {record.name}: what it was made with is not known")
    fields = {key: _field(key, value) for key, value in record.options.items() if key in RunOptions._fields}
    paths = {mount.target: mount.source for mount in mountrecord.read(directory) if mount.kind == "bind"}
    fields["mounts"] = tuple(
        mount.replace(source=paths.get(mount.target, mount.source)) if mount.kind == "bind" else mount
        for mount in fields.get("mounts", ())
    )
    values = dict(entry.partition("=")[::2] for entry in record.environment)
    fields["env"] = tuple(
        f"{entry}={values[entry]}" if "=" not in entry and entry in values else entry for entry in fields.get("env", ())
    )
    if record.image_id:
        fields |= {"image": record.image_id, "pull": "never", "platform": ""}
    return RunOptions(**{**fields, "name": name, "cidfile": ""}).checked()


def _field(key: str, value: Any) -> Any:
    kind = _RECORDS.get(key)
    if kind is None:
        return _frozen(value)
    if isinstance(value, dict):
        return kind(**_frozen_values(value))
    return tuple(kind(**_frozen_values(one)) for one in value)


def _frozen_values(found: dict[str, Any]) -> dict[str, Any]:
    return {key: _frozen(value) for key, value in found.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
