"""`hutch export`: a container's file system as a tar."""

from __future__ import annotations

import os

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.engine.copying import export
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    target = given["output"]
    if not target and os.isatty(1):
        raise InvalidArgument("cowardly refusing to save to a terminal", hint="use the -o flag or redirect")
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(arguments[0]) as directory, export(engine, directory) as stream:
        if target:
            _write_file(target, stream)
        else:
            _write(1, stream)
        for text in stream.answer["notes"]:
            warn(f"left out: {text}")
    return 0


def _write_file(path: str, chunks: Iterable[bytes]) -> None:
    """Replace a file once everything is there; into a pipe or a device it goes at once."""
    if os.path.exists(path) and not os.path.isfile(path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write(fd, chunks)
        finally:
            os.close(fd)
        return
    new = f"{path}.{os.urandom(4).hex()}.part"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write(fd, chunks)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise
    finally:
        os.close(fd)


def _write(fd: int, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]


COMMAND = Command(
    "export",
    arguments="CONTAINER",
    summary="Write a container's file system, without its volumes, as a tar",
    flags=(Flag("output", "path", "file to write instead of stdout", short="o", default=""),),
    run=_run,
    example="hutch export -o rootfs.tar quiet_otter",
    least=1,
    most=1,
)
