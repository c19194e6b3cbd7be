"""Where a mount goes: a descriptor, found once below the container's root, made if it is missing.

Nothing here follows a name out of the root, and /proc, /sys and /dev of the root file system must be directories:
links there have let images redirect what a runtime writes (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579).
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidConfig
from hutch.linux.abi import PROC_SUPER_MAGIC
from hutch.linux.paths import filesystem_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.paths import Root
    from hutch.linux.proc import Proc

_FIXED = ("/proc", "/sys", "/dev")
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40

# What may be covered below /proc: files that lxcfs and the like replace, none of which the runtime writes.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
        "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
    )
)  # fmt: skip


def clean(path: str) -> str:
    """The path without "", "." and "..", absolute; only a name to compare, never to open."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def open_target(root: Root, destination: str, *, directory: bool) -> int:
    """Open the place to mount on, made if missing.

    Args:
        root: the container's root.
        destination: untrusted.
        directory: what to make, and what it must be.

    Returns:
        O_PATH, the caller's to close.

    Raises:
        OSError: ENOTDIR or EISDIR (something of the other kind is there), and as Root.mkdirs.
        InvalidConfig: /proc, /sys or /dev is not a directory.
    """
    if clean(destination) in _FIXED:
        return open_fixed(root, clean(destination)[1:])
    if directory:
        return root.mkdirs(destination)
    try:
        fd = root.open(destination, os.O_PATH)
    except FileNotFoundError:
        fd = _make_file(root, destination)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), destination)
    return fd


def open_fixed(root: Root, name: str, *, make: bool = True) -> int:
    """Open a directory right below the root that must not be a link; O_PATH, the caller's to close."""
    for _ in range(2):
        try:
            return os.open(name, _DIRECTORY, dir_fd=root.fd)
        except FileNotFoundError:
            if not make:
                raise
            try:
                os.mkdir(name, 0o755, dir_fd=root.fd)
            except FileExistsError:
                continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise InvalidConfig(f"/{name} of the root file system must be an ordinary directory") from None
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), f"/{name}")


def _make_file(root: Root, destination: str) -> int:
    """Make an empty file; where a dangling link stands, what it points to inside the root."""
    path: bytes = os.fsencode(destination)
    for _ in range(_MAX_LINKS):
        try:
            fd = root.create(path)
        except FileExistsError:
            path = _follow(root, path)
            continue
        os.close(fd)
        return root.open(path, os.O_PATH | os.O_NOFOLLOW)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), destination)


def _follow(root: Root, path: bytes) -> bytes:
    parent_fd, name = root.parent(path)
    try:
        target = os.readlink(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)
    return target if target.startswith(b"/") else path.rstrip(b"/").rpartition(b"/")[0] + b"/" + target


def path_in_root(proc: Proc, root: Root, fd: int) -> str:
    """Where `fd` is, seen from the root: the kernel's own answer, whatever links led there."""
    here, found = (os.readlink(proc.self_path(number), dir_fd=proc.fd) for number in (root.fd, fd))
    if here == "/":
        return found
    if found == here or found.startswith(here + "/"):
        return found[len(here) :] or "/"
    raise OSError(errno.EXDEV, "is outside the root file system", found)


def check_target(proc: Proc, root: Root, target_fd: int, mount_fd: int, destination: str) -> None:
    """Refuse to cover the root, or the procfs that processes look at (CVE-2019-16884).

    Raises:
        InvalidConfig: the mount may not be there.
    """
    place = path_in_root(proc, root, target_fd)
    if place == "/":
        raise InvalidConfig(f"mount at {destination}: would cover the root file system")
    if place == "/proc":
        if filesystem_type(mount_fd) != PROC_SUPER_MAGIC:
            raise InvalidConfig(f"mount at {destination}: only a procfs may be at /proc")
    elif place.startswith("/proc/") and place not in _PROC_FILES:
        raise InvalidConfig(f"mount at {destination}: not allowed below /proc")
