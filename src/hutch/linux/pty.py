"""Pseudo-terminals of a devpts instance that need not be ours, without a name being looked up in it.

/dev/pts/N inside a container is the container's to replace (CVE-2025-52565): the peer comes from the
multiplexer by TIOCGPTPEER (Linux 4.13), and both ends are verified.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

from hutch.linux.abi import DEVPTS_SUPER_MAGIC
from hutch.linux.paths import filesystem_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_PTMX = os.makedev(5, 2)
_PTS_MAJORS = range(136, 144)  # UNIX98_PTY_SLAVE_MAJOR and the seven after it


def open_in(devpts_fd: int) -> tuple[int, int]:
    """Make a new pseudo-terminal in a devpts instance.

    Args:
        devpts_fd: the instance's root directory (O_PATH will do); not closed.

    Returns:
        (ptmx_fd, peer_fd): the controlling end and the terminal, both close-on-exec, neither anybody's
        controlling terminal; the caller's to close.

    Raises:
        OSError: ENODEV (not devpts, or not a pseudo-terminal), ENOSPC (the instance's `max` is reached).
    """
    if filesystem_type(devpts_fd) != DEVPTS_SUPER_MAGIC:
        raise OSError(errno.ENODEV, "not a devpts file system")
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    ptmx_fd = os.open("ptmx", flags | os.O_NOFOLLOW, dir_fd=devpts_fd)
    try:
        _verify(ptmx_fd, os.fstat(ptmx_fd).st_rdev == _PTMX)
        fcntl.ioctl(ptmx_fd, _TIOCSPTLCK, struct.pack("i", 0))
        peer_fd = fcntl.ioctl(ptmx_fd, _TIOCGPTPEER, flags)
    except BaseException:
        os.close(ptmx_fd)
        raise
    try:
        _verify(peer_fd, is_pts(peer_fd))
    except BaseException:
        os.close(ptmx_fd)
        os.close(peer_fd)
        raise
    return ptmx_fd, peer_fd


def _verify(fd: int, right: bool) -> None:
    if not right or filesystem_type(fd) != DEVPTS_SUPER_MAGIC:
        raise OSError(errno.ENODEV, "not a pseudo-terminal of this devpts")


def is_pts(fd: int) -> bool:
    """Whether `fd` is the terminal end of a pseudo-terminal."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _PTS_MAJORS


def number(ptmx_fd: int) -> int:
    """The N of /dev/pts/N, given the controlling end."""
    return int(struct.unpack("I", fcntl.ioctl(ptmx_fd, _TIOCGPTN, bytes(4)))[0])


def get_window_size(fd: int) -> tuple[int, int]:
    """(rows, columns), both 0 where nobody has set them."""
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Set the size; the terminal's foreground processes get SIGWINCH if it changed.

    Raises:
        OSError: EINVAL (beyond 65535), ENOTTY.
    """
    if not (0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF):
        raise OSError(errno.EINVAL, f"window size out of range: {rows} rows, {columns} columns")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def set_controlling(fd: int) -> None:
    """Make the terminal the calling session leader's controlling one: call os.setsid() before.

    Raises:
        OSError: EPERM, not a session leader, or one with a terminal, or it is another session's.
    """
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def make_raw(fd: int) -> list[Any]:
    """Let every byte pass as it is; returns what `restore` takes.

    Raises:
        OSError: ENOTTY.
    """
    before = get_attributes(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = before
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    restore(fd, [iflag, oflag, cflag, lflag, ispeed, ospeed, characters])
    return before


def get_attributes(fd: int) -> list[Any]:
    """The terminal's attributes, for `restore`."""
    try:
        return termios.tcgetattr(fd)
    except termios.error as problem:
        raise OSError(*problem.args) from None


def restore(fd: int, attributes: list[Any]) -> None:
    """Set the attributes that make_raw or get_attributes returned, at once."""
    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as problem:
        raise OSError(*problem.args) from None
