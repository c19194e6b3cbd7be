"""The process's terminal: made in the container's own devpts, its controlling end sent to who asked for it.

Nothing is looked up below /dev/pts by name (CVE-2025-52565). The same for create and exec.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux import pty
from hutch.linux.seqpacket import Channel
from hutch.runtime.namespaces import host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.linux.paths import Root
    from hutch.spec.runtime import Process, Spec


def open_terminal(root: Root, process: Process) -> tuple[int, int]:
    """Make a terminal in the devpts at /dev/pts of the container.

    Args:
        root: the container's root, before or after pivot_root.
        process: its `consoleSize` and `user` are used.

    Returns:
        (ptmx_fd, peer_fd), the caller's to close.

    Raises:
        OSError: ENODEV, there is no devpts at /dev/pts.
    """
    try:
        devpts_fd = root.open("/dev/pts", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "/dev/pts") from None
    try:
        ptmx_fd, peer_fd = pty.open_in(devpts_fd)
    finally:
        os.close(devpts_fd)
    size = process.get("consoleSize")
    if size:
        pty.set_window_size(ptmx_fd, size["height"], size["width"])
    uid = (process.get("user") or {}).get("uid", 0)
    try:
        os.fchown(peer_fd, uid, -1)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
    return ptmx_fd, peer_fd


def send(console_fd: int, ptmx_fd: int) -> None:
    """Hand the controlling end over, as runc does: one message on a stream socket with one descriptor.

    Args:
        console_fd: connected to who asked; not closed.
        ptmx_fd: not closed.
    """
    channel = Channel(os.dup(console_fd))
    try:
        channel.send(b"/dev/ptmx", [ptmx_fd])
    finally:
        channel.close()


def adopt(peer_fd: int) -> None:
    """Make the terminal 0, 1, 2 and the controlling terminal of this session leader; `peer_fd` is not closed."""
    pty.set_controlling(peer_fd)
    for number in range(3):
        os.dup2(peer_fd, number)


def own_streams(uid: int, fds: Iterable[int] = (0, 1, 2)) -> None:
    """Give pipes on 0, 1 and 2 to the program's user, so that it can open /dev/stdout anew.

    Only pipes: a file or a device may be the host's, and a link of the image's may have led to it (CVE-2026-88265).
    In a user namespace that its owner has no id in, a pipe cannot be given away: then the parent does it before.
    """
    for number in fds:
        try:
            found = os.fstat(number)
            if stat.S_ISFIFO(found.st_mode) and found.st_uid != uid:
                os.fchown(number, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBADF, errno.EINVAL, errno.EROFS):
                raise


def give_streams(spec: Spec, process: Process, fds: Iterable[int]) -> None:
    """`own_streams` from the host, where the container has ids of its own: the pipes get its user's id there."""
    mappings = (spec.get("linux") or {}).get("uidMappings") or []
    if mappings and not process.get("terminal"):
        own_streams(host_id(mappings, (process.get("user") or {}).get("uid", 0)), fds)
