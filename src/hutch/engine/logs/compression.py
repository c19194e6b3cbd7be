"""Rotated log files as ``.gz``: made a slice at a time by the writer, read through a copy in memory.

The gzip header's extra field holds the inode number of the file that was compressed, and the ``.gz`` has its time of
modification: so a reader who holds the one recognises it in the other.
"""

from __future__ import annotations

import os
import struct
import zlib

_SLICE = 64 << 10
_MAGIC = b"\x1f\x8b\x08\x04"
_HEADER = struct.Struct("<4sIBBH2sHQ")  # magic, time, level, system, then one extra subfield
_SUBFIELD = b"hu"
_END = struct.Struct("<II")
_LEVEL = 1  # three times as fast as the usual 6, and logs still shrink to a tenth


class Compression:
    """A rotated file on its way to being ``name.gz``; closed by the end of its steps, or `abandon`."""

    __slots__ = ("_crc", "_deflate", "_dir_fd", "_from_fd", "_length", "_name", "_temporary", "_to_fd")

    def __init__(self, dir_fd: int, name: str, temporary: str, from_fd: int, to_fd: int) -> None:
        self._dir_fd, self._name, self._temporary = dir_fd, name, temporary
        self._from_fd, self._to_fd = from_fd, to_fd
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = self._length = 0

    @classmethod
    def begin(cls, dir_fd: int, name: str, temporary: str) -> Compression | None:
        """Start, or None where that fails: the file then stays as it is."""
        from_fd = to_fd = -1
        try:
            from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            to_fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
            made = cls(dir_fd, name, temporary, from_fd, to_fd)
            made._write(_HEADER.pack(_MAGIC, 0, 0, 255, 12, _SUBFIELD, 8, os.fstat(from_fd).st_ino))
        except OSError:
            for fd in (from_fd, to_fd):
                if fd >= 0:
                    os.close(fd)
            return None
        return made

    def step(self, count: int) -> bool:
        """Compress about `count` bytes more; False when there is nothing left to do, well or not."""
        try:
            while count > 0:
                data = os.read(self._from_fd, _SLICE)
                if not data:
                    self._finish()
                    return False
                self._crc = zlib.crc32(data, self._crc)
                self._length += len(data)
                count -= len(data)
                self._write(self._deflate.compress(data))
        except OSError:  # a full disk: the file as it was is the log still
            self.abandon()
            return False
        return True

    def _finish(self) -> None:
        self._write(self._deflate.flush() + _END.pack(self._crc, self._length & 0xFFFFFFFF))
        found = os.fstat(self._from_fd)
        os.utime(self._to_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.rename(self._temporary, f"{self._name}.gz", src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
        os.unlink(self._name, dir_fd=self._dir_fd)
        self._close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._to_fd, view) :]

    def abandon(self) -> None:
        """Leave the file uncompressed."""
        if self._to_fd >= 0:
            try:
                os.unlink(self._temporary, dir_fd=self._dir_fd)
            except OSError:
                pass
            self._close()

    def _close(self) -> None:
        for fd in (self._from_fd, self._to_fd):
            os.close(fd)
        self._from_fd = self._to_fd = -1


def original_inode(fd: int) -> int:
    """The inode number that the file behind a ``.gz`` of ours had; 0 if this is none of ours."""
    data = os.pread(fd, _HEADER.size, 0)
    if len(data) != _HEADER.size:
        return 0
    magic, _, _, _, _, subfield, _, inode = _HEADER.unpack(data)
    return int(inode) if (magic, subfield) == (_MAGIC, _SUBFIELD) else 0


def expanded(fd: int, limit: int) -> int:
    """What a ``.gz`` holds, as a descriptor in memory that the caller closes.

    Args:
        fd: of the ``.gz``, read from its beginning.
        limit: bytes; what follows them, or a damaged place, is left out.

    Raises:
        OSError: it cannot be read.
    """
    memory_fd = os.memfd_create("hutch-log", os.MFD_CLOEXEC)
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    offset = 0
    try:
        while limit > 0 and not inflate.eof and (data := os.pread(fd, _SLICE, offset)):
            offset += len(data)
            while data and limit > 0:
                found = inflate.decompress(data, min(limit, 1 << 20))
                limit -= len(found)
                os.write(memory_fd, found)
                data = inflate.unconsumed_tail
    except zlib.error:
        pass
    except BaseException:
        os.close(memory_fd)
        raise
    return memory_fd
