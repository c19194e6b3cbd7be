"""containers/<id>/mounts.json: what a container has attached, for --volumes-from and for who removes volumes.

The same as the user's request, but that a volume has its name and a directory its whole path.
"""

from __future__ import annotations

from hutch.engine.containers import write_atomically
from hutch.engine.mountspec import MountRequest
from hutch.errors import HutchError, Internal
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hutch.engine.containers import ContainerDirectory

_FILE = "mounts.json"
_LIMIT = 4 << 20
_FIELDS = (
    "kind", "target", "source", "read_only", "options", "propagation", "recursive", "subpath", "implied"
)  # fmt: skip
_KINDS = ("bind", "volume")


def write(directory: ContainerDirectory, mounts: Sequence[MountRequest]) -> None:
    """Note what is attached; before it is used, so that it stays meanwhile."""
    found = [{name: value for name, value in mount.asdict().items() if name in _FIELDS} for mount in mounts]
    write_atomically(directory.fd, _FILE, documents.dump_bytes({"mounts": found}), durable=False)


def read(directory: ContainerDirectory) -> list[MountRequest]:
    """What a container has attached; nothing if nothing was noted.

    Raises:
        Internal: the file is damaged, so that nobody knows.
    """
    try:
        return [_parsed(entry) for entry in documents.read_object(_FILE, _LIMIT, dir_fd=directory.fd)["mounts"]]
    except FileNotFoundError:
        return []
    except (HutchError, KeyError, TypeError, ValueError, AttributeError):
        name = directory.record.name or directory.record.id[:12]
        raise Internal(
            f"container {name}: {_FILE} is damaged: what is attached to it is not known",
            hint=f"'hutch rm {name}' removes the container",
        ) from None


def _parsed(entry: dict[str, Any]) -> MountRequest:
    example = MountRequest(kind="volume", target="/")
    given: dict[str, Any] = {}
    for name, value in entry.items():
        found = tuple(value) if isinstance(value, list) else value
        wanted = getattr(example, name)
        if name not in _FIELDS or type(found) is not type(wanted):
            raise ValueError(name)
        given[name] = found
    mount = MountRequest(**given)
    if mount.kind not in _KINDS or not all(isinstance(option, str) for option in mount.options):
        raise ValueError(mount.kind)
    return mount
