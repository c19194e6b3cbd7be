"""Reading what a container wrote, while it writes: in order, each line once, across rotations.

A reader takes no lock. Files are renamed from the oldest to the newest, so opening them from the newest to the oldest
finds each; one that is open is known by its inode wherever it is moved, also as the ``.gz`` it became. Only lines that
a slow reader has not reached when their file is removed are missed.
"""

from __future__ import annotations

import os
import time

from hutch.engine.logs import compression, drivers
from hutch.engine.logs.entries import READ, JsonLines, LocalRecords, LogEntry
from hutch.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hutch.engine.logs.entries import Format

__all__ = ["LogEntry", "read_batches", "read_log"]

_LONGEST_READ = 2 << 20
_POLL_S = 0.1
_EXPANDED_LIMIT = 4 << 30


def read_log(
    driver: str,
    options: Mapping[str, str],
    directory: str,
    *,
    since_nanos: int = 0,
    until_nanos: int = 0,
    tail: int = -1,
    follow: bool = False,
    running: Callable[[], bool],
) -> Iterator[LogEntry]:
    """What a container wrote, oldest first.

    Args:
        driver: the container's log driver; empty is the default.
        options: the driver's, checked.
        directory: ``containers/<id>`` of the engine's own data root.
        since_nanos: leave out what is older; nanoseconds since 1970, 0 for everything.
        until_nanos: stop at what is newer; 0 for never.
        tail: this many entries from the end before the times are looked at; -1 for all.
        follow: wait for more until the container has ended.
        running: whether somebody still writes; asked while following.

    Raises:
        NotSupported: the driver's logs cannot be read.
        HutchError: journald's could not be read.
    """
    batches = read_batches(
        driver,
        options,
        directory,
        since_nanos=since_nanos,
        until_nanos=until_nanos,
        tail=tail,
        follow=follow,
        running=running,
    )
    return (entry for batch in batches for entry in batch)


def read_batches(
    driver: str,
    options: Mapping[str, str],
    directory: str,
    *,
    since_nanos: int = 0,
    until_nanos: int = 0,
    tail: int = -1,
    follow: bool = False,
    running: Callable[[], bool],
) -> Iterator[list[LogEntry]]:
    """What `read_log` reads, as many entries at once as there are: for who has to flush before waiting for more."""
    driver = driver or drivers.DEFAULT
    if driver == "journald":
        from hutch.engine.logs.journalctl import read_journal

        batches = read_journal(os.path.basename(directory), since_nanos, tail=tail, follow=follow, running=running)
    elif driver in ("json-file", "local"):
        form: Format = JsonLines() if driver == "json-file" else LocalRecords()
        files = drivers.file_limits(driver, options)[1]
        log = _Log(directory, drivers.file_name(driver, directory), files, form)
        batches = log.read(since_nanos, until_nanos, tail=tail, follow=follow, running=running)
    else:
        raise NotSupported("configured logging driver does not support reading")
    return _between(batches, since_nanos, until_nanos)


def _between(batches: Iterator[list[LogEntry]], since_nanos: int, until_nanos: int) -> Iterator[list[LogEntry]]:
    for batch in batches:
        found = batch
        if since_nanos:
            found = [entry for entry in found if entry.time_nanos >= since_nanos]
        if until_nanos:
            late = next((index for index, entry in enumerate(found) if entry.time_nanos > until_nanos), -1)
            if late >= 0:
                yield found[:late]
                return
        if found:
            yield found


