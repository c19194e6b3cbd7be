"""Log files on disk: `name` grows, then becomes `name.1`, that `name.2`, and the oldest goes; perhaps compressed.

Writing keeps three promises. A record is in the file whole or not at all: what a full disk or a kill left of one is
cut off. The files never take more than their number times their size (and one record). And nobody waits: a rotated
file is compressed a little with every write, so that it is done before the next one, without a thread.

Readers need no lock (see `reading`): files are renamed from the oldest to the newest, so whoever opens them from
the newest to the oldest meets each at least once.
"""

from __future__ import annotations

import errno
import os

from hutch.engine.logs.lines import Losses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.logs.compression import Compression

FULL = os.strerror(errno.ENOSPC).lower()
_MODE = 0o600
_COMPRESSED_FOR_EACH_BYTE = 4


class RotatedFile:
    """A log's newest file, open for appending.

    Args:
        directory: the engine's own, 0700; kept open, so that it may be renamed or removed meanwhile.
        name: of the newest file.
        max_size: bytes after which a file is rotated.
        max_files: how many there may be, rotated ones included.
        compress: whether rotated files become ``.gz``.
        whole: how much of an existing file is whole records, for a descriptor of it; a killed writer's rest is cut off.

    Raises:
        OSError: there is no such directory, or the file cannot be opened.
    """

    __slots__ = (
        "_compress",
        "_compression",
        "_dir_fd",
        "_fd",
        "_max_files",
        "_max_size",
        "_name",
        "_size",
        "_torn",
        "_whole",
        "losses",
    )

    def __init__(
        self,
        directory: str,
        name: str,
        *,
        max_size: int,
        max_files: int,
        compress: bool,
        whole: Callable[[int], int],
    ) -> None:
        self._name, self._max_size, self._max_files, self._compress = name, max_size, max_files, compress
        self._whole = whole
        self._compression: Compression | None = None
        self._size = 0
        self._torn = False
        self._fd = -1
        self.losses = Losses()
        self._dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._unlink(_temporary(name))
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = os.open(self._name, flags, _MODE, dir_fd=self._dir_fd)
        found = os.fstat(self._fd).st_size
        self._size = self._whole(self._fd) if found else 0
        if self._size != found:
            os.ftruncate(self._fd, self._size)

    def room(self) -> int:
        """How many bytes may still be written before the file after the last of them is another."""
        return self._max_size - self._size if self._size < self._max_size else self._max_size

    def append(self, data: bytes, *, by_line: bool = False) -> int:
        """Write whole records, into a new file if this one is full.

        Args:
            data: one record, or several.
            by_line: each line is a record; else all of `data` is one.

        Returns:
            Bytes written. Fewer than `data` has: the disk is full, and these are whole records. A reader may have
            seen them already, so they must stay; the rest was cut off.

        Raises:
            OSError: nothing of `data` is in the log.
        """
        if self._fd < 0:
            self._open()
        elif self._size >= self._max_size:
            self._rotate()
        if self._torn:
            self._cut()
            if self._torn:
                return 0
        try:
            written = os.write(self._fd, data)
        except OSError:
            self._cut()
            raise
        if written < len(data):
            written = data.rfind(b"\n", 0, written) + 1 if by_line else 0
            self._torn = True
        self._size += written
        if self._torn:
            self._cut()
        if self._compression is not None and not self._compression.step(_COMPRESSED_FOR_EACH_BYTE * written):
            self._compression = None
        return written

    def _cut(self) -> None:
        """Cut off what is no whole record; where that fails, before the next write."""
        self._torn = True
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            return
        self._torn = False

    def _rotate(self) -> None:
        if self._compression is not None:
            self._compression.abandon()
            self._compression = None
        fd, self._fd = self._fd, -1
        os.close(fd)
        for number in range(self._max_files - 1, 1, -1):
            for ending in ("", ".gz"):
                self._rename(f"{self._name}.{number - 1}{ending}", number, ending)
        if self._max_files > 1:
            self._rename(self._name, 1, "")
        else:
            # A new file rather than an empty one: who still reads the old one keeps it.
            self._unlink(self._name)
        self._open()
        if self._compress and self._max_files > 1:
            from hutch.engine.logs.compression import Compression

            self._compression = Compression.begin(self._dir_fd, f"{self._name}.1", _temporary(self._name))

    def _rename(self, old: str, number: int, ending: str) -> None:
        new = f"{self._name}.{number}"
        try:
            os.rename(old, new + ending, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
        except FileNotFoundError:
            return
        self._unlink(new + ("" if ending else ".gz"))

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._dir_fd)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        """Close the descriptors; a compression that is not done is left undone."""
        if self._compression is not None:
            self._compression.abandon()
            self._compression = None
        for fd in (self._fd, self._dir_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._dir_fd = -1


def _temporary(name: str) -> str:
    return f"{name}.gz.new"
