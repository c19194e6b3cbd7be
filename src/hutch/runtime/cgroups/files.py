"""Reading and writing cgroup files; the words of their errors.

A cgroup directory may be writable by the container (a delegated v2 subtree), but its files are the kernel's own:
they can be neither replaced nor made into links.
"""

from __future__ import annotations

import errno
import os

from hutch.errors import Conflict, HutchError, InvalidArgument, NotSupported, PermissionDenied, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_READ_LIMIT = 1 << 24  # cgroup.procs of a million processes fits
_ENOTSUPP = 524  # the kernel's own, which errno.h does not have: kmem limits answer it
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SUCH_KNOB = (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV, _ENOTSUPP)


class Write:
    """One text for one file of one controller.

    Attributes:
        controller: whose file it is; decides the directory on cgroup v1.
        files: names of which the first that exists is written (``blkio.weight`` or ``blkio.bfq.weight``).
        text: what is written, with a single write(2).
    """

    __slots__ = ("controller", "files", "text")

    def __init__(self, controller: str, files: tuple[str, ...], text: str) -> None:
        self.controller = controller
        self.files = files
        self.text = text


class Explain:
    """Who is told of every directory made and every file written; replace `step` to listen."""

    __slots__ = ("step",)

    def __init__(self) -> None:
        self.step: Callable[[str, str, str], None] | None = None

    def __call__(self, verb: str, path: str, text: str = "") -> None:
        """Tell of one thing done: ``mkdir``, ``write`` (of `text`) or ``bpf``."""
        if self.step is not None:
            self.step(verb, path, text)


def write(path: str, text: str) -> None:
    """Give a cgroup file its new text in a single system call, which is how these files want it.

    Raises:
        OSError: as the kernel says, with the path.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Read a whole cgroup file.

    Raises:
        OSError: as the kernel says, or EFBIG beyond 16 MiB.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks: list[bytes] = []
        size = 0
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
            size += len(chunk)
            if size > _READ_LIMIT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return b"".join(chunks).decode()
    finally:
        os.close(fd)


def read_or(path: str, default: str = "") -> str:
    """Read a file that this kernel or this cgroup may not have; `default` if so."""
    try:
        return read(path)
    except FileNotFoundError:
        return default
    except OSError as error:
        if error.errno in _NO_SUCH_KNOB:
            return default
        raise


def read_int(path: str, default: int = 0) -> int:
    """Read one number; ``max`` is the largest unsigned 64-bit number, an absent file is `default`."""
    text = read_or(path).strip()
    if text == "max":
        return 2**64 - 1
    return int(text) if text else default


def read_flat(path: str) -> dict[str, int]:
    """Read ``key value`` lines; an absent file is an empty dict."""
    pairs: dict[str, int] = {}
    for line in read_or(path).splitlines():
        key, _, value = line.rpartition(" ")
        if key and value.isdigit():
            pairs[key] = int(value)
    return pairs


def write_all(writes: Iterable[Write], directory_of: Callable[[str], str], explain: Explain) -> None:
    """Write everything, in an order the kernel accepts.

    Limits that bound each other (memory and memory+swap, quota and burst) are refused with EINVAL in the wrong
    order, and which order is wrong depends on what is in force. So whatever is refused is tried again after the
    others, for as long as that helps.

    Args:
        writes: what to write.
        directory_of: controller → its directory; raises what is right when there is none.
        explain: is told of each write that took effect.

    Raises:
        HutchError: the first write that could not be made at all.
    """
    pending = list(writes)
    while pending:
        refused: list[tuple[Write, HutchError]] = []
        for each in pending:
            path = _existing(directory_of(each.controller), each)
            try:
                write(path, each.text)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise failed(each.controller, path, each.text, error) from error
                refused.append((each, failed(each.controller, path, each.text, error)))
            else:
                explain("write", path, each.text)
        if len(refused) == len(pending):
            raise refused[0][1]
        pending = [each for each, _ in refused]


def _existing(directory: str, each: Write) -> str:
    for name in each.files:
        path = f"{directory}/{name}"
        if len(each.files) == 1 or os.path.exists(path):
            return path
    raise NotSupported(
        f"cgroup: {' or '.join(each.files)}: this kernel's {each.controller} controller has no such file"
    )


def failed(controller: str, path: str, text: str, error: OSError) -> HutchError:
    """Say in hutch's words that a cgroup file could not be written."""
    number = error.errno or 0
    name = os.path.basename(path)
    cause = os.strerror(number).lower()
    what = f"cgroup: set {name} to {text[:80]!r}"
    if number in _NO_SUCH_KNOB:
        if not os.path.isdir(os.path.dirname(path)):
            return NotSupported(f"{what}: the cgroup {os.path.dirname(path)} is gone")
        return NotSupported(f"{what}: not supported by this kernel's {controller} controller")
    if number in NOT_ALLOWED:
        return PermissionDenied(f"{what}: {cause}", hint=f"{path} is not this user's to write")
    if number == errno.EBUSY and controller == "memory":
        usage = read_int(os.path.dirname(path) + "/memory.usage_in_bytes", -1)
        return Conflict(f"{what}: {cause} (current usage: {usage})", hint="the container uses more than that")
    if number in {errno.EINVAL, errno.ERANGE, errno.ENOSPC, errno.EDOM}:
        real_time = name.startswith("cpu.rt_")
        return InvalidArgument(
            f"{what}: {cause}", hint="the cgroup above has no real-time share to give" if real_time else ""
        )
    return Unavailable(f"{what}: {cause}")
