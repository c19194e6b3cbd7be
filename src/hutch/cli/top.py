"""`hutch top`: the processes of a container."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.messages import plain
from hutch.engine import lifecycle, processes
from hutch.engine.engine import Engine
from hutch.errors import InvalidState
from hutch.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LEAST, _GAP = 20, 3


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(arguments[0]) as directory:
        status = lifecycle.status_of(engine, directory)
        record = directory.record
    if status not in ("running", "paused"):
        raise InvalidState(f"container {record.id} is not running", have=status, want="running")
    with Container.load(engine.runtime_state, record.id) as container:
        pids = container.pids() or [container.pid]
    print(_table(processes.table(pids, arguments[1:])))
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as docker's: twenty wide at the least, the last one unpadded."""
    cells = [[plain(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(_LEAST, *(len(row[at]) + _GAP for row in cells if len(row) > at)) for at in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(padded) + row[-1])
    return "\n".join(lines)


COMMAND = Command(
    "top",
    arguments="CONTAINER [ps OPTIONS]",
    summary="Show the processes of a container",
    flags=(),
    run=_run,
    example="hutch top web\nhutch top web -o pid,user,rss,args",
    least=1,
    interspersed=False,
)
