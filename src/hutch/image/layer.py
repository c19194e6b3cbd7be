"""A streaming tar reader for image layers.

Reads ustar, old (v7) tar, GNU long names and links, GNU sparse files (old, PAX 0.0, 0.1 and 1.0), PAX
extended headers and base-256 numbers. Names are bytes. Strict: checksums must match, and an archive that
known readers would list differently is refused (security.md D7), so what was verified is what is applied.
It decides nothing about names or types: that is `hutch.image.apply`.

Runs in the unpacking child: imports only cheap modules.
"""

from __future__ import annotations

import os
from struct import Struct
from zlib import adler32

from hutch.errors import InvalidLayer
from hutch.image import pax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 512
REGULAR, LINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

PAX_BYTES_MAX = 1 << 20
"""Extended headers of one entry, all of them together (CVE-2017-14992)."""

_ZEROS = bytes(BLOCK)
_HEADER = Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12x")
_OLD, _CONTIGUOUS, _GNU_SPARSE = b"\0", b"7", b"S"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_EXTENSIONS = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL))
_WITH_DATA = frozenset((REGULAR, _CONTIGUOUS, _GNU_SPARSE))
_KNOWN = frozenset((REGULAR, LINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO, _OLD, _CONTIGUOUS, _GNU_SPARSE))
_USTAR = b"ustar\0"
_LONG_MAX = pax.NAME_MAX_BYTES + 1

# What a global header must not change: Go's reader ignores it there, GNU tar and tarfile obey it.
_INTERPRETED = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime"))


class Entry:
    """One member of the archive. Everything in it is untrusted.

    Attributes:
        name: as stored; may be absolute, hold `..`, or end in a slash.
        type: one of REGULAR LINK SYMLINK CHAR BLOCKDEV DIRECTORY FIFO.
        size: bytes of the file it stands for, holes included.
        mtime_nanos, atime_nanos: since the epoch; atime may be absent.
        sparse: (offset, size) of each stored segment in order, or None for a file without holes.
    """

    __slots__ = (
        "atime_nanos",
        "device",
        "gid",
        "linkname",
        "mode",
        "mtime_nanos",
        "name",
        "size",
        "sparse",
        "type",
        "uid",
        "xattrs",
    )

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_nanos: int
    atime_nanos: int | None
    linkname: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes] | None
    sparse: list[tuple[int, int]] | None


