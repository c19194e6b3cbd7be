"""Go on in a sealed copy of the interpreter, before entering a container in which somebody may be waiting.

In a PID namespace that is joined, the process can be found as /proc/<pid>/exe before it has executed the container's
program, and whoever may trace it could later write to that file: to the host's interpreter (CVE-2019-5736). A sealed
memfd cannot be written to by anybody. docs/adr/0004.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from hutch.errors import Internal

_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_MFD_EXEC = 0x10  # Linux 6.3; without it vm.memfd_noexec may forbid execution
_MARK = "HUTCH_SEALED"


def is_sealed() -> bool:
    """Whether the program of this process is a memfd that nobody can change."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS) & _SEALS == _SEALS
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: no memfd at all
            raise
        return False
    finally:
        os.close(fd)


def ensure_sealed() -> None:
    """Return in a sealed interpreter: at once in one, else this program starts again from its first line.

    Only a process that has done nothing yet may call it; descriptors that are not close-on-exec stay open.

    Raises:
        Internal: the copy does not run sealed.
        OSError: memfd_create(2), sendfile(2) or execve(2) failed.
    """
    if is_sealed():
        os.environ.pop(_MARK, None)
        return
    if os.environ.get(_MARK) == str(os.getpid()):
        raise Internal("sealed interpreter: executed, and yet not what runs")
    # The interpreter finds its library by argv[0], which the launcher's shebang line gave a path.
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(_sealed_copy(), words, {**os.environ, _MARK: str(os.getpid())})


def _sealed_copy() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy_fd = os.memfd_create("hutch-python", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        copy_fd = os.memfd_create("hutch-python", flags)
    program_fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        left = os.fstat(program_fd).st_size
        while left > 0:
            sent = os.sendfile(copy_fd, program_fd, None, left)
            if not sent:
                raise OSError(errno.EIO, "the interpreter is shorter than its size")
            left -= sent
        os.fchmod(copy_fd, 0o555)
        fcntl.fcntl(copy_fd, _F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(copy_fd)
        raise
    finally:
        os.close(program_fd)
    return copy_fd
