"""`hutch run`: a new container, attached to or in the background."""

from __future__ import annotations

import os
import sys

from hutch.cli.attached import Attached, window_size
from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.run_flags import RUN_FLAGS, run_options
from hutch.cli.terminal import parse_detach_keys
from hutch.engine.engine import Engine
from hutch.engine.lifecycle import await_start, start
from hutch.engine.monitor import protocol
from hutch.engine.prepare import prepare
from hutch.engine.undo import Undo
from hutch.errors import AlreadyExists, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Self, TextIO

    from hutch.engine.options import RunOptions
    from hutch.engine.prepare import Prepared
    from hutch.image.progress import Progress

_EXAMPLE = """\
hutch run --rm -it @host sh
hutch run --rm -v ./src:/src:ro -w /src -m 512m python:3.12 python -m compileall .
hutch run --rm --dry-run --explain busybox true"""


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    options = run_options(given, arguments)
    keys = parse_detach_keys(given["detach_keys"])
    streams = attached_streams(given["attach"], interactive=options.interactive, detach=given["detach"])
    console = _console_size(options, detach=given["detach"])
    engine = Engine(general["root"], general["state"])
    with Undo() as undo, CidFile(options.cidfile, undo) as cidfile:
        prepared = prepare(
            engine, options, console=console, undo=undo, pulling=lambda name: pulling(name, quiet=given["quiet"])
        )
        for warning in prepared.warnings:
            warn(warning)
        if given["dry_run"]:
            if given["explain"]:
                _explain(prepared)
            return 0
        cidfile.write(prepared.directory.record.id)
        return _start(engine, prepared, undo, given, streams, keys, console)


def _start(
    engine: Engine,
    prepared: Prepared,
    undo: Undo,
    given: dict[str, Any],
    streams: dict[str, bool],
    keys: bytes,
    console: tuple[int, int] | None,
) -> int:
    """Have it started, and stay with it unless it is to run by itself."""
    record = prepared.directory.record
    request = {"attach": streams, "explain": given["explain"], "size": list(console) if console else None}
    with Attached(
        tty=record.tty,
        stdin=streams["stdin"],
        keys=keys,
        proxy=given["sig_proxy"],
        private=record.auto_remove,
    ) as attached:
        channel = start(engine, prepared.directory, request)
        assert channel is not None, "the lock was ours"
        undo.keep()
        if not given["detach"]:
            ended = attached.until_end(channel)
            return int(ended["exit_code"]) if ended else 0
        with channel:
            await_start(channel, _told)
    print(record.id)
    return 0


def _told(kind: bytes, content: bytes) -> None:
    if kind == protocol.WARNING:
        warn(content.decode("utf-8", "replace"))
    elif kind == protocol.STEP:
        os.write(2, content)


def attached_streams(wanted: tuple[str, ...], *, interactive: bool, detach: bool) -> dict[str, bool]:
    """Which standard streams a caller is attached to.

    Args:
        wanted: --attach, empty for all there are.
        interactive: whether the container's input is open.
        detach: none.

    Raises:
        InvalidArgument: -d and -a together.
    """
    if detach and wanted:
        raise InvalidArgument("conflicting options: -a and -d")
    names = [text.lower() for text in wanted] or ["stdin", "stdout", "stderr"]
    return {
        "stdin": not detach and interactive and "stdin" in names,
        "stdout": not detach and "stdout" in names,
        "stderr": not detach and "stderr" in names,
    }


def _stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise InvalidArgument(f"invalid argument {text[:64]!r}: valid streams are STDIN, STDOUT and STDERR")
    return text


def _explain(prepared: Prepared) -> None:
    from hutch.engine.explain import Narrator

    narrator = Narrator(sys.stderr.buffer.write)
    narrator.plan(prepared.spec, prepared.directory.path, prepared.root_mounts)
    sys.stderr.flush()


def pulling(name: str, *, quiet: bool) -> AbstractContextManager[Progress]:
    """Say on standard error that an image is fetched: standard output is the container's."""
    from hutch.cli.progress import pull_progress

    if not quiet:
        print(f"Unable to find image '{name}' locally", file=sys.stderr)
    return pull_progress(sys.stderr, quiet=quiet)


def _console_size(options: RunOptions, *, detach: bool) -> tuple[int, int] | None:
    """The size of the caller's terminal, for the container's.

    Raises:
        InvalidArgument: -it without one.
    """
    if not options.tty:
        return None
    if options.interactive and not detach and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY", hint="leave out -t when the input is not a terminal")
    return window_size()


class CidFile:
    """The file of --cidfile, reserved at once; a context manager. Without a path it does nothing.

    Args:
        path: must not be there.
        undo: removes it again if it stays empty.

    Raises:
        AlreadyExists: it is there.
        InvalidArgument: it cannot be made.
    """

    def __init__(self, path: str, undo: Undo) -> None:
        self._file: TextIO | None = None
        if not path:
            return
        try:
            self._file = open(path, "x", encoding="ascii")
        except FileExistsError:
            raise AlreadyExists(
                f"container ID file found, make sure the other container isn't running or delete {path}"
            ) from None
        except OSError as error:
            raise InvalidArgument(
                f"failed to create the container ID file: {path}: {os.strerror(error.errno or 0).lower()}"
            ) from None
        undo.add(lambda: _remove_if_empty(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, container_id: str) -> None:
        """Write the id."""
        if self._file is not None:
            self._file.write(container_id)
            self._file.flush()


def _remove_if_empty(path: str) -> None:
    """A run that came as far as having an id leaves the file, as Docker's does."""
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
    except FileNotFoundError:
        pass


COMMAND = Command(
    "run",
    arguments="IMAGE [COMMAND] [ARG...]",
    summary="Create and run a new container from an image",
    flags=(
        *RUN_FLAGS,
        Flag("attach", "stream...", "attach to stdin, stdout or stderr only", short="a", parse=_stream),
        Flag("detach", "", "run in the background and print the container's id", short="d"),
        Flag("detach-keys", "keys", "keys that detach from a terminal", default="ctrl-p,ctrl-q"),
        Flag("dry-run", "", "prepare and check everything, run nothing"),
        Flag("explain", "", "print each kernel step as it is taken, to standard error"),
        Flag("sig-proxy", "", "pass signals on to the container (default true)", default=True),
    ),
    run=_run,
    example=_EXAMPLE,
    interspersed=False,
    exit_code=125,
)
