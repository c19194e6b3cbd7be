"""Which snapshotter works here, and why: tried out, not guessed.

The answer is kept in the data root with the kernel it was found on, so that only the first start pays for it.
"""

from __future__ import annotations

import errno
import os

from hutch.errors import HutchError, InvalidArgument, InvalidConfig, NotSupported, NoUserNamespaces
from hutch.runtime import documents
from hutch.snapshot import helper, idmap
from hutch.snapshot.layers import delete
from hutch.snapshot.overlay import OPTIONS, OverlaySnapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.snapshot.snapshotter import Snapshotter

NAMES = ("overlay", "copy")
_FILE = "snapshotter.json"
_FILE_BYTES_MAX = 64 << 10


class Choice:
    """An answer.

    Attributes:
        name: overlay or copy.
        reason: one line for `hutch info`.
        kernel: release it was found on.
        user: whether it was found in a user namespace.
    """

    __slots__ = ("kernel", "name", "reason", "user")

    def __init__(self, name: str, reason: str, kernel: str = "", *, user: bool = False) -> None:
        self.name = name
        self.reason = reason
        self.kernel = kernel
        self.user = user


def choose(root: str, wanted: str = "") -> tuple[Snapshotter, Choice]:
    """The snapshotter for a data root.

    Args:
        root: the data root.
        wanted: a name from the configuration; "" for the best that works.

    Raises:
        InvalidArgument: no such snapshotter.
        NotSupported: the one wanted does not work here.
    """
    if wanted and wanted not in NAMES:
        raise InvalidArgument(f"snapshotter {wanted[:50]!r}: not one of {', '.join(NAMES)}")
    user = _user()
    if wanted == "copy":
        choice = Choice("copy", "asked for")
    else:
        try:
            choice = probe(root, user=user)
        except NoUserNamespaces as problem:
            # Not remembered: it may be allowed next time. What needs one will fail with the same words.
            choice = Choice("overlay", f"not tried: {problem}")
        except OSError as problem:
            if problem.errno != errno.EROFS:
                raise
            choice = Choice("overlay", "not tried: the data root is read-only")
        if wanted and choice.name != wanted:
            raise NotSupported(f"snapshotter {wanted}: {choice.reason}")
    if choice.name == "overlay":
        return OverlaySnapshotter(root, user=user), choice
    from hutch.snapshot.copy import CopySnapshotter

    return CopySnapshotter(root), choice


def probe(root: str, *, user: bool) -> Choice:
    """Find out what works below `root`, or recall it.

    Raises:
        NoUserNamespaces: nothing could be tried.
    """
    kernel = os.uname().release
    path = f"{root}/{_FILE}"
    try:
        known = documents.read_object(path, _FILE_BYTES_MAX)
    except (FileNotFoundError, InvalidConfig):
        known = {}  # first start, or not ours: try again
    if (known.get("kernel"), known.get("user")) == (kernel, user) and _answers(known):
        return Choice(known["name"], known["reason"], kernel, user=user)
    reason = _overlay_fails(root, user)
    if reason:
        choice = Choice("copy", f"overlay does not work here: {reason}", kernel, user=user)
    else:
        what = "overlay in a user namespace (userxattr)" if user else "overlay, mounted natively"
        choice = Choice("overlay", what, kernel, user=user)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb", opener=_private) as file:
        file.write(documents.dump_bytes({name: getattr(choice, name) for name in Choice.__slots__}))
    os.rename(new, path)
    return choice


def _answers(known: dict[str, Any]) -> bool:
    return known.get("name") in NAMES and isinstance(known.get("reason"), str)


def _overlay_fails(root: str, user: bool) -> str:
    """Why overlay does not mount below `root`; "" if it does."""
    path = f"{root}/tmp/probe-{os.urandom(8).hex()}"
    os.makedirs(path, mode=0o700)
    options = [f"lowerdir={path}/lower", f"upperdir={path}/upper", f"workdir={path}/work", *OPTIONS]
    if user:
        options.append("userxattr")
    try:
        helper.run("hutch.snapshot.probe_child", ["user" if user else "trusted", path, ",".join(options)])
    except OSError as problem:
        return (problem.strerror or str(problem)).lower()
    except NoUserNamespaces:
        raise
    except HutchError as problem:
        return str(problem)
    finally:
        delete(path)
    return ""


def _user() -> bool:
    return idmap.needs_user_namespace() or idmap.in_user_namespace()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
