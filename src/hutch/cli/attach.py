"""`hutch attach`: this terminal becomes a running container's."""

from __future__ import annotations

from hutch.cli.attached import Attached
from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.terminal import parse_detach_keys
from hutch.engine.engine import Engine
from hutch.engine.lifecycle import connect, status_of
from hutch.errors import InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    keys = parse_detach_keys(given["detach_keys"])
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(arguments[0]) as directory:
        status = status_of(engine, directory)
        record = directory.record
    if status != "running":
        message = "cannot attach to a stopped container, start it first"
        if status in ("paused", "restarting"):
            message = f"cannot attach to a {status} container, {'unpause it first' if status == 'paused' else 'wait'}"
        raise InvalidState(f"you {message}", have=status, want="running")
    stdin = record.interactive and not given["no_stdin"]
    with Attached(tty=record.tty, stdin=stdin, keys=keys, proxy=given["sig_proxy"]) as attached:
        request = {"op": "attach", "stdin": stdin, "stdout": True, "stderr": True}
        channel = connect(engine, record.id, request)
        if channel is None:
            raise InvalidState("the container has just ended", have="exited", want="running")
        ended = attached.until_end(channel)
    return int(ended["exit_code"]) if ended else 0


COMMAND = Command(
    "attach",
    arguments="CONTAINER",
    summary="Attach standard input, output and error to a running container",
    flags=(
        Flag("detach-keys", "keys", "keys that detach from a terminal", default="ctrl-p,ctrl-q"),
        Flag("no-stdin", "", "do not attach standard input"),
        Flag("sig-proxy", "", "pass signals on to the container (default true)", default=True),
    ),
    run=_run,
    example="hutch attach shell",
    least=1,
    most=1,
)
