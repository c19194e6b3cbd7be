"""seccomp: loading a filter, and listening to what it asks. Compiling one is done elsewhere.

Needs Linux 5.0 for listeners; a flag that the kernel does not know is EINVAL.
"""

from __future__ import annotations

import errno
import fcntl
import os
from ctypes import addressof, byref, c_uint16, c_uint32, create_string_buffer, sizeof

from hutch.linux.abi import NR, SeccompNotif, SeccompNotifAddfd, SeccompNotifResp, SockFprog
from hutch.linux.libc import syscall

_SET_MODE_FILTER, _GET_ACTION_AVAIL, _GET_NOTIF_SIZES = 1, 2, 3

FILTER_FLAG_TSYNC = 1
FILTER_FLAG_LOG = 2
FILTER_FLAG_SPEC_ALLOW = 4
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_TSYNC_ESRCH = 16
FILTER_FLAG_WAIT_KILLABLE_RECV = 32

RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000
RET_DATA = 0x0000FFFF

USER_NOTIF_FLAG_CONTINUE = 1
ADDFD_FLAG_SETFD = 1
ADDFD_FLAG_SEND = 2

_IOCTL_RECV = 0xC0502100
_IOCTL_SEND = 0xC0182101
_IOCTL_ID_VALID = 0x40082102
_IOCTL_ADDFD = 0x40182103

_INSTRUCTION = 8
_MAX_INSTRUCTIONS = 4096


def load(program: bytes, flags: int = 0) -> int:
    """Install a filter on the calling thread (with FILTER_FLAG_TSYNC on all threads).

    Args:
        program: struct sock_filter after struct sock_filter: classic BPF in machine order.
        flags: FILTER_FLAG_*.

    Returns:
        With FILTER_FLAG_NEW_LISTENER a descriptor, close-on-exec, the caller's to close; else 0.

    Raises:
        OSError: EACCES (neither no_new_privs nor CAP_SYS_ADMIN), EINVAL (the program or a flag),
            EBUSY (a listener exists already), ESRCH (TSYNC: a thread has another filter).
    """
    count, rest = divmod(len(program), _INSTRUCTION)
    if rest or not 0 < count <= _MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"not a filter of 1 to {_MAX_INSTRUCTIONS} instructions: {len(program)} bytes")
    code = create_string_buffer(program, len(program))
    result = syscall(NR.seccomp, _SET_MODE_FILTER, flags, byref(SockFprog(count, addressof(code))))
    if flags & FILTER_FLAG_NEW_LISTENER:
        return result
    if result:
        raise OSError(errno.ESRCH, f"thread {result} has a filter of its own")
    return 0


def action_available(action: int) -> bool:
    """Whether the kernel knows a RET_* action."""
    try:
        syscall(NR.seccomp, _GET_ACTION_AVAIL, 0, byref(c_uint32(action)))
    except OSError as problem:
        if problem.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def flags_available(flags: int) -> bool:
    """Whether the kernel takes all these FILTER_FLAG_* together.

    WAIT_KILLABLE_RECV goes only with NEW_LISTENER, and TSYNC with NEW_LISTENER only by TSYNC_ESRCH.
    """
    try:
        syscall(NR.seccomp, _SET_MODE_FILTER, flags, None)  # no program: EFAULT, once the flags have passed
    except OSError as problem:
        return problem.errno == errno.EFAULT
    return True


def notification_sizes() -> tuple[int, int, int]:
    """The kernel's sizes of (notification, response, data) in bytes: they may grow over ours."""
    sizes = (c_uint16 * 3)()
    syscall(NR.seccomp, _GET_NOTIF_SIZES, 0, byref(sizes))
    return sizes[0], sizes[1], sizes[2]


def receive(listener_fd: int) -> SeccompNotif:
    """Wait for a process to make a call that the filter answers with RET_USER_NOTIF.

    What `data.args` point to may change while it is read: check `is_waiting` after, and never decide
    access by it.

    Raises:
        OSError: ENOENT (the caller was killed meanwhile), ENODEV on poll: everybody has gone.
    """
    buffer = bytearray(max(notification_sizes()[0], sizeof(SeccompNotif)))
    fcntl.ioctl(listener_fd, _IOCTL_RECV, buffer)
    return SeccompNotif.from_buffer_copy(buffer)


def respond(listener_fd: int, notification_id: int, *, value: int = 0, error: int = 0, proceed: bool = False) -> None:
    """Answer a notification: the call returns `value`, or fails with errno `error`, or is made after all.

    Raises:
        OSError: ENOENT, the caller no longer waits.
    """
    flags = USER_NOTIF_FLAG_CONTINUE if proceed else 0
    response = SeccompNotifResp(notification_id, value, -error, flags)
    buffer = bytearray(max(notification_sizes()[1], sizeof(response)))
    buffer[: sizeof(response)] = bytes(response)
    fcntl.ioctl(listener_fd, _IOCTL_SEND, buffer)


def is_waiting(listener_fd: int, notification_id: int) -> bool:
    """Whether the caller still waits, so that its pid is still it."""
    try:
        fcntl.ioctl(listener_fd, _IOCTL_ID_VALID, notification_id.to_bytes(8, "little"))
    except FileNotFoundError:
        return False
    return True


def add_fd(listener_fd: int, notification_id: int, fd: int, *, new_fd: int = -1, respond: bool = False) -> int:
    """Give the waiting process a close-on-exec duplicate of `fd`; returns its number there.

    Args:
        listener_fd: from `load`.
        notification_id: of a caller that waits.
        fd: ours; not closed.
        new_fd: the number it must get there; -1 for the lowest free one.
        respond: let the call return that number, in one step (Linux 5.14).
    """
    flags = (ADDFD_FLAG_SETFD if new_fd >= 0 else 0) | (ADDFD_FLAG_SEND if respond else 0)
    request = SeccompNotifAddfd(notification_id, flags, fd, max(new_fd, 0), os.O_CLOEXEC)
    number: int = fcntl.ioctl(listener_fd, _IOCTL_ADDFD, bytearray(request))  # given bytes, it would return a copy
    return number
