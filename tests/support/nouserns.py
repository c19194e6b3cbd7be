"""Running a program where user namespaces are denied, in the two ways that hosts deny them.

python nouserns.py sysctl COMMAND…     user.max_user_namespaces is 0, in a user namespace with every id
python nouserns.py seccomp COMMAND…    a filter answers EPERM, as that of an engine around us does
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_CLONE_NEWUSER = 0x10000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_NUMBERS = {"x86_64": (272, 56, 435), "aarch64": (97, 220, 435)}  # unshare, clone, clone3
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000


def command(way: str, argv: list[str]) -> list[str]:
    """The command line that runs `argv` without user namespaces."""
    return [sys.executable, "-IS", __file__, way, *argv]


def _forbid_by_sysctl() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    inside_fd, outside_fd = os.pipe()
    parent = os.getpid()
    mapper = os.fork()
    if mapper == 0:
        os.close(outside_fd)
        os.read(inside_fd, 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{parent}/{name}", "w", encoding="ascii") as file:
                file.write("0 0 4294967295")
        os._exit(0)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    os.close(outside_fd)
    if os.waitpid(mapper, 0)[1] != 0:
        raise OSError("the ids could not be mapped")
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def _forbid_by_seccomp() -> None:
    unshare, clone, clone3 = _NUMBERS[os.uname().machine]
    program = [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 4, 0, clone3),
        (_EQUAL, 1, 0, unshare),
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 2, 1, _CLONE_NEWUSER),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    code = b"".join(struct.pack("<HBBI", *row) for row in program)
    buffer = ctypes.create_string_buffer(code)
    fprog = ctypes.create_string_buffer(struct.pack("H6xP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, first, second in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _MODE_FILTER, fprog)):
        if libc.prctl(option, ctypes.c_ulong(first), second, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    {"sysctl": _forbid_by_sysctl, "seccomp": _forbid_by_seccomp}[sys.argv[1]]()
    os.execvp(sys.argv[2], sys.argv[2:])
