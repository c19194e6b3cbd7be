"""Copying a running container's files, in a process of its own: the monitor does not wait for disks.

Whoever asked may be killed meanwhile, and the container goes on all the same.
"""

from __future__ import annotations

import os

from hutch.engine import snapshots
from hutch.engine.monitor import protocol
from hutch.errors import HutchError, InvalidArgument
from hutch.runtime import entering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.monitor.monitor import Monitor
    from hutch.linux.seqpacket import Channel


def fork_capture(monitor: Monitor, channel: Channel, request: dict[str, Any]) -> int:
    """Start it.

    Args:
        monitor: of the container.
        channel: the client's connection; the caller closes its copy.
        request: ``key`` of the snapshot to be, ``first_id``: see `hutch.engine.snapshots.capture_still`.

    Returns:
        The pid of a child of this process.
    """
    monitor.engine.database.close()
    pid = os.fork()
    if pid:
        return pid
    try:
        entering.forget_signals()
        os.setsid()
        channel.send(protocol.ACCEPTED)
        channel.send(_captured(monitor, request))
    except BaseException:
        from hutch.engine.forkserver.server import report

        report("capture")
    finally:
        os._exit(0)


def _captured(monitor: Monitor, request: dict[str, Any]) -> bytes:
    try:
        snapshots.capture_still(monitor.engine, monitor.directory, str(request["key"]), int(request["first_id"]))
    except HutchError as error:
        return protocol.failure(error)
    except (KeyError, TypeError, ValueError) as error:
        return protocol.failure(InvalidArgument(f"malformed request: {error!r}"))
    return protocol.document(protocol.ENDED, {})
