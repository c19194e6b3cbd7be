"""Private ranges of ids for root's containers (--userns=auto): each 65,536 wide, no two containers' the same.

A range is taken by making the link ids/<first id> → container id, which exactly one of two racing containers can; it is
given back with the container, and one whose container is gone is taken over.
"""

from __future__ import annotations

import os

from hutch.errors import Unavailable
from hutch.snapshot.idmap import subordinate

SIZE = 65_536
OWNERS = ("hutch", "containers")
"""Users of /etc/subuid and /etc/subgid whose ranges are for containers."""

_DEFAULT = (0x5000_0000, 4096 * SIZE)
"""Without such a user: a part of what systemd keeps for containers that nothing allocates from by default."""


def pool() -> list[int]:
    """The first id of every range there is, uids and gids alike."""
    for owner in OWNERS:
        uids = _starts(subordinate("/etc/subuid", owner, -1))
        gids = set(_starts(subordinate("/etc/subgid", owner, -1)))
        if found := [start for start in uids if start in gids]:
            return found
    return _starts([_DEFAULT])


def _starts(ranges: list[tuple[int, int]]) -> list[int]:
    return [first + step for first, count in ranges for step in range(0, count - SIZE + 1, SIZE)]


def take(root: str, container_id: str) -> int:
    """Take a range for a container.

    Args:
        root: the data root.
        container_id: whose it is until `give_back`; its directory exists.

    Raises:
        Unavailable: all are taken.
    """
    folder = f"{root}/ids"
    os.makedirs(folder, 0o700, exist_ok=True)
    starts = pool()
    first = int(container_id[:8], 16) % len(starts)
    for start in starts[first:] + starts[:first]:
        if _link(root, f"{folder}/{start}", container_id):
            return start
    raise Unavailable(
        "--userns=auto: every range of ids is taken", hint="add one for the user hutch to /etc/subuid, /etc/subgid"
    )


def _link(root: str, path: str, container_id: str) -> bool:
    for _ in range(2):
        try:
            os.symlink(container_id, path)
        except FileExistsError:
            try:
                if os.path.lexists(f"{root}/containers/{os.readlink(path)}"):
                    return False
                os.unlink(path)
            except FileNotFoundError:
                pass
        else:
            return True
    return False


def taken(root: str) -> list[int]:
    """The first id of every range that is somebody's."""
    try:
        return [int(name) for name in os.listdir(f"{root}/ids") if name.isdigit()]
    except FileNotFoundError:
        return []


def give_back(root: str, start: int, container_id: str) -> None:
    """Give a range back, if it is still the container's."""
    path = f"{root}/ids/{start}"
    try:
        if os.readlink(path) == container_id:
            os.unlink(path)
    except FileNotFoundError:
        pass
