"""Winning races on purpose: a path that is something else at each look."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swapping(path: str, target: str) -> Iterator[None]:
    """Exchange a directory with a link to `target`, again and again."""
    os.symlink(target, f"{path}.link")
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(0.0002):
            libc.renameat2(-100, path.encode(), -100, f"{path}.link".encode(), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for each in (path, f"{path}.link"):
            if os.path.islink(each):
                os.unlink(each)
