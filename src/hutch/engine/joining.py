"""Namespaces of other containers: found by the container's id, as the paths that the runtime joins."""

from __future__ import annotations

from hutch.errors import InvalidState
from hutch.runtime.state import boot_id, process_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.engine import Engine


def joined_namespaces(engine: Engine, joined: dict[str, str]) -> dict[str, str]:
    """The paths of other containers' namespaces.

    Args:
        engine: where these are.
        joined: kind in the specification's words → id or name of the container.

    Raises:
        ContainerNotFound: there is no such container.
        InvalidState: it does not run.
    """
    found = {}
    for kind, text in joined.items():
        with engine.containers.find(text) as other:
            record = other.record
        if record.status != "running" or not is_alive(record.pid, record.start_time, record.boot_id):
            raise InvalidState(
                f"cannot join the {kind} namespace of container {record.name}: it is not running",
                have=record.status,
                want="running",
            )
        found[kind] = f"/proc/{record.pid}/ns/{ {'network': 'net', 'mount': 'mnt'}.get(kind, kind) }"
    return found


def is_alive(pid: int, started: int, boot: str) -> bool:
    """Whether the process that was noted so is still there: not another one of its pid, nor of an earlier boot."""
    if pid <= 0 or boot != boot_id():
        return False
    status = process_status(pid)
    return status is not None and status[1] == started and status[0] not in "ZX"
