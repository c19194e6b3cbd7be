"""An empty volume gets what the image has in its place, whole or not at all (CVE-2025-9566).

    copy      the image's files into volumes/<name>/fill.part, where no container reaches them
    syncfs, then rename fill.part → fill: from here on the volume is going to be filled
    move      each entry of fill into _data, unless a container has made one of that name meanwhile
    like      owner, mode and times of the image's directory, then fill is removed

Whoever is killed before the rename leaves an empty volume, which is filled again; after it, the next one goes on
moving. A helper process does all of that, and the lock on _data is inherited by it: an orphaned helper finishes its
work, and the next run waits for it.
"""

from __future__ import annotations

import fcntl
import os

from hutch.snapshot import helper
from hutch.snapshot.layers import delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fill(data: str, layers: Callable[[], Sequence[str]], form: str) -> None:
    """Fill a volume if it is empty.

    Args:
        data: the volume's `_data`.
        layers: asked, when it is empty, for the host directories that are merged in the image, topmost first; none
            if it has nothing there.
        form: how whiteouts are written in them.

    Raises:
        HutchError, OSError: of the copying, such as ENOSPC; the volume is empty then as before.
    """
    fd = os.open(data, _DIRECTORY)
    try:
        # One of two containers that start at once does it, and the other waits.
        fcntl.flock(fd, fcntl.LOCK_EX)
        begun = os.path.lexists(f"{os.path.dirname(data)}/fill")
        found = () if begun or os.listdir(fd) else layers()
        if not begun and not found:
            return
        pairs = [word for layer in reversed(found) for word in (form, layer)]
        helper.run("hutch.volume.copyup_child", [os.path.dirname(data), *pairs], held=[fd])
    finally:
        os.close(fd)


def forget(data: str) -> None:
    """Delete what an interrupted `fill` has copied so far, unless somebody else is copying now."""
    fd = os.open(data, _DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        delete(f"{os.path.dirname(data)}/fill.part")
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
