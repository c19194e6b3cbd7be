"""state, list and ps."""

from __future__ import annotations

import os

from hutch.errors import HutchError, InvalidArgument, NotSupported
from hutch.runtime.arguments import BOOLEAN, TEXT, Command, Flag
from hutch.runtime.container import Container
from hutch.runtime.documents import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context

_FORMAT = Flag("format", TEXT, "table (default) or json", letter="f", default="table")


def _described(container: Container) -> dict[str, Any]:
    """The state with what runc adds to it; `pid` is 0 once init is gone, as runc has it."""
    state: dict[str, Any] = dict(container.state())
    record = container.record
    described = {
        "ociVersion": state["ociVersion"],
        "id": record.id,
        "pid": state.get("pid", 0),
        "status": state["status"],
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
    }
    if record.annotations:
        described["annotations"] = record.annotations
    return described


def _state(context: Context, options: Options, arguments: list[str]) -> int:
    del options
    with Container.load(context.state_dir, arguments[0]) as container:
        context.out(dump({**_described(container), "owner": ""}, "  ") + "\n")
    return 0


def _list(context: Context, options: Options, arguments: list[str]) -> int:
    del arguments
    output = options.text("format")
    if output not in ("table", "json"):
        raise InvalidArgument("invalid format option", hint="table or json")
    names = _user_names()
    found = []
    for container in _readable(context):
        if options.on("quiet"):
            context.out(container.id + "\n")
            continue
        owner = container.record.owner
        found.append({**_described(container), "owner": names.get(owner, f"#{owner}")})
    if options.on("quiet"):
        return 0
    if output == "json":
        context.out(dump(found) + "\n" if found else "null\n")
        return 0
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    rows = [tuple(str(row[column]) for column in columns) for row in found]
    context.out(_table([tuple(column.upper() for column in columns), *rows]))
    return 0


def _readable(context: Context) -> list[Container]:
    """All containers whose record can be read; the others are warned about, so that one cannot hide the rest."""
    from hutch.runtime.state import container_ids

    containers = []
    for container_id in container_ids(context.state_dir):
        try:
            containers.append(Container.load(context.state_dir, container_id))
        except HutchError as error:
            context.warn(f"container {container_id}: {error}")
    return containers


def _table(rows: list[tuple[str, ...]]) -> str:
    """Columns as runc's: at least 12 wide, 3 blanks between, the last one unpadded."""
    widths = [max(12, *(len(row[at]) + 3 for row in rows), 0) for at in range(len(rows[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)) + row[-1] + "\n"
        for row in rows
    )


def _user_names(path: str = "/etc/passwd") -> dict[int, str]:
    """Names by uid from the host's file alone: NSS modules have no place in a runtime."""
    names: dict[int, str] = {}
    try:
        with open(path, "rb") as file:
            for line in file.read(1 << 20).splitlines():
                fields = line.split(b":")
                if len(fields) >= 3 and fields[2].isdigit():
                    names.setdefault(int(fields[2]), os.fsdecode(fields[0]))
    except FileNotFoundError:
        return {}
    return names


def _ps(context: Context, options: Options, arguments: list[str]) -> int:
    output = options.text("format")
    if output not in ("table", "json"):
        raise InvalidArgument("invalid format option", hint="table or json")
    with Container.load(context.state_dir, arguments[0]) as container:
        pids = container.pids()
    if output == "json":
        context.out(dump(pids) + "\n")
        return 0
    context.out(_ps_table(pids, arguments[1:] or ["-ef"]))
    return 0


def _ps_table(pids: list[int], ps_options: list[str]) -> str:
    """The host's ps(1), of which the header and the lines with these pids are kept."""
    import subprocess

    program = next((path for path in ("/usr/bin/ps", "/bin/ps") if os.access(path, os.X_OK)), "")
    if not program:
        raise NotSupported("ps: the host has no ps program", hint="--format json does not need one")
    result = subprocess.run(  # the options are the caller's own, as everything on this command line
        [program, *ps_options], stdin=subprocess.DEVNULL, capture_output=True, check=False, env={"LC_ALL": "C.UTF-8"}
    )
    if result.returncode:
        raise InvalidArgument(f"{program}: {os.fsdecode(result.stderr).strip() or 'failed'}")
    lines = os.fsdecode(result.stdout).splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument("couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if len(fields := line.split()) > column and fields[column] in wanted]
    return "\n".join([lines[0], *kept]) + "\n"


COMMANDS = {
    "state": Command("<container-id>", _state),
    "list": Command(
        "",
        _list,
        flags=(_FORMAT, Flag("quiet", BOOLEAN, "only ids", letter="q")),
        minimum=0,
        maximum=0,
    ),
    "ps": Command("<container-id> [ps options]", _ps, flags=(_FORMAT,), maximum=-1, interleaved=False),
}
