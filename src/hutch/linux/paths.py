"""Paths below a root that its owner does not control: resolved by the kernel, held by descriptor.

`Root` is the only way to a path in a container's root file system, a volume or an unpacked layer.
No name is ever walked twice: what a method returns is a descriptor, and what follows acts on that.
Needs Linux 5.6 (openat2).
"""

from __future__ import annotations

import errno
import os
import stat
from ctypes import byref, sizeof

from hutch.linux.abi import AT_FDCWD, NR, PROC_SUPER_MAGIC, OpenHow, StatFs
from hutch.linux.libc import c_string, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

_ATTEMPTS = 256  # of a lookup that a concurrent rename or mount spoils
_MAX_LINKS = 40  # the kernel's own MAXSYMLINKS
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_ANCHOR = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` under RESOLVE_* rules. The descriptor is close-on-exec.

    EAGAIN means that a rename or a mount raced with a scoped lookup of `..`; it is tried again, a
    bounded number of times. So is EXDEV in a scoped lookup, which the same race can cause, unless
    RESOLVE_NO_XDEV or RESOLVE_BENEATH ask for that very error.

    Raises:
        OSError: ELOOP (a link that `resolve` forbids, or 40 of them), EXDEV (left the root or the
            mount), EAGAIN (the races never ended), EINVAL (flags openat2 does not take), and open(2)'s.
    """
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    how = OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for _ in range(_ATTEMPTS):
        try:
            return syscall(NR.openat2, dirfd, path, byref(how), sizeof(how), path=path)
        except OSError as problem:
            if not _raced(problem, resolve):
                raise
            failure = problem
    raise failure


def _raced(problem: OSError, resolve: int) -> bool:
    """Whether a concurrent rename or mount may have caused a lookup's failure."""
    if problem.errno == errno.EAGAIN:
        return not resolve & RESOLVE_CACHED
    asked_for = RESOLVE_NO_XDEV | RESOLVE_BENEATH
    return problem.errno == errno.EXDEV and bool(resolve & RESOLVE_IN_ROOT) and not resolve & asked_for


def filesystem_type(fd: int) -> int:
    """The magic number (`abi.*_MAGIC`) of the file system that `fd` lies on; O_PATH will do."""
    result = StatFs()
    syscall(NR.fstatfs, fd, byref(result))
    return int(result.f_type)


class Root:
    """A directory that everything opened through it stays below, whatever its links say.

    Attributes:
        fd: O_PATH | O_DIRECTORY | O_CLOEXEC; closed by close().
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        """Take over `fd`, an O_PATH or readable descriptor of a directory."""
        self.fd = fd

    @classmethod
    def at(cls, path: str | bytes) -> Root:
        """The root at a host path, which the caller trusts: its links are followed."""
        return cls(os.open(path, _DIRECTORY))

    def close(self) -> None:
        """Close the descriptor. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, path: str | bytes, flags: int, mode: int = 0) -> int:
        """Open `path` as a process chrooted to the root would, except that magic links are refused.

        Args:
            path: untrusted; absolute or relative means the same. "" is the root itself.
            flags: O_*; O_CLOEXEC is added. Of device nodes and FIFOs the caller thinks himself.
            mode: permission bits for O_CREAT, minus the umask; must be 0 without it.

        Raises:
            OSError: as openat2.
        """
        return openat2(self.fd, path or b"/", flags, mode, _IN_ROOT)

    def parent(self, path: str | bytes) -> tuple[int, bytes]:
        """Open the directory that holds the last component of `path`, which is not followed.

        Trailing slashes do not count. A path that names a directory by itself ("", "/", "a/.", "a/..")
        gives that directory and the name ".", which the kernel refuses to remove or to rename.

        Returns:
            An O_PATH descriptor, the caller's to close, and a name without a slash.
        """
        head, _, name = c_string(path).rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            return self.open(path, _DIRECTORY), b"."
        return self.open(head, _DIRECTORY), name

    def mkdirs(self, path: str | bytes, mode: int = 0o755) -> int:
        """Open the directory `path`, making what is missing, every component by descriptor.

        Symbolic links are followed inside the root, dangling ones too: what they point to is made.

        Args:
            path: untrusted.
            mode: exact permission bits of new directories, whatever the umask.

        Returns:
            An O_PATH descriptor of the last directory, the caller's to close.

        Raises:
            OSError: ENOTDIR (something else is in the way), ELOOP, and those of mkdir(2).
        """
        try:
            return self.open(path, _DIRECTORY)
        except FileNotFoundError:
            return _Walk(self.fd, mode).to(path)

    def create(self, path: str | bytes, mode: int = 0o644) -> int:
        """Create a regular file that was not there, and its parents; open it for reading and writing.

        Args:
            path: untrusted; its last component is not followed.
            mode: exact permission bits of the file, whatever the umask; new parents get 0755.

        Raises:
            OSError: EEXIST (anything of that name, a link too), and as mkdirs.
        """
        head, _, name = c_string(path).rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        parent_fd = self.mkdirs(head)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(name, flags, mode, dir_fd=parent_fd)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, path) from None
        finally:
            os.close(parent_fd)
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)
        return fd

    def read(self, path: str | bytes, limit: int) -> bytes:
        """The content of a regular file of at most `limit` bytes.

        Raises:
            OSError: EFBIG (longer), EINVAL (not a regular file), and as open.
        """
        # A look before the open proper: merely opening some devices does things.
        os.close(self._regular(path, os.O_PATH))
        fd = self._regular(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            chunks, room = [], limit + 1
            while room > 0 and (chunk := os.read(fd, min(room, 1 << 20))):
                chunks.append(chunk)
                room -= len(chunk)
        finally:
            os.close(fd)
        if room <= 0:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        return b"".join(chunks)

    def _regular(self, path: str | bytes, flags: int) -> int:
        fd = self.open(path, flags)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return fd


class _Walk:
    """A lookup by hand that makes the directories it misses.

    The stack holds a descriptor for every directory from the root down to the present one, so that
    ".." means the directory we came through, and nothing outside can be reached by moving things.
    """

    def __init__(self, root_fd: int, mode: int) -> None:
        self._mode = mode
        self._stack = [os.open(".", _DIRECTORY, dir_fd=root_fd)]
        self._links = 0

    def to(self, path: str | bytes) -> int:
        try:
            pending = _components(c_string(path))
            while pending:
                name = pending.pop()
                if name == b"..":
                    self._ascend(1)
                elif (target := self._enter(name, path)) is not None:
                    if target.startswith(b"/"):
                        self._ascend(len(self._stack))
                    pending += _components(target)
            return self._stack.pop()
        finally:
            for fd in self._stack:
                os.close(fd)

    def _ascend(self, count: int) -> None:
        for _ in range(min(count, len(self._stack) - 1)):
            os.close(self._stack.pop())

    def _enter(self, name: bytes, path: str | bytes) -> bytes | None:
        """Push directory `name`, made if missing; or return the target of a link of that name."""
        here = self._stack[-1]
        for _ in range(_ATTEMPTS):
            try:
                fd = os.open(name, _ANCHOR | os.O_NOFOLLOW, dir_fd=here)
            except FileNotFoundError:
                self._make(here, name, path)
                continue
            kind = os.fstat(fd).st_mode
            if stat.S_ISDIR(kind):
                self._stack.append(fd)
                return None
            try:
                if not stat.S_ISLNK(kind):
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                self._links += 1
                # On procfs the text of a magic link names a place outside.
                if self._links > _MAX_LINKS or filesystem_type(fd) == PROC_SUPER_MAGIC:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                return os.readlink(b"", dir_fd=fd)
            finally:
                os.close(fd)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)

    def _make(self, here: int, name: bytes, path: str | bytes) -> None:
        """Make a directory; should something else have taken its place, the caller looks again."""
        made = False
        try:
            os.mkdir(name, self._mode, dir_fd=here)
            made = True
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        except OSError as problem:
            if problem.errno == errno.EEXIST or (made and problem.errno in _REPLACED):
                return
            raise OSError(problem.errno, problem.strerror, path) from None
        try:
            mode = os.fstat(fd).st_mode
            if mode & 0o777 != self._mode & 0o777:
                os.fchmod(fd, (mode & 0o7000) | self._mode)
        finally:
            os.close(fd)


def _components(path: bytes) -> list[bytes]:
    """The components still to walk, the next one last."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def open_path(path: str | bytes, flags: int = 0) -> int:
    """An O_PATH descriptor of a host path that the caller trusts; O_* such as O_DIRECTORY may be added."""
    return openat2(AT_FDCWD, path, flags | os.O_PATH)
