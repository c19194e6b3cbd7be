"""The question before something is removed that was not named."""

from __future__ import annotations

import sys

from hutch.errors import InvalidArgument


def confirmed(command: str, warning: str) -> bool:
    """Say what would be removed, and ask on the terminal.

    Args:
        command: its name, such as ``volume prune``.
        warning: what will be removed, as a sentence.

    Raises:
        InvalidArgument: there is nobody to ask.
    """
    print(f"WARNING! {warning}")
    if not sys.stdin.isatty():
        raise InvalidArgument(f"{command}: no terminal to confirm at", hint="add --force")
    try:
        return input("Are you sure you want to continue? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
