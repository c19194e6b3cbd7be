"""The directories of cgroups: making, listing and removing them, and enabling controllers down a v2 tree."""

from __future__ import annotations

import errno
import os
import time

from hutch.errors import Unavailable
from hutch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PARENT = "hutch"


def make(directory: str, explain: files.Explain) -> str | None:
    """Make a cgroup and the parents it lacks; return the topmost one made, None if it was there.

    Raises:
        OSError: as the kernel says.
    """
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return None
    except FileNotFoundError:
        parent = make(os.path.dirname(directory), explain)
        # The parent may go between the two calls: another container's destroy removes an empty default parent.
        made = make(directory, explain)
        return parent or made
    os.chmod(directory, 0o755)  # whatever the umask: a container whose ids are mapped is one of the others
    explain("mkdir", directory)
    return directory


def descendants(directory: str) -> Iterator[str]:
    """Yield every cgroup below `directory`, children before their parents, then `directory` itself."""
    found = [directory]
    for path in found:  # grows while it is walked
        try:
            with os.scandir(path) as entries:
                found.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            continue
    yield from reversed(found)


def remove(directory: str, deadline: float) -> None:
    """Remove a cgroup and all below it, waiting for exiting processes until `deadline` (time.monotonic()).

    Raises:
        Unavailable: something still lives in it.
        OSError: as the kernel says, but for EBUSY and ENOENT.
    """
    pause_s = 0.001
    while True:
        busy = ""
        for path in descendants(directory):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
                    raise
                busy = path
        if not busy:
            return
        if time.monotonic() >= deadline:
            count = len(files.read_or(f"{busy}/cgroup.procs").split())
            raise Unavailable(f"remove cgroup {busy}: device or resource busy", hint=f"{count} processes are in it")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def pids(directory: str, recursive: bool) -> list[int]:
    """Return the processes of a cgroup, sorted; those of other pid namespaces (0) are left out."""
    found: set[int] = set()
    for path in descendants(directory) if recursive else (directory,):
        try:
            found.update(int(word) for word in files.read(f"{path}/cgroup.procs").split())
        except FileNotFoundError:
            continue
        except OSError as error:
            # ENODEV: removed while open. EOPNOTSUPP: a threaded cgroup, whose processes its domain lists.
            if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
                raise
    found.discard(0)
    return sorted(found)


def remove_default_parent(directory: str) -> None:
    """Remove hutch's own default parent when its last container is gone."""
    parent = os.path.dirname(directory)
    if os.path.basename(parent) != DEFAULT_PARENT:
        return
    try:
        os.rmdir(parent)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY, *files.NOT_ALLOWED}:
            raise


def enable_controllers(
    directory: str, top: str, explain: files.Explain, only: set[str] | None = None
) -> dict[str, OSError]:
    """Enable controllers for `directory` in each of its ancestors below `top`.

    Args:
        directory: the cgroup that shall have them.
        top: where the hierarchy is mounted.
        explain: is told of each write.
        only: the controllers wanted; all that there are if None.

    Returns:
        The controllers that could not be enabled, with the reason.
    """
    refused: dict[str, OSError] = {}
    ancestor = top
    for name in directory[len(top) :].strip("/").split("/"):
        path = f"{ancestor}/cgroup.subtree_control"
        offered = set(files.read_or(f"{ancestor}/cgroup.controllers").split())
        missing = sorted(offered - set(files.read_or(path).split()))
        if only is not None:
            missing = [controller for controller in missing if controller in only]
        if missing:
            refused.update(_enable(path, missing, explain))
        ancestor = f"{ancestor}/{name}"
    return refused


def _enable(path: str, controllers: list[str], explain: files.Explain) -> dict[str, OSError]:
    """Enable controllers in one cgroup: all at once, else one by one to learn which are refused."""
    text = " ".join(f"+{controller}" for controller in controllers)
    try:
        files.write(path, text)
    except OSError as error:
        if len(controllers) == 1:
            return {controllers[0]: error}
        refused = {}
        for controller in controllers:
            refused.update(_enable(path, [controller], explain))
        return refused
    explain("write", path, text)
    return {}


def top_of(directory: str) -> str:
    """Return the top of the unified hierarchy that `directory` is in: the highest ancestor that is a cgroup."""
    while os.path.exists(f"{os.path.dirname(directory)}/cgroup.controllers"):
        directory = os.path.dirname(directory)
    return directory
