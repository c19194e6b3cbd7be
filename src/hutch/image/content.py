"""Blobs by digest, in an OCI image layout.

    content/                  0700
      oci-layout index.json   index.json belongs to hutch.image.store
      blobs/sha256/<hex>      complete, verified, never written again
      ingest/sha256-<hex>     a blob on its way; a prefix of it after a crash
      leases/<random>         what running pulls rely on (hutch.image.lease)
      lock                    changes of index.json, and garbage collection

A blob appears under its name only when its size and digest are right and it is on disk. Its
partial file carries the lock of whoever writes it, so one process downloads and the others wait.

OCI image-spec image-layout.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hutch.errors import BlobNotFound, DigestMismatch, Internal
from hutch.image import digest as digests
from hutch.linux.files import private_directory

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20
_ALGORITHMS = ("sha256", "sha512")


class Ingest:
    """One blob being written; made by `ContentStore.ingest`, a context manager.

    Leaving it without `commit` keeps the bytes written so far, for the next attempt to go on from.

    Attributes:
        digest, size: what the blob must turn out to be; size in bytes.
        present: the blob was there already, or another process finished it while this one waited.
        offset: bytes written and hashed so far.
    """

    def __init__(self, store: ContentStore, digest: str, size: int, partial_fd: int) -> None:
        self.digest = digest
        self.size = size
        self.present = partial_fd < 0
        self.offset = 0
        self._store = store
        self._fd = partial_fd
        self._hash = digests.hasher(digest)
        if not self.present:
            self._rehash()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`.

        Raises:
            DigestMismatch: more bytes than promised; nothing of the blob is kept.
            OSError: ENOSPC and the like; what was written stays for a later attempt.
        """
        if self.offset + len(chunk) > self.size:
            self.discard()
            raise DigestMismatch(f"blob {self.digest}", wanted=f"{self.size} bytes", got="more")
        rest = memoryview(chunk)
        while rest:
            written = os.write(self._fd, rest)
            self._hash.update(rest[:written])
            self.offset += written
            rest = rest[written:]

    def restart(self) -> None:
        """Forget what is written: the sender could not go on from `offset`."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = digests.hasher(self.digest)
        self.offset = 0

    def commit(self) -> None:
        """Make the blob appear in the store, durably.

        Raises:
            DigestMismatch: size or digest differ; nothing of the blob is kept.
        """
        got = f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if self.offset != self.size or got != self.digest:
            offset = self.offset
            self.discard()
            raise DigestMismatch(
                f"blob {self.digest}", wanted=f"{self.digest} ({self.size} bytes)", got=f"{got} ({offset} bytes)"
            )
        os.fchmod(self._fd, 0o444)
        os.fsync(self._fd)
        target = self._store.path(self.digest)
        os.rename(self._store.partial_path(self.digest), target)
        _sync_directory(os.path.dirname(target))
        self.close()

    def discard(self) -> None:
        """Remove what is written."""
        if self._fd >= 0:
            os.unlink(self._store.partial_path(self.digest))
        self.close()

    def close(self) -> None:
        """Release the lock; the partial file stays unless it is empty."""
        if self._fd < 0:
            return
        path = self._store.partial_path(self.digest)
        if self.offset == 0 and _is_at(self._fd, path):
            os.unlink(path)
        # Explicitly: a forked child may hold a copy of the descriptor, and the lock with it.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1

    def _rehash(self) -> None:
        """Hash what an earlier attempt left; more than promised cannot be a prefix."""
        left = os.fstat(self._fd).st_size
        if left > self.size:
            self.restart()
            return
        while chunk := os.read(self._fd, _CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)


class ContentStore:
    """The blobs below one directory.

    Args:
        root: the directory of the layout, made with mode 0700 if it is missing: layers hold
            set-user-id programs that no local user may reach (CVE-2021-41091).
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._blobs = os.path.join(self.root, "blobs")
        self._ingest = os.path.join(self.root, "ingest")
        for directory in (
            self.root,
            self._blobs,
            self._ingest,
            *(os.path.join(self._blobs, algorithm) for algorithm in _ALGORITHMS),
        ):
            private_directory(directory)
        layout = os.path.join(self.root, "oci-layout")
        try:
            if stat.S_IMODE(os.stat(self.root).st_mode) & 0o077:
                os.chmod(self.root, 0o700)
            if not os.path.exists(layout):
                write_file(layout, _LAYOUT)
        except OSError as problem:
            if problem.errno not in (errno.EROFS, errno.ENOENT):  # then it is there to be read, or empty
                raise

    def path(self, digest: str) -> str:
        """The path of a blob, whether or not it is there."""
        algorithm, encoded = digests.split(digest)
        return os.path.join(self._blobs, algorithm, encoded)

    def partial_path(self, digest: str) -> str:
        """The path of a blob on its way."""
        return os.path.join(self._ingest, "-".join(digests.split(digest)))

    def has(self, digest: str) -> bool:
        """Whether the blob is complete and in the store."""
        return os.path.lexists(self.path(digest))

    def size(self, digest: str) -> int:
        """The size of a blob in bytes.

        Raises:
            BlobNotFound: it is not in the store.
        """
        try:
            return os.stat(self.path(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str) -> int:
        """Open a blob for reading; the caller closes the descriptor.

        Raises:
            BlobNotFound: it is not in the store.
            Internal: something that is no regular file stands in its place.
        """
        try:
            blob_fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Internal(f"blob {digest}: not a regular file") from None
        if not stat.S_ISREG(os.fstat(blob_fd).st_mode):
            os.close(blob_fd)
            raise Internal(f"blob {digest}: not a regular file")
        return blob_fd

    def read(self, digest: str, limit: int) -> bytes:
        """Read a small blob whole, and check it again.

        Args:
            digest: of the blob.
            limit: most bytes it may have.

        Raises:
            BlobNotFound: it is not in the store.
            DigestMismatch: it is damaged, or larger than `limit`.
        """
        blob_fd = self.open(digest)
        with open(blob_fd, "rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise DigestMismatch(f"blob {digest}", wanted=f"at most {limit} bytes", got="more")
        got = digests.of(data, digest.partition(":")[0])
        if got != digest:
            raise DigestMismatch(f"blob {digest}", wanted=digest, got=got)
        return data

    def add(self, data: bytes, digest: str | None = None) -> str:
        """Store a small blob whole and return its digest.

        Raises:
            DigestMismatch: `digest` is given and is not the digest of `data`.
        """
        digest = digest or digests.of(data)
        with self.ingest(digest, len(data)) as ingest:
            if not ingest.present:
                ingest.restart()
                ingest.write(data)
                ingest.commit()
        return digest

    def ingest(self, digest: str, size: int, *, wait: Callable[[], None] | None = None) -> Ingest:
        """Begin or go on writing a blob.

        Args:
            digest: checked before it names a file.
            size: bytes promised.
            wait: called again and again while another process writes this blob; it sleeps for a
                moment and raises to give up. None blocks until the other is done.

        Returns:
            An Ingest; ask `present` first, then write from `offset` on.
        """
        path = self.partial_path(digest)
        while not self.has(digest):
            partial_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _lock(partial_fd, wait)
                if _is_at(partial_fd, path):  # else it was renamed or removed while we waited
                    return Ingest(self, digest, size, partial_fd)
            except BaseException:
                os.close(partial_fd)
                raise
            os.close(partial_fd)
        return Ingest(self, digest, size, -1)

    @contextmanager
    def claim(self, name: str, *, wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Be the only one, of all processes, to do what `name` stands for; see `ingest` for `wait`."""
        path = os.path.join(self._ingest, f"{name}.lock")
        while True:
            lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _lock(lock_fd, wait)
                if _is_at(lock_fd, path):
                    break
            except BaseException:
                os.close(lock_fd)
                raise
            os.close(lock_fd)
        try:
            yield
        finally:
            os.unlink(path)
            fcntl.flock(lock_fd, fcntl.LOCK_UN)
            os.close(lock_fd)

    def partial_size(self, digest: str) -> int:
        """Bytes of a blob that an earlier attempt left."""
        try:
            return os.stat(self.partial_path(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def remove(self, digest: str) -> int:
        """Remove a blob and return the bytes freed; 0 if it was not there."""
        path = self.path(digest)
        try:
            size = os.stat(path, follow_symlinks=False).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[str]:
        """The digests of all complete blobs; files with other names are left alone."""
        for algorithm in _ALGORITHMS:
            for name in os.listdir(os.path.join(self._blobs, algorithm)):
                digest = f"{algorithm}:{name}"
                if digests.is_digest(digest):
                    yield digest

    def remove_partials(self, names: Iterable[str] | None = None) -> int:
        """Remove the partial files that nobody is writing; return the bytes freed.

        Args:
            names: digests of blobs (other words are nobody's); None is all of them, and old locks too.
        """
        freed = 0
        if names is None:
            paths = [os.path.join(self._ingest, name) for name in os.listdir(self._ingest)]
        else:
            paths = [self.partial_path(name) for name in names if digests.is_digest(name)]
        for path in paths:
            with suppress(FileNotFoundError):
                partial_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(partial_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_at(partial_fd, path):
                        freed += os.fstat(partial_fd).st_size
                        os.unlink(path)
                except BlockingIOError:
                    pass  # a pull is writing it
                finally:
                    os.close(partial_fd)
        return freed


def write_file(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file by `data`, durably: after a crash it is the old one or the new one."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}.{os.urandom(4).hex()}")
    file_fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(file_fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(file_fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _sync_directory(path: str) -> None:
    directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)


def _lock(file_fd: int, wait: Callable[[], None] | None) -> None:
    if wait is None:
        fcntl.flock(file_fd, fcntl.LOCK_EX)
        return
    while True:
        try:
            fcntl.flock(file_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            wait()


def _is_at(file_fd: int, path: str) -> bool:
    held = os.fstat(file_fd)
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)


def _missing(digest: str) -> BlobNotFound:
    return BlobNotFound(f"blob {digest}: not in the store")
