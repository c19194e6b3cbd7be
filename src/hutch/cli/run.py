"""`hutch run`: a new container in the foreground."""

from __future__ import annotations

import os
import sys

from hutch.cli.command import Command
from hutch.cli.messages import warn
from hutch.cli.run_flags import RUN_FLAGS, run_options
from hutch.cli.terminal import DetachableTerminal, parse_detach_keys
from hutch.engine.engine import Engine
from hutch.engine.prepare import prepare
from hutch.engine.undo import Undo
from hutch.errors import AlreadyExists, InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from hutch.engine.explain import Narrator
    from hutch.engine.options import RunOptions
    from hutch.image.progress import Progress

_EXAMPLE = """\
hutch run --rm -it @host sh
hutch run --rm -v ./src:/src:ro -w /src -m 512m python:3.12 python -m compileall .
hutch run --rm --dry-run --explain busybox true"""


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    options = run_options(given, arguments)
    if not given["sig_proxy"]:
        raise NotSupported("--sig-proxy=false: a container in the foreground ends with hutch")
    keys = parse_detach_keys(given["detach_keys"])
    console = _console_size(options)
    engine = Engine(general["root"], general["state"])
    narrator = _narrator() if given["explain"] else None
    with Undo() as undo:
        if options.cidfile:
            _reserve_cidfile(options.cidfile, undo)
        prepared = prepare(
            engine, options, console=console, undo=undo, pulling=lambda name: _pulling(name, quiet=given["quiet"])
        )
        for warning in prepared.warnings:
            warn(warning)
        if given["dry_run"]:
            if narrator:
                narrator.plan(prepared.spec, prepared.directory.path, prepared.root_mounts)
            return 0
        if options.cidfile:
            _write(options.cidfile, prepared.directory.record.id)
        from hutch.engine.foreground import run

        return run(
            engine,
            prepared,
            options,
            undo,
            terminal=lambda ptmx_fd: DetachableTerminal(ptmx_fd, keys, interactive=options.interactive),
            warn=warn,
            explain=narrator.step if narrator else None,
        )


def _narrator() -> Narrator:
    from hutch.engine.explain import Narrator

    return Narrator(sys.stderr)


def _pulling(name: str, *, quiet: bool) -> AbstractContextManager[Progress]:
    """Say on standard error that an image is fetched: standard output is the container's."""
    from hutch.cli.progress import pull_progress

    if not quiet:
        print(f"Unable to find image '{name}' locally", file=sys.stderr)
    return pull_progress(sys.stderr, quiet=quiet)


def _console_size(options: RunOptions) -> tuple[int, int] | None:
    """The size of the caller's terminal, for the container's.

    Raises:
        InvalidArgument: -it without one.
    """
    if not options.tty:
        return None
    if options.interactive and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY", hint="leave out -t when the input is not a terminal")
    from hutch.linux import pty

    fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), -1)
    return pty.get_window_size(fd) if fd >= 0 else None


def _reserve_cidfile(path: str, undo: Undo) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    except FileExistsError:
        raise AlreadyExists(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        raise InvalidArgument(
            f"failed to create the container ID file: {path}: {os.strerror(error.errno or 0).lower()}"
        ) from None
    undo.add(lambda: _remove_if_empty(path))


def _remove_if_empty(path: str) -> None:
    """A run that came as far as having an id leaves the file, as Docker's does."""
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


COMMAND = Command(
    "run",
    arguments="IMAGE [COMMAND] [ARG...]",
    summary="Create and run a new container from an image",
    flags=RUN_FLAGS,
    run=_run,
    example=_EXAMPLE,
    interspersed=False,
    exit_code=125,
)
