"""`hutch history`: the steps that an image was made by."""

from __future__ import annotations

import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.output import ago, human_size, render, shortened
from hutch.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.image.image import Image

_COLUMNS = (
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
)


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    image = engine.images.get(arguments[0])
    rows = _rows(engine, image, full=given["no_trunc"], human=given["human"])
    text = render(rows, given["format"], _COLUMNS, quiet_key="ID" if given["quiet"] else "")
    if text:
        print(text)
    return 0


def _rows(engine: Engine, image: Image, *, full: bool, human: bool) -> list[dict[str, Any]]:
    """Newest first; only the newest step has an id, as the others are no images of this host."""
    sizes = [engine.snapshots.info(chain).size if engine.snapshots.has(chain) else 0 for chain in image.chain_ids]
    rows = []
    for position, (step, layer) in enumerate(image.history()):
        size = sizes.pop() if layer is not None and sizes else 0
        created = f"{ago(step.created, time.time())} ago" if step.created else "N/A"
        identifier = image.id if full else image.id.partition(":")[2][:12]
        made_by = " ".join(step.created_by.split())
        rows.append(
            {
                "ID": identifier if position == 0 else "<missing>",
                "CreatedSince": created if human else step.created,
                "CreatedAt": step.created,
                "CreatedBy": made_by if full else shortened(made_by, 45),
                "Size": human_size(size, 3) if human else str(size),
                "Comment": step.comment,
            }
        )
    return rows


COMMAND = Command(
    "history",
    arguments="IMAGE",
    summary="Show the steps that an image was made by",
    flags=(
        Flag("format", "template", "table, json or a template", default=""),
        Flag("human", "", "sizes and dates for people (default true)", short="H", default=True),
        Flag("no-trunc", "", "print commands and ids in full"),
        Flag("quiet", "", "print ids alone", short="q"),
    ),
    run=_run,
    example="hutch history --no-trunc debian:bookworm",
    least=1,
    most=1,
)
