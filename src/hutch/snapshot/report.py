"""The helper's side of a report (see `hutch.snapshot.helper`). Imports only cheap modules."""

from __future__ import annotations

import os

from hutch.errors import HutchError

_FIELD_BYTES_MAX = 4096
_REPORT_FD = 1


def results(*fields: bytes) -> int:
    """Report success. Returns the exit status."""
    _send(b"ok", *fields)
    return 0


def failure(problem: BaseException) -> int:
    """Report an exception. Returns the exit status."""
    _send(*described(problem))
    return 1


def described(problem: BaseException) -> tuple[bytes, ...]:
    """An exception as fields."""
    if isinstance(problem, HutchError):
        return b"error", type(problem).__name__.encode(), _text(str(problem)), _text(problem.hint)
    if isinstance(problem, OSError) and problem.errno:
        name = problem.filename if isinstance(problem.filename, (str, bytes)) else ""
        return b"os", b"%d" % problem.errno, _text(problem.strerror or ""), _text(os.fsdecode(name))
    if isinstance(problem, MemoryError):
        return b"error", b"InvalidLayer", b"layer: unpacking it takes more memory than it may", b""
    return b"error", b"Internal", _text(f"{type(problem).__name__}: {problem}"), b""


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\0")[:_FIELD_BYTES_MAX]


def _send(*fields: bytes) -> None:
    data = b"\0".join(fields)
    while data:
        data = data[os.write(_REPORT_FD, data) :]
