"""Who the container's process is: Docker's ``user[:group]`` against the image's own /etc/passwd and /etc/group.

The files are the image's, so they are hostile: read through a view of the container's root that follows no link out of
it and opens nothing but regular files, at most 1 MiB with lines of at most 64 KiB, and never through the host's NSS
(CVE-2024-9676, CVE-2026-47262). A string of digits is a number and never a name (CVE-2026-46680).
"""

from __future__ import annotations

import errno
import os

from hutch.engine.record import Record
from hutch.engine.values import FILE_LIMIT, LINE_LIMIT, has_control, only_digits
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class RootView(Protocol):
        """What a container's root file system will hold, before it is mounted."""

        def read(self, path: str, limit: int) -> bytes:
            """A regular file below the root, at most `limit` bytes; OSError otherwise."""


ID_MAX = (1 << 31) - 1
"""Docker's bound; 2**32 - 1 is -1 to the kernel, and what wraps becomes 0 (CVE-2024-40635)."""


class ContainerUser(Record):
    """The resolved user.

    Attributes:
        groups: supplementary group ids; the primary one is among them, so that a file that denies it stays denied
            to a set-group-id program (CVE-2022-36109).
        home: HOME when nothing else sets it.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"
    name: str = ""


def parse_id(text: str) -> int:
    """Read a user or group id.

    Raises:
        InvalidArgument: outside 0 to 2**31 - 1.
    """
    if not only_digits(text) or len(text) > 10 or int(text) > ID_MAX:
        raise InvalidArgument(f"uids and gids must be in range 0-{ID_MAX}: '{text[:64]}'")
    return int(text)


def _entries(view: RootView, path: str, fields: int) -> Iterator[list[str]]:
    """The well-formed lines of a passwd-like file; none when the image has no such file."""
    try:
        data = view.read(path, FILE_LIMIT)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        reason = (
            f"larger than {FILE_LIMIT} bytes" if error.errno == errno.EFBIG else os.strerror(error.errno or 0).lower()
        )
        raise InvalidArgument(f"{path} of the image: {reason}") from None
    for line in data.split(b"\n"):
        if len(line) > LINE_LIMIT:
            raise InvalidArgument(f"{path} of the image: a line is longer than {LINE_LIMIT} bytes")
        parts = line.decode("utf-8", "surrogateescape").split(":")
        if len(parts) >= fields and parts[0] and not line.lstrip().startswith(b"#"):
            yield parts


def _is_id(text: str) -> bool:
    return only_digits(text) and len(text) <= 10 and int(text) <= ID_MAX


def _find_user(view: RootView, user: str) -> list[str] | None:
    by_id = only_digits(user)
    for parts in _entries(view, "/etc/passwd", 6):
        if not _is_id(parts[2]) or not _is_id(parts[3]):
            continue
        if (int(parts[2]) == int(user)) if by_id else (parts[0] == user):
            return parts
    return None


def _find_group(view: RootView, group: str) -> int:
    if only_digits(group):
        return parse_id(group)
    for parts in _entries(view, "/etc/group", 3):
        if parts[0] == group and _is_id(parts[2]):
            return int(parts[2])
    raise InvalidArgument(f"unable to find group {group[:64]}: no matching entries in group file")


def resolve_user(user: str, group_add: tuple[str, ...], view: RootView) -> ContainerUser:
    """Resolve ``[user][:group]`` and --group-add as Docker does.

    Args:
        user: names or numbers; from the command line or the image, hostile in the second case.
        group_add: names or numbers of further groups.
        view: the container's root.

    Raises:
        InvalidArgument: no such user or group, an id out of range, or files that cannot be trusted.
    """
    if has_control(user):
        raise InvalidArgument(f"invalid user: {user[:64]!r} has control characters")
    name, colon, group = user.partition(":")
    if ":" in group or (colon and not group and not name):
        raise InvalidArgument(f"invalid user: '{user[:64]}'")
    wanted = name or "0"
    if only_digits(wanted):
        parse_id(wanted)
    entry = _find_user(view, wanted)
    if entry is None and not only_digits(wanted):
        raise InvalidArgument(f"unable to find user {name[:64]}: no matching entries in passwd file")
    uid = int(entry[2]) if entry else parse_id(wanted)
    gid = int(entry[3]) if entry else 0
    groups: list[int] = []
    if group:
        gid = _find_group(view, group)
    elif entry:
        groups = [
            int(parts[2])
            for parts in _entries(view, "/etc/group", 4)
            if _is_id(parts[2]) and entry[0] in parts[3].split(",")
        ]
    groups += [_find_group(view, extra) for extra in group_add]
    home = entry[5] if entry and entry[5] else "/"
    if has_control(home) or not home.startswith("/"):
        raise InvalidArgument(f"/etc/passwd of the image: invalid home directory {home[:64]!r}")
    ordered = tuple(dict.fromkeys((gid, *groups)))
    if len(ordered) > 65536:
        raise InvalidArgument("/etc/group of the image: more groups than a process can have")
    return ContainerUser(uid=uid, gid=gid, groups=ordered, home=home, name=entry[0] if entry else "")
