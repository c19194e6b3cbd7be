"""How a pull looks: bars on a terminal, Docker's plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from hutch.cli.messages import warn
from hutch.image import progress as phases
from hutch.image.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from hutch.image.reference import Reference

_WORDS = {
    phases.WAITING: "Waiting",
    phases.DOWNLOADING: "Downloading",
    phases.DOWNLOADED: "Download complete",
    phases.EXTRACTING: "Extracting",
    phases.COMPLETE: "Pull complete",
    phases.EXISTS: "Already exists",
}
_LASTING = frozenset({phases.DOWNLOADED, phases.COMPLETE, phases.EXISTS})


@contextmanager
def pull_progress(stream: TextIO, *, quiet: bool) -> Iterator[Progress]:
    """Show pulls on `stream` for as long as the block lasts."""
    if quiet:
        yield _Warnings()
    elif stream.isatty():
        with _bars(stream) as bars:
            yield _Terminal(stream, bars)
    else:
        yield _Lines(stream)


class _Warnings(Progress):
    """Says what must not be missed, and nothing else."""

    def warning(self, text: str) -> None:
        """Print it on stderr: stdout may be read by a program."""
        warn(text)


class _Lines(_Warnings):
    """One line for each change of phase that lasts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def resolved(self, reference: Reference, digest: str) -> None:  # noqa: ARG002
        self.say(f"{reference.tag or reference.digest}: Pulling from {reference.path}")

    def layer(self, digest: str, phase: str, done: int, total: int) -> None:  # noqa: ARG002
        if phase not in _LASTING:
            return
        with self._lock:
            if (digest, phase) not in self._said:
                self._said.add((digest, phase))
                self.say(f"{_short(digest)}: {_WORDS[phase]}")

    def finished(self, reference: Reference, digest: str, *, updated: bool) -> None:
        what = "Downloaded newer image for" if updated else "Image is up to date for"
        self.say(f"Digest: {digest}\nStatus: {what} {reference.familiar()}")


class _Terminal(_Lines):
    """A bar for each layer, redrawn in place."""

    def __init__(self, stream: TextIO, bars: Bars) -> None:
        super().__init__(stream)
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def warning(self, text: str) -> None:
        self.say(f"warning: {text}")

    def layer(self, digest: str, phase: str, done: int, total: int) -> None:
        with self._lock:
            task = self._tasks.get(digest)
            if task is None:
                task = self._tasks[digest] = self._bars.add_task(_short(digest), total=total, phase="")
            finished = phase in (phases.COMPLETE, phases.EXISTS)
            self._bars.update(task, completed=total if finished else done, phase=_WORDS[phase])

    def finished(self, reference: Reference, digest: str, *, updated: bool) -> None:
        self._tasks.clear()
        super().finished(reference, digest, updated=updated)


def _bars(stream: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}:"),
        TextColumn("{task.fields[phase]:17}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(file=stream),
    )


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
