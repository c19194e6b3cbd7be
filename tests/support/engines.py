"""Ending what an engine of a test has started: its containers' monitors and its fork server."""

from __future__ import annotations

import os
import time

from hutch.engine.forkserver import client
from hutch.engine.monitor import protocol
from hutch.linux import seqpacket

_PATIENCE_S = 15.0


def end_engine(state: str) -> None:
    """Kill every container of the engine at `state`, and end its fork server; nothing happens where there is none."""
    if not os.path.isdir(state):
        return
    monitors = f"{state}/monitors"
    deadline = time.monotonic() + _PATIENCE_S
    while os.path.isdir(monitors) and (names := os.listdir(monitors)) and time.monotonic() < deadline:
        for name in names:
            _kill(monitors, name)
        time.sleep(0.01)
    client.end(state)


def _kill(monitors: str, name: str) -> None:
    dir_fd = os.open(monitors, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with seqpacket.connect(dir_fd, name) as channel:
            channel.send(protocol.document(b"", {"op": "kill", "signal": 9}))
            channel.recv(protocol.REQUEST_LIMIT)
    except ConnectionRefusedError:
        os.unlink(name, dir_fd=dir_fd)  # its monitor was killed
    except (FileNotFoundError, ConnectionResetError, BrokenPipeError):
        pass
    finally:
        os.close(dir_fd)
