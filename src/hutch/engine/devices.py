"""Device nodes of the host that a container is given: --device, and all of them with --privileged."""

from __future__ import annotations

import os
import stat

from hutch.engine.mountspec import DeviceRequest
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from hutch.engine.options import RunOptions
    from hutch.spec.runtime import LinuxDevice, Mount

_DEPTH_MAX = 8
# The container has its own of these.
_OWN = ("console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty")
_OWN_ALL = (*_OWN, "urandom", "zero")


def requested(options: RunOptions) -> tuple[DeviceRequest, ...]:
    """The --device values, and with --privileged every device node of /dev."""
    if not options.privileged:
        return options.devices
    return (*options.devices, *(DeviceRequest(source=path, target=path) for path in _all_nodes()))


def _all_nodes() -> Iterator[str]:
    for name in sorted(os.listdir("/dev")):
        if name not in _OWN_ALL:
            yield from (path for path, _ in _nodes(f"/dev/{name}", 0))


def _nodes(path: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """The device nodes at or below `path`; links below it are not followed."""
    try:
        found = os.stat(path) if depth == 0 and not path.startswith("/dev/.") else os.lstat(path)
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            yield path, found
        elif stat.S_ISDIR(found.st_mode) and depth < _DEPTH_MAX:
            for name in sorted(os.listdir(path)):
                yield from _nodes(f"{path}/{name}", depth + 1)
    except FileNotFoundError:
        return


def device_nodes(requests: tuple[DeviceRequest, ...]) -> list[tuple[str, LinuxDevice]]:
    """Look the requests up on the host.

    Returns:
        (path on the host, the node as the container shall have it), each target once.

    Raises:
        InvalidArgument: nothing there, or no device.
    """
    found: dict[str, tuple[str, LinuxDevice]] = {}
    for request in requests:
        try:
            is_directory = stat.S_ISDIR(os.stat(request.source).st_mode)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidArgument(f"error gathering device information: {request.source}: {reason}") from None
        nodes = list(_nodes(request.source, 0))
        if not nodes and not is_directory:
            raise InvalidArgument(f"{request.source}: not a device node")
        for path, status in nodes:
            target = request.target + path[len(request.source) :]
            found[target] = (path, _device(target, status))
    return list(found.values())


def _device(path: str, status: os.stat_result) -> LinuxDevice:
    return {
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "path": path,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def device_binds(nodes: list[tuple[str, LinuxDevice]]) -> list[Mount]:
    """The same as bind mounts, for a user namespace, in which mknod(2) of a device is refused."""
    return [
        {"destination": device["path"], "type": "bind", "source": source, "options": ["bind", "nosuid", "noexec"]}
        for source, device in nodes
    ]
