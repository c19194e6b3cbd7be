"""The one door to the C library: `syscall`, typed, with errno turned into OSError.

Everything in `hutch.linux` that Python's own `os` lacks goes through here, by number, so that an old
or a foreign libc makes no difference. PEP 475 does not cover ctypes: the EINTR loop is here as well.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long

_ZERO = ctypes.c_long(0)
_PADDING = tuple((_ZERO,) * (6 - count) for count in range(7))


def c_string(text: str | bytes) -> bytes:
    """`text` in the file system's encoding, refused where C would see only a part of it.

    Raises:
        OSError: EINVAL, `text` holds a NUL byte.
    """
    data = os.fsencode(text)
    if b"\0" in data:
        raise OSError(errno.EINVAL, "embedded NUL byte", text)
    return data


def error(path: str | bytes | None = None) -> OSError:
    """The OSError for the errno that the last foreign call left behind."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def _argument(value: Any) -> Any:
    if value is None:
        return _ZERO
    if isinstance(value, int):
        return ctypes.c_long(value)  # a bare int would be passed as 32 bits
    if isinstance(value, (str, bytes)):
        return ctypes.c_char_p(c_string(value))
    return value


def syscall(number: int, *args: Any, path: str | bytes | None = None, restart: bool = True) -> int:
    """Make one system call.

    Args:
        number: from `abi.NR`.
        args: at most six. An int becomes a 64-bit word; str and bytes become C strings; None is a
            null pointer; `byref(...)`, arrays and pointers pass as they are. Missing ones are zero.
        path: what the error is about; becomes the OSError's filename.
        restart: repeat the call after EINTR, once Python's signal handlers have run.

    Returns:
        What the kernel returned, never negative.

    Raises:
        OSError: the kernel's errno, or EINVAL for a string with a NUL byte.
    """
    converted = [_argument(value) for value in args]
    while True:
        result: int = _syscall(ctypes.c_long(number), *converted, *_PADDING[len(converted)])
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EINTR or not restart:
            raise error(path)
