"""Write a tar stream: ustar headers, and PAX extended headers where ustar cannot say it.

PAX (POSIX.1-2017) carries names over 100 bytes or outside ASCII, large numbers, times below a second, extended
attributes (SCHILY.xattr) and sparse files (GNU format 1.0). The same input gives the same bytes. Names are bytes; one
that is not UTF-8 is marked `hdrcharset=BINARY`.

Imports only cheap modules: helper processes use it.
"""

from __future__ import annotations

import errno
import os

from hutch.image.layer import BLOCK, BLOCKDEV, CHAR, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BLOCKDEV", "CHAR", "DIRECTORY", "FIFO", "LINK", "REGULAR", "SYMLINK", "TarWriter"]

NAME_MAX_BYTES = 4095
_FLUSH_BYTES = 256 << 10
_COUNT_MAX = 1 << 30
_PAX = b"x"
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class TarWriter:
    """One archive, written to a descriptor in order; `finish` ends it.

    Args:
        fd: where it goes; stays the caller's.

    Attributes:
        size: bytes of the archive so far.
    """

    __slots__ = ("_buffer", "_fd", "_sendfile", "size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._sendfile = True
        self.size = 0

    def entry(
        self,
        name: bytes,
        kind: bytes,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_nanos: int = 0,
        size: int = 0,
        linkname: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        """Write the headers of an entry; a regular file's `size` bytes are to follow by `copy`.

        Raises:
            OSError: ENAMETOOLONG (a name that no reader could make), and those of write(2).
        """
        self._entry(name, kind, mode, uid, gid, mtime_nanos, size, linkname, device, xattrs, [])

    def sparse(
        self,
        name: bytes,
        segments: Sequence[tuple[int, int]],
        *,
        real_size: int,
        mode: int,
        uid: int,
        gid: int,
        mtime_nanos: int,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        """Write the headers of a regular file with holes; the data of its segments are to follow by `copy`.

        Args:
            name: of the entry.
            segments: (offset, size) of what is no hole, in order.
            real_size: of the file, holes included.
            mode: permission bits.
            uid: owner.
            gid: group.
            mtime_nanos: since the epoch.
            xattrs: extended attributes.
        """
        numbers = [len(segments), *(number for segment in segments for number in segment)]
        table = b"".join(b"%d\n" % number for number in numbers)
        table += bytes(-len(table) % BLOCK)
        records = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", _checked(name)),
            (b"GNU.sparse.realsize", b"%d" % real_size),
        ]
        if _is_binary(name):
            records.insert(0, (b"hdrcharset", b"BINARY"))
        stored = len(table) + sum(size for _, size in segments)
        plain = b"GNUSparseFile.0/%s" % _ascii(name.rpartition(b"/")[2])[:80]
        self._entry(plain, REGULAR, mode, uid, gid, mtime_nanos, stored, b"", (0, 0), xattrs, records)
        self._write(table)

    def copy(self, fd: int, size: int) -> None:
        """Write exactly `size` bytes of a file from its position on; where it has become shorter, zeros.

        Padding to the next block is `pad`'s.
        """
        left = size
        while left and self._sendfile and left > _FLUSH_BYTES:
            self._flush()
            try:
                sent = os.sendfile(self._fd, fd, None, min(left, _COUNT_MAX))
            except OSError as problem:
                if problem.errno not in _NO_SENDFILE:
                    raise
                self._sendfile = False
                break
            if not sent:
                break
            left -= sent
            self.size += sent
        while left:
            chunk = os.read(fd, min(left, _FLUSH_BYTES))
            if not chunk:
                break
            left -= len(chunk)
            self._write(chunk)
        while left:
            zeros = min(left, _FLUSH_BYTES)
            self._write(bytes(zeros))
            left -= zeros

    def pad(self, size: int) -> None:
        """Fill the last block of an entry of `size` bytes."""
        self._write(bytes(-size % BLOCK))

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))
        self._flush()

    def _entry(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime_nanos: int,
        size: int,
        linkname: bytes,
        device: tuple[int, int],
        xattrs: dict[bytes, bytes] | None,
        records: list[tuple[bytes, bytes]],
    ) -> None:
        _checked(name)
        _checked(linkname)
        seconds, nanos = divmod(mtime_nanos, 1_000_000_000)
        binary = _is_binary(name) or _is_binary(linkname)
        if binary and not records:
            records.append((b"hdrcharset", b"BINARY"))
        plain_name = self._name_field(name, b"path", records)
        plain_link = self._name_field(linkname, b"linkpath", records)
        if nanos or not 0 <= seconds < 8**11:
            records.append((b"mtime", _time(mtime_nanos)))
            seconds = seconds if 0 <= seconds < 8**11 else 0
        small: list[int] = []
        for key, value, width in ((b"uid", uid, 8), (b"gid", gid, 8), (b"size", size, 12)):
            fits = value < 8 ** (width - 1)
            small.append(value if fits else 0)
            if not fits:
                records.append((key, b"%d" % value))
        records += [(b"SCHILY.xattr." + key, value) for key, value in sorted((xattrs or {}).items())]
        if records:
            body = b"".join(_record(key, value) for key, value in records)
            label = b"PaxHeaders.0/%s" % _ascii(name.rstrip(b"/").rpartition(b"/")[2])[:80]
            self._write(_header(label, _PAX, 0o644, (0, 0, len(body), seconds)))
            self._write(body + bytes(-len(body) % BLOCK))
        self._write(_header(plain_name, kind, mode, (*small, seconds), plain_link, device))

    @staticmethod
    def _name_field(name: bytes, key: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
        """What goes into a header field of 100 bytes; the rest becomes a record."""
        if len(name) <= 100 and name.isascii():
            return name
        if not any(known == b"GNU.sparse.name" for known, _ in records):
            records.append((key, name))
        return _ascii(name)[-100:].lstrip(b"/") or b"_"

    def _write(self, data: bytes) -> None:
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[os.write(self._fd, view) :]


def _header(
    name: bytes,
    kind: bytes,
    mode: int,
    numbers: tuple[int, ...],
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One header block; `numbers` are uid, gid, size and seconds."""
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, *numbers),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),
            b"%07o\0%07o\0" % device,
        ]
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%s" % (length, rest)


def _time(nanos: int) -> bytes:
    """Decimal seconds; before the epoch too."""
    sign, nanos = (b"-", -nanos) if nanos < 0 else (b"", nanos)
    seconds, fraction = divmod(nanos, 1_000_000_000)
    text = b"%s%d" % (sign, seconds)
    return text + (b".%09d" % fraction).rstrip(b"0") if fraction else text


def _checked(name: bytes) -> bytes:
    if len(name) > NAME_MAX_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(name[:100]) + "…")
    return name


def _is_binary(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 128 else 0x5F for byte in name)
