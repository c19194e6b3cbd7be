"""What people are told on stderr. Nothing but this module writes there what an image or a registry said."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.errors import HutchError


def plain(text: str) -> str:
    """`text` with its control characters spelled out: what others wrote must not command the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def described(error: HutchError) -> str:
    """An error as its users read it: one line, and a second one for the hint if there is one."""
    return plain(f"hutch: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))


def complain(error: HutchError) -> None:
    """Say what failed, where a command goes on with its next argument."""
    print(described(error), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say what should be known, and stops nothing."""
    print(plain(f"hutch: warning: {text}"), file=sys.stderr, flush=True)
