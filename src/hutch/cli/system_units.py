"""`hutch system units`: units for systemd."""

from __future__ import annotations

import os
import sys

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.engine import units
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GRACE_S = 10


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    user = os.geteuid() != 0
    command = [_program(), *(word for name in ("root", "state") if general[name] for word in _option(engine, name))]
    made = {}
    for text in arguments:
        with engine.containers.find(text) as directory:
            record = directory.record
        if record.restart.get("Name") != "no":
            warn(f"container {record.name} has a restart policy, and systemd would have one too; take its own away "
                 f"with: hutch update --restart no {record.name}")  # fmt: skip
        timeout = record.stop_timeout if record.stop_timeout >= 0 else _GRACE_S
        made[units.unit_name(record.name)] = units.container_unit(
            command, record.name, user=user, stop_timeout_s=timeout
        )
    if not arguments:
        made[units.RECOVER] = units.recover_unit(command, user=user)
    if given["output"]:
        _write(given["output"], made)
        return 0
    folder = "~/.config/systemd/user" if user else "/etc/systemd/system"
    print("\n".join(f"# {folder}/{name}\n{text}" for name, text in made.items()), end="")
    return 0


def _option(engine: Engine, name: str) -> list[str]:
    return [f"--{name}", str(getattr(engine, name))]


def _program() -> str:
    """The path by which this was started."""
    from shutil import which

    return os.path.abspath(which(sys.argv[0]) or sys.argv[0])


def _write(folder: str, made: dict[str, str]) -> None:
    for name, text in made.items():
        path = f"{folder.rstrip('/')}/{name}"
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise InvalidArgument(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
        print(path)


COMMAND = Command(
    "system units",
    arguments="[CONTAINER...]",
    summary="Make systemd units: one that recovers after a boot, or one for each container named",
    flags=(Flag("output", "dir", "write them there, such as to /etc/systemd/system", default=""),),
    run=_run,
    example="hutch system units --output /etc/systemd/system && systemctl enable hutch-recover\n"
    "hutch system units --output ~/.config/systemd/user database && systemctl --user enable hutch-database",
)
