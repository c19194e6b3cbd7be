"""procfs that nobody else can mount over: for writes that must land, and for magic links.

A container can cover files of its own /proc; a label, a uid_map or an oom score written through a
path may then go elsewhere (CVE-2019-16884, CVE-2025-52881). So: our own instance, attached nowhere,
and lookups that cross neither mounts nor links. Needs Linux 5.6 (openat2).
"""

from __future__ import annotations

import errno
import os

from hutch.linux import mount, paths
from hutch.linux.abi import PROC_SUPER_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_STRICT = paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_MAGICLINKS | paths.RESOLVE_NO_XDEV
_ATTRS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


class Proc:
    """A procfs, by descriptor.

    Paths are relative to it and hold no links; a leading "self" or "thread-self" is replaced by the
    caller's number *in that procfs's PID namespace*, and fails with ENOENT outside it.

    Attributes:
        fd: O_PATH of the root; closed by close().
        private: whether it is our own instance, rather than the host's /proc.
    """

    __slots__ = ("fd", "private")

    def __init__(self, fd: int, *, private: bool = False) -> None:
        """Take over a descriptor of a procfs root.

        Raises:
            OSError: EXDEV, `fd` is of something else (and is closed).
        """
        if paths.filesystem_type(fd) != PROC_SUPER_MAGIC or os.fstat(fd).st_ino != 1:
            os.close(fd)
            raise OSError(errno.EXDEV, "not the root of a procfs")
        self.fd, self.private = fd, private

    @classmethod
    def new(cls, *, subset_pid: bool = False) -> Proc:
        """A private instance of the current PID namespace; where that is refused, the host's /proc.

        Args:
            subset_pid: only the process directories, as a smaller surface: no sys/ (Linux 5.8).
        """
        try:
            return cls.detached(subset_pid=subset_pid)
        except OSError as problem:
            # In a user namespace a new procfs is refused where the visible one is partly covered.
            if problem.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.EBUSY):
                raise
            return cls.host()

    @classmethod
    def detached(cls, *, subset_pid: bool = False) -> Proc:
        """A private instance; EPERM without CAP_SYS_ADMIN in the PID namespace's owner."""
        context_fd = mount.fsopen("proc")
        try:
            if subset_pid:
                mount.fsconfig_string(context_fd, "subset", "pid")
            mount.fsconfig_create(context_fd)
            return cls(mount.fsmount(context_fd, _ATTRS), private=True)
        finally:
            os.close(context_fd)

    @classmethod
    def host(cls, path: str = "/proc") -> Proc:
        """The procfs mounted at `path`, verified."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file of this procfs and of nothing mounted on it.

        Raises:
            OSError: EXDEV (something is mounted there), ELOOP (a link), and open(2)'s.
        """
        if not flags & os.O_PATH:
            flags |= os.O_NOCTTY
        fd = paths.openat2(self.fd, self._resolve(path), flags, resolve=_STRICT)
        if paths.filesystem_type(fd) != PROC_SUPER_MAGIC:
            os.close(fd)
            raise OSError(errno.EXDEV, "not on procfs", path)
        return fd

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """All of a file; EFBIG beyond `limit` bytes."""
        fd = self.open(path)
        try:
            chunks, room = [], limit
            while chunk := os.read(fd, 1 << 16):
                chunks.append(chunk)
                room -= len(chunk)
                if room < 0:
                    raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, path) from None
        finally:
            os.close(fd)
        return b"".join(chunks)

    def write(self, path: str, data: str | bytes) -> None:
        """Hand `data` over at once, as procfs files want it.

        Raises:
            OSError: as open; EINVAL, EPERM of the file itself; EIO if only a part was taken.
        """
        content = data.encode() if isinstance(data, str) else data
        fd = self.open(path, os.O_WRONLY)
        try:
            written = os.write(fd, content)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, path) from None
        finally:
            os.close(fd)
        if written != len(content):
            raise OSError(errno.EIO, f"took {written} of {len(content)} bytes", path)

    def self_path(self, fd: int) -> str:
        """The magic link of our descriptor `fd`, relative to this procfs: use it with dir_fd=proc.fd."""
        return f"{self._resolve('self')}/fd/{fd}"

    def reopen(self, fd: int, flags: int) -> int:
        """Open anew, with other flags, what `fd` (an O_PATH descriptor, say) is of.

        Returns:
            A descriptor of the same file, close-on-exec, the caller's to close.

        Raises:
            OSError: ELOOP (`fd` is of a symbolic link), EXDEV (something covers the magic link),
                and open(2)'s. A FIFO blocks without O_NONBLOCK; devices act: check before.
        """
        directory_fd = self.open("self/fd", os.O_PATH | os.O_DIRECTORY)
        try:
            new_fd = os.open(str(fd), (flags & ~os.O_NOFOLLOW) | os.O_CLOEXEC, dir_fd=directory_fd)
        finally:
            os.close(directory_fd)
        wanted, got = os.fstat(fd), os.fstat(new_fd)
        if (wanted.st_dev, wanted.st_ino) != (got.st_dev, got.st_ino):
            os.close(new_fd)
            raise OSError(errno.EXDEV, "the magic link led elsewhere", f"self/fd/{fd}")
        return new_fd

    def _resolve(self, path: str) -> str:
        head, slash, rest = path.partition("/")
        if head in ("self", "thread-self"):
            head = os.readlink(head, dir_fd=self.fd)
        return head + slash + rest

    def close(self) -> None:
        """Close the descriptor. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
