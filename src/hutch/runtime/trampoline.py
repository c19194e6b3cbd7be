"""The sealed image that replaces the interpreter before the container's program runs.

`build` makes a memfd of trampoline.c's machine code (checked in, see trampoline_image.py) with its configuration
appended, and seals it; `execute` becomes it. Both sides that enter a container, create and exec, end here.
Needs Linux 3.19 (execveat).
"""

from __future__ import annotations

import fcntl
import os
import struct

from hutch.runtime.trampoline_image import IMAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_CONFIG = struct.Struct("<iiIIIIII")
_PT_LOAD, _HEADER, _HEADER_SIZE = 1, 64, 56
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_MFD_EXEC = 0x10  # Linux 6.3; without it vm.memfd_noexec may forbid execution


def build(
    *,
    wait_fd: int = -1,
    proc_fd: int = -1,
    label_attribute: str = "",
    label: str = "",
    seccomp: bytes = b"",
    seccomp_flags: int = 0,
) -> int:
    """Make the sealed image.

    Args:
        wait_fd: read one byte from it before going on; not close-on-exec; the image closes it. -1: do not wait.
            Give it a `ticket` rather: a script that begins with "#!/proc/self/exe" would run -1 in circles.
        proc_fd: root of a procfs, not close-on-exec, closed by the image; used only with `label`.
        label_attribute: file below it that takes the label, such as ``thread-self/attr/exec``. The image opens it
            itself: the kernel takes a label only from the program that opened the file.
        label: what to write there.
        seccomp: filter program, as the kernel wants it; loaded last, so no_new_privs must be set.
        seccomp_flags: SECCOMP_FILTER_FLAG_* for it.

    Returns:
        The image's fd, close-on-exec. The caller closes it, or `execute`s it.

    Raises:
        OSError: the kernel refused the memfd.
    """
    code = IMAGES[os.uname().machine]
    attribute, text = label_attribute.encode() + b"\0", label.encode()
    body = code + b"\0" * (-len(code) % 8)
    filter_at = len(body)
    attribute_at = filter_at + len(seccomp)
    label_at = attribute_at + len(attribute)
    body += seccomp + attribute + text
    body += b"\0" * (-(len(body) + _CONFIG.size) % 8)
    body += _CONFIG.pack(
        wait_fd,
        proc_fd if label else -1,
        attribute_at,
        label_at,
        len(text),
        filter_at,
        len(seccomp) // 8,
        seccomp_flags,
    )
    return _sealed(_with_segment_size(body))


def ticket() -> int:
    """A descriptor with one byte to read: it lets an image run, once. Close-on-exec, the caller's to close."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.write(write_fd, b"1")
    os.close(write_fd)
    return read_fd


def execute(image_fd: int, program: str | bytes, args: Sequence[str | bytes], env: Mapping[bytes, bytes]) -> NoReturn:
    """Become the image, which becomes `program`.

    Raises:
        OSError: the image could not be executed; E2BIG when args and env are too large.
    """
    os.execve(image_fd, [program, *args], env)


def _with_segment_size(body: bytes) -> bytes:
    """Let the loadable segment end where the configuration does."""
    image = bytearray(body)
    at = _HEADER
    while struct.unpack_from("<I", image, at)[0] != _PT_LOAD:
        at += _HEADER_SIZE
    struct.pack_into("<QQ", image, at + 32, len(image), len(image))
    return bytes(image)


def _sealed(image: bytes) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("hutch-init", flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create("hutch-init", flags)
    try:
        os.write(fd, image)
        os.fchmod(fd, 0o555)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
