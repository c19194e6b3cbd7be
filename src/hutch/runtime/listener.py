"""Handing a seccomp listener to the agent at linux.seccomp.listenerPath.

One message on a stream socket: the container process state as JSON, the listener as its descriptor.
OCI runtime-spec config-linux.md#containerprocessstate.
"""

from __future__ import annotations

import os

from hutch.errors import ContainerSetupFailed
from hutch.linux.seqpacket import Channel
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket

    from hutch.spec.runtime import ContainerProcessState, LinuxSeccomp, State
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

_TIMEOUT_S = 10


def send_listener(seccomp: LinuxSeccomp, listener_fd: int, pid: int, state: State) -> None:
    """Send a listener to its agent.

    Args:
        seccomp: the filter's configuration; its listenerPath is a trusted path of the host.
        listener_fd: not closed.
        pid: the process with the filter, as the agent sees it.
        state: of the container.

    Raises:
        ContainerSetupFailed: the agent cannot be reached.
    """
    path = seccomp.get("listenerPath") or ""
    document: ContainerProcessState = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    }
    if metadata := seccomp.get("listenerMetadata"):
        document["metadata"] = metadata
    try:
        agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            agent.settimeout(_TIMEOUT_S)
            agent.connect(path)
            agent.setblocking(True)
            channel = Channel(os.dup(agent.fileno()))
            try:
                channel.send(documents.dump_bytes(document), [listener_fd])
            finally:
                channel.close()
        finally:
            agent.close()
    except OSError as error:
        raise ContainerSetupFailed(
            "send seccomp listener", error.errno or 0, path, str(error) if not error.errno else ""
        ) from None
