"""`hutch exec`: one more process in a running container."""

from __future__ import annotations

import os

from hutch.cli.attached import Attached, window_size
from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.terminal import parse_detach_keys
from hutch.engine import lifecycle, values
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    keys = parse_detach_keys(given["detach_keys"])
    env = [line for path in given["env_file"] for line in values.read_key_values(path, "env file", values.parse_env)]
    env = [
        f"{name}={value}"
        for name, value in values.resolve_env((*env, *given["env"]), os.environ).items()
        if value is not None
    ]
    tty, detach = given["tty"], given["detach"]
    if tty and given["interactive"] and not detach and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY", hint="leave out -t when the input is not a terminal")
    stdin = given["interactive"] and not detach
    size = window_size() if tty else None
    engine = Engine(general["root"], general["state"])
    request = {
        "args": arguments[1:],
        "env": env,
        "cwd": given["workdir"],
        "user": given["user"],
        "tty": tty,
        "privileged": given["privileged"],
        "detach": detach,
        "attach": {"stdin": stdin, "stdout": not detach, "stderr": not detach},
        "size": list(size) if size else None,
    }
    with Attached(tty=tty, stdin=stdin, keys=keys, private=True) as attached:
        ended = attached.until_end(lifecycle.execute(engine, arguments[0], request))
    return int(ended["exit_code"]) if ended else 0


COMMAND = Command(
    "exec",
    arguments="CONTAINER COMMAND [ARG...]",
    summary="Execute a command in a running container",
    flags=(
        Flag("detach", "", "leave it running in the background", short="d"),
        Flag("detach-keys", "keys", "keys that detach from a terminal", default="ctrl-p,ctrl-q"),
        Flag("env", "name[=value]...", "set a variable", short="e", parse=values.parse_env),
        Flag("env-file", "file...", "set the variables that a file lists"),
        Flag("interactive", "", "keep standard input open", short="i"),
        Flag("privileged", "", "give it every capability"),
        Flag("tty", "", "give it a terminal", short="t"),
        Flag("user", "user[:group]", "names or ids", short="u", default=""),
        Flag("workdir", "dir", "working directory", short="w", default=""),
    ),
    run=_run,
    example="hutch exec -it web sh\nhutch exec -u postgres database psql -c 'select 1'",
    least=2,
    interspersed=False,
    exit_code=1,
)
