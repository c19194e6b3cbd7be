"""The lock of the store, and leases: what running work relies on before an image names it.

A pull downloads blobs that no image refers to yet; a `run` is about to mount layers that a
concurrent `image rm` could take away. Each writes the digests and chain ids it needs in a lease
first and looks whether they are there second. Garbage collection, which holds the lock alone,
spares whatever a live lease names. A lease lives as long as its file is locked, so one whose
process was killed counts for nothing and needs no clean-up.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_MAX_LEASE_BYTES = 4 << 20


@contextmanager
def store_lock(root: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the store at `root`; threads exclude one another as processes do.

    Not reentrant. Held for moments only: nothing waits for a network or a user under it.
    """
    lock_fd = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock_fd, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
        os.close(lock_fd)


class Lease:
    """A claim on blobs and layers; a context manager that gives them up at its end.

    Args:
        root: of the store. On a read-only file system there is nothing to claim.

    Attributes:
        names: what was claimed.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._path = os.path.join(_directory(root), os.urandom(16).hex())
        self._fd = -1
        self.names: set[str] = set()
        try:
            self._claim()
        except OSError as problem:
            if problem.errno != errno.EROFS:  # nobody can collect anything there
                raise

    def _claim(self) -> None:
        os.makedirs(_directory(self._root), mode=0o700, exist_ok=True)
        with store_lock(self._root, shared=True):  # the collector must not meet the file before its lock
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def add(self, names: Iterable[str]) -> None:
        """Claim digests of blobs and chain ids of layers, whether or not they exist yet.

        What exists when this returns stays until `release`.
        """
        added = list(names)
        self.names.update(added)
        if self._fd < 0:
            return
        lines = "".join(f"{name}\n" for name in added).encode()
        with store_lock(self._root, shared=True):
            os.write(self._fd, lines)

    def release(self) -> None:
        """Give everything up."""
        if self._fd < 0:
            return
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1


def leased(root: str) -> set[str]:
    """Return what live leases name, and remove dead ones; the caller holds the lock alone."""
    names: set[str] = set()
    directory = _directory(root)
    with suppress(FileNotFoundError):
        for entry in os.listdir(directory):
            path = os.path.join(directory, entry)
            with suppress(FileNotFoundError):
                names |= _read_if_alive(path)
    return names


def _read_if_alive(path: str) -> set[str]:
    lease_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(lease_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return set(os.read(lease_fd, _MAX_LEASE_BYTES).decode().split())
        os.unlink(path)
        return set()
    finally:
        os.close(lease_fd)


def _directory(root: str) -> str:
    return os.path.join(root, "leases")
