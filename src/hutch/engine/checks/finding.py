"""`Finding`: something that is not as it should be, and what can be done about it."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ASIDE = "damaged"
"""Below the data root: what was taken out of the way, for it may hold something that somebody wants back."""


class Finding:
    """One problem.

    Args:
        text: what it is, and of what, in one line.
        mend: puts it right and says what it did; raises HutchError or OSError. None where only a person can decide.
        hint: what that person can do.
        leftover: it is in nobody's way, and nothing is lost with it.
    """

    __slots__ = ("hint", "leftover", "mend", "text")

    def __init__(
        self, text: str, mend: Callable[[], str] | None = None, *, hint: str = "", leftover: bool = False
    ) -> None:
        self.text, self.mend, self.hint, self.leftover = text, mend, hint, leftover


def set_aside(root: str, path: str) -> str:
    """Move something below the data root out of the way; where it is then."""
    folder = f"{root}/{ASIDE}"
    os.makedirs(folder, 0o700, exist_ok=True)
    place = f"{folder}/{os.path.basename(path)}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"
    os.rename(path, place)
    return place
