"""Which snapshotter works here, and why: tried out, not guessed.

The answer is kept in the data root with the kernel it was found on, so that only the first start pays for it.
"""

from __future__ import annotations

import os

import msgspec

from hutch.errors import HutchError, InvalidArgument, NotSupported
from hutch.snapshot import helper, idmap
from hutch.snapshot.copy import CopySnapshotter
from hutch.snapshot.layers import delete
from hutch.snapshot.overlay import OPTIONS, OverlaySnapshotter
from hutch.snapshot.snapshotter import Snapshotter

NAMES = ("overlay", "copy")
_FILE = "snapshotter.json"
_FILE_BYTES_MAX = 64 << 10


class Choice(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        name: overlay or copy.
        reason: one line for `hutch info`.
        kernel: release it was found on.
        user: whether it was found in a user namespace.
    """

    name: str
    reason: str
    kernel: str = ""
    user: bool = False


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
        choice = probe(root, user=user)
        if wanted and choice.name != wanted:
            raise NotSupported(f"snapshotter {wanted}: {choice.reason}")
    if choice.name == "overlay":
        return OverlaySnapshotter(root, user=user), choice
    return CopySnapshotter(root), choice


def probe(root: str, *, user: bool) -> Choice:
    """Find out what works below `root`, or recall it."""
    kernel = os.uname().release
    path = f"{root}/{_FILE}"
    try:
        with open(path, "rb", buffering=0) as file:
            known = msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=Choice)
        if (known.kernel, known.user) == (kernel, user):
            return known
    except (FileNotFoundError, msgspec.MsgspecError):
        pass  # first start, or not ours: try again
    reason = _overlay_fails(root, user)
    if reason:
        choice = Choice("copy", f"overlay does not work here: {reason}", kernel, user)
    else:
        what = "overlay in a user namespace (userxattr)" if user else "overlay, mounted natively"
        choice = Choice("overlay", what, kernel, user)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb", opener=_private) as file:
        file.write(msgspec.json.encode(choice))
    os.rename(new, path)
    return choice


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
    except HutchError as problem:
        return str(problem)
    finally:
        delete(path)
    return ""


def _user() -> bool:
    return idmap.needs_user_namespace() or idmap.in_user_namespace()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
