"""A helper process that tries to make a user namespace; its report says what the kernel said."""

from __future__ import annotations

from hutch.linux.namespaces import CLONE_NEWUSER, unshare
from hutch.snapshot import report


def main(_arguments: list[str]) -> int:
    """Try it."""
    try:
        unshare(CLONE_NEWUSER)
        return report.results()
    except OSError as problem:
        return report.failure(problem)
