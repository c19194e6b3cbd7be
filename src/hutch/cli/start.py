"""`hutch start`: start containers that were created or have ended."""

from __future__ import annotations

from hutch.cli.attached import Attached, window_size
from hutch.cli.command import Command
from hutch.cli.each import for_each
from hutch.cli.flags import Flag
from hutch.cli.terminal import parse_detach_keys
from hutch.engine import lifecycle
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    keys = parse_detach_keys(given["detach_keys"])
    engine = Engine(general["root"], general["state"])
    if not given["attach"] and not given["interactive"]:
        return for_each(arguments, lambda text: lifecycle.start_detached(engine, text))
    if len(arguments) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    directory = engine.containers.find(arguments[0])
    record = directory.record
    stdin = given["interactive"] and record.interactive
    size = window_size() if record.tty else None
    streams = {"stdin": stdin, "stdout": True, "stderr": True}
    request = {"attach": streams, "size": list(size) if size else None}
    with Attached(tty=record.tty, stdin=stdin, keys=keys, proxy=given["sig_proxy"]) as attached:
        channel = lifecycle.start(engine, directory, request)
        if channel is None:
            channel = lifecycle.connect(engine, record.id, {"op": "attach", **streams})
        if channel is None:
            raise InvalidArgument(f"container {record.name}: it has just ended")
        ended = attached.until_end(channel)
    return int(ended["exit_code"]) if ended else 0


COMMAND = Command(
    "start",
    arguments="CONTAINER [CONTAINER...]",
    summary="Start one or more containers that do not run",
    flags=(
        Flag("attach", "", "attach to its output, and pass signals on", short="a"),
        Flag("detach-keys", "keys", "keys that detach from a terminal", default="ctrl-p,ctrl-q"),
        Flag("interactive", "", "attach to its standard input", short="i"),
        Flag("sig-proxy", "", "pass signals on to the container (default true)", default=True),
    ),
    run=_run,
    example="hutch start -ai shell",
    least=1,
)