class _File:
    """An open log file, rotated or not; closed by close().

    Attributes:
        fd: what is read; of a ``.gz`` a copy in memory, made when it is first asked for.
        offset: how far it was read.
        skip: how many entries from there are not wanted.
    """

    __slots__ = ("_copy_fd", "_fd", "offset", "packed_inode", "skip")

    def __init__(self, fd: int, *, packed: bool) -> None:
        self._fd, self._copy_fd = fd, -1
        self.offset = self.skip = 0
        self.packed_inode = compression.original_inode(fd) if packed else -1

    @property
    def fd(self) -> int:
        if self.packed_inode < 0:
            return self._fd
        if self._copy_fd < 0:
            self._copy_fd = compression.expanded(self._fd, _EXPANDED_LIMIT)
        return self._copy_fd

    @property
    def modified_nanos(self) -> int:
        return os.fstat(self._fd).st_mtime_ns

    def is_same(self, other: _File) -> bool:
        """Whether both are one log, perhaps one of them compressed."""
        mine, others = os.fstat(self._fd), os.fstat(other._fd)  # another of this class
        if (mine.st_dev, mine.st_ino) == (others.st_dev, others.st_ino):
            return True
        if self.packed_inode < 0 and other.packed_inode < 0:
            return False
        inodes = [
            status.st_ino if file.packed_inode < 0 else file.packed_inode
            for status, file in ((mine, self), (others, other))
        ]
        return inodes[0] == inodes[1] and mine.st_mtime_ns == others.st_mtime_ns

    def close(self) -> None:
        for fd in (self._fd, self._copy_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._copy_fd = -1


class _Log:
    """All files of one log."""

    def __init__(self, directory: str, name: str, files: int, form: Format) -> None:
        self._directory, self._name, self._files, self._form = directory, name, files, form
        self._pending: list[_File] = []  # oldest first; the last one may still grow

    def _open(self, name: str, *, packed: bool) -> _File | None:
        # O_NONBLOCK: whatever was put in its place, opening it must not wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return _File(os.open(f"{self._directory}/{name}", flags), packed=packed)
        except FileNotFoundError:
            return None

    def _chain(self) -> list[_File]:
        """Every file there is, oldest first, each once."""
        found: list[_File] = []
        for number in range(self._files):
            name = f"{self._name}.{number}" if number else self._name
            file = self._open(name, packed=False) or (self._open(f"{name}.gz", packed=True) if number else None)
            if file is None:
                continue
            if any(file.is_same(known) for known in found):  # it was moved while we looked
                file.close()
            else:
                found.append(file)
        return found[::-1]

    def read(
        self, since_nanos: int, until_nanos: int, *, tail: int, follow: bool, running: Callable[[], bool]
    ) -> Iterator[list[LogEntry]]:
        """The entries from where `tail` says; see `read_log`."""
        try:
            self._pending = self._chain()
            if tail >= 0:
                self._wind(tail)
            while True:
                yield from self._drain(since_nanos)
                if not follow:
                    return
                # In this order: what was written before the end of the writer, or before a rotation, is read after.
                alive = running()
                newer = self._newer()
                yield from self._drain(since_nanos)
                if newer:
                    self._forget()
                    self._pending = newer
                    continue
                if not alive or (until_nanos and time.time_ns() > until_nanos):
                    return
                time.sleep(_POLL_S)
        finally:
            self._forget()

    def _forget(self) -> None:
        for file in self._pending:
            file.close()
        self._pending = []

    def _wind(self, count: int) -> None:
        """Leave of all files the last `count` entries."""
        kept: list[_File] = []
        for file in reversed(self._pending):
            if count > 0 or not kept:  # the newest one stays, to be followed
                fd = file.fd
                end = os.fstat(fd).st_size
                if count > 0:
                    file.offset, found, file.skip = self._form.backwards(fd, end, count)
                    count -= found
                else:
                    file.offset = self._end(file)
                kept.append(file)
            else:
                file.close()
        self._pending = kept[::-1]

    def _end(self, file: _File) -> int:
        """Where the next entry of a file that grows will begin."""
        end = os.fstat(file.fd).st_size
        start, found, _ = self._form.backwards(file.fd, end, 1)
        if not found:
            return 0
        data = os.pread(file.fd, end - start, start)
        return start + self._form.decode(data)[1]

    def _drain(self, since_nanos: int) -> Iterator[list[LogEntry]]:
        """What is in the files that are open; all but the last are closed then."""
        while self._pending:
            file = self._pending[0]
            last = len(self._pending) == 1
            if last or file.modified_nanos >= since_nanos:
                yield from self._entries(file)
            if last:
                return
            self._pending.pop(0).close()

    def _entries(self, file: _File) -> Iterator[list[LogEntry]]:
        size = READ
        while data := os.pread(file.fd, size, file.offset):
            entries, used = self._form.decode(data)
            if not used:
                if len(data) < size or size >= _LONGEST_READ:
                    return
                size *= 2
                continue
            file.offset += used
            size = READ
            if file.skip:
                entries, file.skip = entries[file.skip :], max(0, file.skip - len(entries))
            if entries:
                yield entries

    def _newer(self) -> list[_File]:
        """The files after the one that was read to its end, opened; none if it is the newest."""
        current = self._pending[-1] if self._pending else None
        if current is not None and current.packed_inode < 0 and self._is_newest(current):
            return []
        chain = self._chain()
        for index in range(len(chain) - 1, -1, -1):
            if current is not None and chain[index].is_same(current):
                for file in chain[: index + 1]:
                    file.close()
                return chain[index + 1 :]
        return chain

    def _is_newest(self, file: _File) -> bool:
        try:
            found = os.stat(f"{self._directory}/{self._name}", follow_symlinks=False)
        except FileNotFoundError:
            return True  # between two names: look again
        known = os.fstat(file.fd)
        return (found.st_dev, found.st_ino) == (known.st_dev, known.st_ino)
