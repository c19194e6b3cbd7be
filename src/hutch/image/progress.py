"""What a pull tells while it runs. The command line draws it; the API streams it; tests record it."""

from __future__ import annotations

from hutch.image.reference import Reference

WAITING = "waiting"  # for another process that downloads the same blob
DOWNLOADING = "downloading"
DOWNLOADED = "downloaded"
EXTRACTING = "extracting"
COMPLETE = "complete"
EXISTS = "exists"  # nothing was to be done


class Progress:
    """Does nothing with what it is told; subclass it. Calls come from several threads and must be quick."""

    def resolved(self, reference: Reference, digest: str) -> None:
        """The registry serves `reference` as `digest`; its layers come next."""

    def layer(self, digest: str, phase: str, done: int, total: int) -> None:
        """A layer is in `phase`, one of the constants here, with `done` of its `total` bytes there."""

    def warning(self, text: str) -> None:
        """Something the user should know, and that stops nothing."""

    def finished(self, reference: Reference, digest: str, *, updated: bool) -> None:
        """The image is in the store; `updated` unless the same one was there before."""
