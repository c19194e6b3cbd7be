"""Descriptors 0, 1 and 2 of this process, whoever started it and however."""

from __future__ import annotations

import os


def fill() -> list[int]:
    """Open /dev/null wherever standard input, output or error is closed.

    Else the next file that is opened would take the number, and would go to a container as its standard input: a
    directory of the host's is a way out of it (the class of CVE-2024-21626). To be called before anything is opened.

    Returns:
        The descriptors that were closed.
    """
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one: those below are open
            os.set_inheritable(opened, True)
            closed.append(opened)
    return closed
