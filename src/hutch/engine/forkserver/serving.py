"""What a forked child of the fork server does: answer one request, which is nearly always to be a monitor."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from hutch.engine.engine import Engine
from hutch.engine.forkserver import client
from hutch.engine.forkserver.server import SOCKET
from hutch.engine.monitor import protocol
from hutch.engine.monitor.mishaps import as_told, attempt
from hutch.engine.monitor.monitor import Monitor
from hutch.errors import InvalidArgument
from hutch.linux.process import pidfd_open
from hutch.runtime import entering, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.seqpacket import Channel

_PATIENCE_MS = 10_000


def serve(channel: Channel, root: str, state: str) -> None:
    """Read a request and do it.

    Args:
        channel: of a client that may be us.
        root: the data root.
        state: the state directory.
    """
    entering.forget_signals()
    for number in (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT):
        signals.handle(number, signals.SIG_IGN)
    os.setsid()
    os.umask(0o022)  # a container whose ids are mapped can read its cgroups only if everybody can
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(_PATIENCE_MS):
        return
    message, fds = channel.recv(protocol.REQUEST_LIMIT)
    if not message:
        return
    try:
        request = protocol.parse(message)
        if request.get("op") == "end":
            _end_server()
            return
        if request.get("op") != "start" or len(fds) != 1:
            raise InvalidArgument("malformed request")
        if request.get("namespaces") != client.own_namespaces():
            # Who asks lives elsewhere than who had us started; a server of his own will see what he sees.
            with suppress(FileNotFoundError):
                os.unlink(f"{state}/{SOCKET}")
            channel.send(protocol.STALE)
            _end_server()
            return
        engine = Engine(root, state)
        directory = engine.containers.find(str(request["id"]))
        directory.adopt(fds.pop())
        channel.send(protocol.ACCEPTED)
        monitor = Monitor(engine, directory, channel, request)
    except (BrokenPipeError, ConnectionResetError):
        return  # whoever asked has gone, and nothing has been begun
    except Exception as error:
        told = protocol.failure(as_told(error))
        attempt("answer", lambda: channel.send(told))
        return
    finally:
        for fd in fds:
            os.close(fd)
    monitor.run()


def _end_server() -> None:
    """End our parent; whoever asked for it sees by the end of the connection that it is over."""
    server = os.getppid()
    pidfd = pidfd_open(server)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    os.kill(server, signals.SIGTERM)
    poll.poll(_PATIENCE_MS)
