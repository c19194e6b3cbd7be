"""What goes wrong beside a process: a full disk, a lack of descriptors. It is noted, and takes no container along."""

from __future__ import annotations

import os

from hutch.errors import HutchError, Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def attempt(what: str, action: Callable[[], object]) -> bool:
    """Do what may fail without harm to the container; a failure goes to the log of the fork server.

    Args:
        what: a few words for that log.
        action: is done once.

    Returns:
        Whether it was done.
    """
    try:
        action()
    except Exception:
        note(what)
        return False
    return True


def note(what: str) -> None:
    """Write the exception that is being handled to the log."""
    from hutch.engine.forkserver.server import report

    try:
        report(what)
    except OSError:
        return  # the log's disk is full, too


def as_told(error: Exception) -> HutchError:
    """An exception as a client is told of it; what nobody expected is noted, too."""
    if isinstance(error, HutchError):
        return error
    if isinstance(error, OSError) and error.errno:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        return HutchError(": ".join([*names, os.strerror(error.errno).lower()]))
    note("unexpected")
    return Internal(f"internal error: {type(error).__name__}: {str(error)[:256]}")