class TarReader:
    """Iterate over the entries of a tar stream; the data of the current one may be copied or left.

    Args:
        next_chunk: returns the next bytes of the uncompressed stream, b"" at its end. Large chunks
            (256 KiB and up) make it fast; any size is right.
    """

    __slots__ = ("_chunk", "_done", "_end", "_left", "_next_chunk", "_padding", "_position", "_view")

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
        self._next_chunk = next_chunk
        self._chunk = b""
        self._view = memoryview(b"")
        self._position = self._end = 0
        self._left = self._padding = 0
        self._done = False

    def __iter__(self) -> TarReader:
        return self

    def __next__(self) -> Entry:
        if self._left:
            self._skip(self._left)
        if self._padding and not self._skip_padding():
            self._done = True
        self._left = self._padding = 0
        block = self._header_block()
        if block is None:
            raise StopIteration
        if block[156:157] in _EXTENSIONS:
            return self._extended(block)
        entry, _ = self._plain(block, b"")
        if entry.type is _OLD:
            entry.type = DIRECTORY if entry.name[-1:] == b"/" else REGULAR
        self._settle(entry, block)
        return entry

    def copy(self, fd: int, count: int) -> None:
        """Write the next `count` bytes of the current entry's data to `fd` at its position."""
        if count > self._left:
            raise ValueError("more than the entry holds")
        self._left -= count
        while count:
            position = self._position
            available = self._end - position
            if not available:
                self._refill()
                continue
            taken = min(count, available)
            written = os.write(fd, self._view[position : position + taken])
            self._position = position + written
            count -= written

    def read(self, limit: int) -> bytes:
        """Return the current entry's data whole; more than `limit` bytes is an error."""
        if self._left > limit:
            raise InvalidLayer(f"tar entry of {self._left} bytes where at most {limit} are expected")
        count, self._left = self._left, 0
        return self._take(count)

    def drain(self) -> None:
        """Read what follows the archive's end, so that a digest over the stream covers it."""
        self._position = self._end
        while self._next_chunk():
            pass

    # Blocks

    def _refill(self) -> None:
        self._chunk = chunk = self._next_chunk()
        if not chunk:
            raise InvalidLayer("tar: unexpected end of archive")
        self._view = memoryview(chunk)
        self._position = 0
        self._end = len(chunk)

    def _take(self, count: int) -> bytes:
        start = self._position
        if count <= self._end - start:
            self._position = start + count
            return self._chunk[start : start + count]
        pieces = []
        while count:
            if self._position == self._end:
                self._refill()
            piece = self._chunk[self._position : self._position + count]
            pieces.append(piece)
            self._position += len(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        while count > self._end - self._position:
            count -= self._end - self._position
            self._refill()
        self._position += count

    def _skip_padding(self) -> bool:
        """Skip to the next block; False if the archive ends before it, as umoci's do, which Go's reader takes."""
        count = self._padding
        while count > self._end - self._position:
            count -= self._end - self._position
            self._position = self._end
            chunk = self._next_chunk()
            if not chunk:
                return False
            self._chunk, self._view, self._position, self._end = chunk, memoryview(chunk), 0, len(chunk)
        self._position += count
        return True

    def _header_block(self) -> bytes | None:
        """The next header, its checksum verified; None at the end of the archive."""
        if self._done:
            return None
        if self._position == self._end:
            chunk = self._next_chunk()
            if not chunk:  # no end-of-archive marker: every reader takes that
                self._done = True
                return None
            self._chunk, self._view, self._position, self._end = chunk, memoryview(chunk), 0, len(chunk)
        block = self._take(BLOCK)
        stored = block[148:156]
        # adler32's low half is 1 + the sum mod 65521, and 512 ASCII bytes sum to less.
        total = (adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)
        total += 256 - sum(stored)
        if pax.octal(stored, "checksum") == total:
            return block
        if block == _ZEROS:
            self._finish()
            return None
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if pax.octal(stored, "checksum") != signed:  # ancient Sun tars summed signed chars
            raise InvalidLayer("tar header: checksum mismatch")
        return block

    def _finish(self) -> None:
        """After one zero block there must be a second, or nothing: GNU tar and Go's reader part ways otherwise."""
        self._done = True
        if self._position == self._end:
            chunk = self._next_chunk()
            if not chunk:
                return
            self._chunk, self._view, self._position, self._end = chunk, memoryview(chunk), 0, len(chunk)
        if self._take(BLOCK) != _ZEROS:
            raise InvalidLayer("tar: a lone zero block inside the archive")

    # Headers

    def _plain(self, block: bytes, name_given: bytes) -> tuple[Entry, int]:
        """Decode the fixed fields; returns the entry and its stored size, `name_given` in place of its name."""
        (
            name, mode, uid, gid, size, mtime, _, kind, linkname, magic, _, major, minor, prefix,
        ) = _HEADER.unpack(block)  # fmt: skip
        if kind not in _KNOWN:
            raise InvalidLayer(f"tar header: entry type {kind!r} is not supported")
        entry = Entry()
        octal = pax.octal
        entry.mode = octal(mode, "mode")
        entry.uid = octal(uid, "uid")
        entry.gid = octal(gid, "gid")
        entry.size = octal(size, "size")
        entry.mtime_nanos = pax.timestamp(mtime) * 1_000_000_000
        entry.atime_nanos = entry.xattrs = entry.sparse = None
        entry.type = _OLD if kind == _OLD else REGULAR if kind in _WITH_DATA else kind
        entry.linkname = linkname.partition(b"\0")[0]
        entry.device = (0, 0)
        if kind in (CHAR, BLOCKDEV):
            entry.device = (octal(major, "device number"), octal(minor, "device number"))
        if name_given:
            name = name_given
        else:
            name = name.partition(b"\0")[0]
            if magic[:6] == _USTAR and prefix[0]:
                name = prefix.partition(b"\0")[0] + b"/" + name
        entry.name = name
        return entry, entry.size

    def _settle(self, entry: Entry, block: bytes) -> None:
        """Check what is final about an entry, and find out where its data end."""
        if not entry.name:
            raise InvalidLayer("tar header: empty name")
        if entry.size > pax.SIZE_MAX:
            raise InvalidLayer("tar header: size is out of range")
        kind = entry.type
        if kind == REGULAR:
            if entry.name[-1:] == b"/":
                raise InvalidLayer("tar header: a regular file whose name ends in a slash")
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            if block[156:157] == _GNU_SPARSE:
                self._old_sparse(entry, block)
        elif entry.size:
            if kind != LINK:  # GNU tar skips data here, Go and tarfile do not; on links all agree there are none
                raise InvalidLayer("tar header: a size on an entry that has no data")
            entry.size = 0
        if kind in (LINK, SYMLINK) and not entry.linkname:
            raise InvalidLayer("tar header: a link without a target")

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        segments = pax.old_gnu_segments(block, 386, 4)
        extended = block[482]
        entry.size = pax.octal(block[483:495], "real size")
        while extended:
            more = self._take(BLOCK)
            segments += pax.old_gnu_segments(more, 0, 21)
            extended = more[504]
            if len(segments) > pax.SPARSE_SEGMENTS_MAX:
                raise InvalidLayer(f"sparse map: more than {pax.SPARSE_SEGMENTS_MAX} segments")
        pax.check_segments(segments, self._left, entry.size)
        entry.sparse = segments

    # Extensions

    def _extended(self, block: bytes) -> Entry:
        """Collect the extension headers before an entry and merge them into it."""
        found: dict[bytes, bytes] = {}
        budget = PAX_BYTES_MAX
        while (kind := block[156:157]) in _EXTENSIONS:
            size = pax.octal(block[124:136], "size")
            limit = budget if kind in (_PAX, _PAX_GLOBAL) else _LONG_MAX
            if size > limit:
                raise InvalidLayer(f"tar: extended header of {size} bytes")
            body = self._take(size)
            padding = self._take(-size % BLOCK)
            budget -= size
            if kind == _PAX_GLOBAL:
                _check_global(body)
            elif kind in found:
                raise InvalidLayer("tar: two extended headers of one kind for one entry")
            else:
                found[kind] = body if kind == _PAX else body + padding[:1]
            following = self._header_block()
            if following is None:
                if found:
                    raise InvalidLayer("tar: an extended header without its entry")
                raise StopIteration
            block = following
        return self._merge(block, found)

    def _merge(self, block: bytes, found: dict[bytes, bytes]) -> Entry:
        long_name = _long(found[_LONG_NAME]) if _LONG_NAME in found else b""
        entry, _ = self._plain(block, long_name)
        if _LONG_LINK in found:
            entry.linkname = _long(found[_LONG_LINK])
        sparse = None
        renamed = bool(long_name)
        if _PAX in found:
            attributes = _Attributes(found[_PAX])
            renamed |= b"path" in attributes.last or b"GNU.sparse.name" in attributes.last
            if (long_name and b"path" in attributes.last) or (_LONG_LINK in found and b"linkpath" in attributes.last):
                raise InvalidLayer("tar: a name given by both a GNU and a pax header")
            if entry.type == LINK and b"size" in attributes.last:
                raise InvalidLayer("tar header: a size on an entry that has no data")
            attributes.apply(entry)
            sparse = attributes.sparse
        if entry.type is _OLD:
            if entry.name[-1:] == b"/" and renamed:  # a directory to some readers only (CVE-2025-13462)
                raise InvalidLayer("tar header: a regular file whose name ends in a slash")
            entry.type = DIRECTORY if entry.name[-1:] == b"/" else REGULAR
        self._settle(entry, block)
        if sparse is not None:
            if entry.type != REGULAR or entry.sparse is not None:
                raise InvalidLayer("sparse map: on an entry that cannot have one")
            self._pax_sparse(entry, sparse)
        return entry

    def _pax_sparse(self, entry: Entry, sparse: tuple[int, list[tuple[int, int]] | None]) -> None:
        entry.size, segments = sparse
        if segments is None:
            segments = self._sparse_map_in_data()
        pax.check_segments(segments, self._left, entry.size)
        entry.sparse = segments

    def _sparse_map_in_data(self) -> list[tuple[int, int]]:
        """PAX 1.0: decimal numbers, one a line, in blocks before the data; the first says how many pairs follow."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise InvalidLayer("sparse map: truncated")
            block = self._take(BLOCK)
            self._left -= BLOCK
            *complete, rest = (rest + block).split(b"\n")
            if len(rest) > BLOCK:
                raise InvalidLayer("sparse map: not a number")
            lines += complete
            if lines and wanted == 1:
                wanted += 2 * pax.decimal(lines[0], "sparse map", pax.SPARSE_SEGMENTS_MAX)
        return pax.pairs(lines[1:wanted])


class _Attributes:
    """What one PAX extended header says about its entry."""

    __slots__ = ("last", "sparse", "xattrs")

    def __init__(self, body: bytes) -> None:
        self.last: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        repeated: list[bytes] = []
        for key, value in pax.records(body):
            self.last[key] = value
            name = pax.xattr_name(key)
            if name is not None:
                # Both spellings are usually written for one attribute; they say the same.
                self.xattrs[name] = pax.base64_decoded(value) if key[0] == 0x4C else value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                if (len(repeated) % 2 == 0) != (key == b"GNU.sparse.offset"):
                    raise InvalidLayer("sparse map: offsets and sizes do not alternate")
                repeated.append(value)
        self.sparse = self._sparse(repeated)

    def _sparse(self, repeated: list[bytes]) -> tuple[int, list[tuple[int, int]] | None] | None:
        last = self.last
        version = (last.get(b"GNU.sparse.major"), last.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            return pax.decimal(last.get(b"GNU.sparse.realsize", b""), "GNU.sparse.realsize"), None
        if version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
            raise InvalidLayer("sparse map: unknown version")
        if b"GNU.sparse.map" in last:
            text = last[b"GNU.sparse.map"]
            segments = pax.pairs(text.split(b",") if text else [])
        elif repeated:
            segments = pax.pairs(repeated)
        elif b"GNU.sparse.size" in last or b"GNU.sparse.realsize" in last:
            segments = []
        else:
            return None
        size = last.get(b"GNU.sparse.size", last.get(b"GNU.sparse.realsize", b""))
        if last.get(b"GNU.sparse.numblocks", b"%d" % len(segments)) != b"%d" % len(segments):
            raise InvalidLayer("sparse map: count does not match its segments")
        return pax.decimal(size, "GNU.sparse.size"), segments

    def apply(self, entry: Entry) -> None:
        """Overwrite the header's fields with the extended ones; PAX wins, always."""
        last = self.last
        if b"path" in last:
            entry.name = pax.text(last[b"path"], "path")
        if b"GNU.sparse.name" in last:
            entry.name = pax.text(last[b"GNU.sparse.name"], "GNU.sparse.name")
        if b"linkpath" in last:
            entry.linkname = pax.text(last[b"linkpath"], "linkpath")
        if b"size" in last:
            entry.size = pax.decimal(last[b"size"], "size")
        if b"uid" in last:
            entry.uid = pax.decimal(last[b"uid"], "uid")
        if b"gid" in last:
            entry.gid = pax.decimal(last[b"gid"], "gid")
        if b"mtime" in last:
            entry.mtime_nanos = pax.pax_time(last[b"mtime"], "mtime")
        if b"atime" in last:
            entry.atime_nanos = pax.pax_time(last[b"atime"], "atime")
        if self.xattrs:
            entry.xattrs = self.xattrs


def _long(body: bytes) -> bytes:
    """The name in a GNU long-name header: up to its NUL (or that of the padding), after which there is nothing."""
    name, end, rest = body.partition(b"\0")
    if not end or rest.strip(b"\0"):
        raise InvalidLayer("tar: a GNU long name that does not end with a NUL")
    if not name:
        raise InvalidLayer("tar: an empty GNU long name")
    if len(name) > pax.NAME_MAX_BYTES:
        raise InvalidLayer("tar: a GNU long name: file name too long")
    return name


def _check_global(body: bytes) -> None:
    """Comments (git archive writes one) are harmless; whatever would change entries is refused."""
    for key, _ in pax.records(body):
        if key in _INTERPRETED or key.startswith(b"GNU.sparse.") or pax.xattr_name(key) is not None:
            raise InvalidLayer(f"tar: a global pax header that sets {key.decode('utf-8', 'replace')}")
