"""The tar reader against archives by GNU tar and tarfile, mutations of them, and hostile headers (rows D7 and D8)."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hutch.errors import InvalidLayer
from hutch.image import pax
from hutch.image.layer import DIRECTORY, REGULAR, Entry, TarReader
from tests.support import evil
from tests.support.evil import Layer
from tests.support.host import requires

Row = tuple[bytes, bytes, int, bytes]


def chunks(data: bytes, size: int) -> Callable[[], bytes]:
    stream = io.BytesIO(data)
    return lambda: stream.read(size)


def entries(data: bytes, size: int = 1 << 16) -> list[Entry]:
    return list(TarReader(chunks(data, size)))


def rows(data: bytes, size: int = 1 << 16) -> list[Row]:
    return [(e.name.rstrip(b"/"), e.type, e.size, e.linkname if e.type in b"12" else b"") for e in entries(data, size)]


def by_tarfile(data: bytes) -> list[Row] | None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
            return [
                (
                    os.fsencode(m.name).rstrip(b"/"),
                    {b"\0": b"0", b"7": b"0", b"S": b"0"}.get(m.type, m.type),
                    m.size if m.isreg() else 0,
                    os.fsencode(m.linkname) if m.islnk() or m.issym() else b"",
                )
                for m in archive
            ]
    except (tarfile.TarError, EOFError, ValueError, UnicodeError, OverflowError, MemoryError, IndexError, KeyError):
        return None


def by_gnu_tar(data: bytes) -> list[bytes] | None:
    done = subprocess.run(
        ["tar", "--list", "--quoting-style=escape", "-f", "-"], input=data, capture_output=True, check=False
    )
    return None if done.returncode else [_unescaped(line) for line in done.stdout.splitlines()]


def _unescaped(line: bytes) -> bytes:
    return line.decode("unicode_escape").encode("latin-1").rstrip(b"/")


def made_by_tarfile(form: int, *, seed: int = 0) -> bytes:
    """An archive of a dozen random entries."""
    generator = random.Random(seed)
    long = form != tarfile.USTAR_FORMAT
    names = ["f", "d/f", "l" * 90 + "/" + "m" * 60, "schön", "p/" * 70 + "q", *["n" * 101] * long]
    kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
    targets = ["t", "target/" * 10, "x" * 99, *["y" * 150] * long]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for number in range(12):
            info = tarfile.TarInfo(f"{generator.choice(names)}{number}")
            info.type = generator.choice(kinds)
            info.mtime = generator.choice([0, 1_700_000_000, 1_700_000_000.5]) if form == tarfile.PAX_FORMAT else 12
            info.uid = generator.choice([0, 1000, 2_097_151, *[3_000_000] * long])
            data = b""
            if info.type == tarfile.REGTYPE:
                data = generator.randbytes(generator.choice([0, 1, 511, 512, 513, 5000]))
            elif info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = generator.choice(targets)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("size", [1, 100, 511, 512, 1 << 20])
def test_the_same_list_as_tarfile_whatever_the_chunks(form: int, size: int):
    for seed in range(5):
        data = made_by_tarfile(form, seed=seed)
        assert rows(data, size) == by_tarfile(data)


@requires("program:tar")
@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_archives_by_gnu_tar(tmp_path: Any, form: str):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"x" * 1000)
    (tree / "empty").write_bytes(b"")
    (tree / "link").symlink_to("file")
    os.link(tree / "file", tree / "hard")
    if form != "v7":
        os.mkfifo(tree / "fifo")
        (tree / ("n" * 95)).mkdir()
        (tree / ("n" * 95) / ("m" * 90)).write_bytes(b"deep")
    if form in ("gnu", "posix", "oldgnu"):
        (tree / ("o" * 200)).write_bytes(b"long")
        (tree / "longlink").symlink_to("t" * 300)
    command = ["tar", f"--format={form}", "-C", str(tree), "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert rows(data) == by_tarfile(data)
    assert [name for name, *_ in rows(data)] == by_gnu_tar(data)


@requires("program:tar")
@pytest.mark.parametrize("version", ["oldgnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("segments", [0, 1, 3, 60])
def test_sparse_files_by_gnu_tar(tmp_path: Any, version: str, segments: int):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        for number in range(segments):
            file.seek(number * 65536)
            file.write(b"%d" % number * 10)
        file.truncate(segments * 65536 + (1 << 20))
    options = ["--format=oldgnu"] if version == "oldgnu" else ["--format=posix", f"--sparse-version={version}"]
    data = subprocess.run(
        ["tar", *options, "--sparse", "-C", str(tmp_path), "-cf", "-", "sparse"], capture_output=True, check=True
    ).stdout
    reader = TarReader(chunks(data, 1 << 16))
    entry = next(reader)
    assert (entry.name, entry.size) == (b"sparse", os.stat(path).st_size)
    assert entry.sparse is not None
    with open(path, "rb") as original, open(tmp_path / "copy", "wb+") as copy:
        for offset, size in entry.sparse:
            os.lseek(copy.fileno(), offset, os.SEEK_SET)
            reader.copy(copy.fileno(), size)
        os.ftruncate(copy.fileno(), entry.size)
        copy.seek(0)
        assert copy.read() == original.read()
    assert list(reader) == []


def test_fields_that_only_pax_carries():
    layer = Layer("").file(
        "short", b"data", uid=1, pax={
            "path": "längst\n", "uid": "3000000000", "gid": "7", "mtime": "-1.5", "atime": "12.000000001",
            "SCHILY.xattr.user.a": b"\x00\xff=\n", "LIBARCHIVE.xattr.user.b%20c": "aGVsbG8",
            "SCHILY.xattr.user.empty": "", "comment": "x",
        },
    )  # fmt: skip
    (entry,) = entries(layer.tar)
    assert (entry.name, entry.uid, entry.gid) == ("längst\n".encode(), 3_000_000_000, 7)
    assert (entry.mtime_nanos, entry.atime_nanos) == (-1_500_000_000, 12_000_000_001)
    assert entry.xattrs == {b"user.a": b"\x00\xff=\n", b"user.b c": b"hello", b"user.empty": b""}


def test_pax_size_wins():
    layer = (
        Layer("").pax(evil.pax_record("size", "4")).raw(evil.header("f", size=0)).raw(evil.pad(b"data")).file("next")
    )
    assert rows(layer.tar) == [(b"f", REGULAR, 4, b""), (b"next", REGULAR, 0, b"")]


def test_an_old_name_with_a_slash_is_a_directory():
    data = Layer("").entry("old/", typeflag=b"\0", magic=b"").tar
    assert [entry.type for entry in entries(data)] == [DIRECTORY]


def test_base_256_numbers():
    data = Layer("").raw(evil.header("f", size=evil.number(8**11, 12), uid=1 << 40, mtime=-5)).tar
    with pytest.raises(InvalidLayer, match="unexpected end"):  # 8 GiB of data are promised
        entries(data)
    (entry,) = entries(Layer("").raw(evil.header("f", uid=1 << 40, mtime=-5)).tar)
    assert (entry.uid, entry.mtime_nanos) == (1 << 40, -5_000_000_000)


SPARSE_1_0: dict[str | bytes, str | bytes] = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.realsize": "9",
}
HOSTILE = {
    "negative size": Layer("").raw(evil.header("f", size=-1)),
    "negative uid": Layer("").raw(evil.header("f", uid=-1)),
    "size not octal": Layer("").raw(evil.header("f", size=b"00000000009\0")),
    "size with sign": Layer("").raw(evil.header("f", size=b"-0000000001\0")),
    "size with underscore": Layer("").raw(evil.header("f", size=b"0000000_001\0")),
    "size with hexadecimal": Layer("").raw(evil.header("f", size=b"0x00000001\0")),
    "size after a NUL": Layer("").raw(evil.header("f", size=b"\0\0\0\0\0\0\0\0\0\x001\0")),
    "size not a number": Layer("").raw(evil.header("f", size=b"1\x0012\0")),
    "size beyond 63 bits": Layer("").raw(evil.header("f", size=b"\x80" + b"\xff" * 11)),
    "checksum wrong": Layer("").raw(evil.header("f", checksum=1)),
    "checksum empty": Layer("").raw(evil.header("f", checksum=b"        ")),
    "garbage": Layer("").raw(b"\xff" * 512),
    "unknown type": Layer("").entry("f", typeflag=b"Z"),
    "multi-volume": Layer("").entry("f", typeflag=b"M"),
    "volume header": Layer("").entry("f", typeflag=b"V"),
    "directory with data": Layer("").entry("d", b"x" * 512, typeflag=b"5"),
    "symlink with data": Layer("").entry("d", b"x" * 512, typeflag=b"2", linkname="t"),
    "link without target": Layer("").entry("d", typeflag=b"1"),
    "file with a slash": Layer("").file("f/", b""),
    "renamed to a slash": Layer("").entry("x", typeflag=b"\0", pax={"path": "f/"}),
    "lone zero block": Layer("").file("a").raw(bytes(512)).file("b"),
    "truncated header": Layer("").raw(evil.header("f")[:300]).unended(),
    "truncated data": Layer("").raw(evil.header("f", size=1000)).raw(b"x" * 999).unended(),
    "pax without entry": Layer("").pax(evil.pax_record("path", "f")),
    "pax then end": Layer("").pax(evil.pax_record("path", "f")).unended(),
    "two pax headers": Layer("").pax(evil.pax_record("path", "a")).pax(evil.pax_record("path", "b")).file("f"),
    "pax and gnu name": Layer("").pax(evil.pax_record("path", "a")).gnu_long(b"L", b"b").file("f"),
    "gnu name with a NUL": Layer("").gnu_long(b"L", b"a\0b").file("f"),
    "gnu name without end": Layer("").raw(evil.header("L", typeflag=b"L", size=3)).raw(evil.pad(b"abcdef")).file("f"),
    "gnu name too long": Layer("").gnu_long(b"L", b"a" * 5000).file("f"),
    "gnu name empty": Layer("").gnu_long(b"L", b"").file("f"),
    "pax path empty": Layer("").pax(evil.pax_record("path", "")).file("f"),
    "pax path NUL": Layer("").pax(evil.pax_record("path", b"a\0b")).file("f"),
    "pax size negative": Layer("").pax(evil.pax_record("size", "-4")).file("f"),
    "pax size huge": Layer("").pax(evil.pax_record("size", "9" * 30)).file("f"),
    "pax size on a link": Layer("").pax(evil.pax_record("size", "512")).hardlink("f", "g").raw(bytes(512)),
    "pax length short": Layer("").pax(b"5 path=f\n").file("f"),
    "pax length long": Layer("").pax(b"99 path=f\n").file("f"),
    "pax length zero": Layer("").pax(b"0 path=f\n").file("f"),
    "pax length huge": Layer("").pax(b"9" * 400 + b" path=f\n").file("f"),
    "pax no keyword": Layer("").pax(b"5 =f\n").file("f"),
    "pax no equals": Layer("").pax(b"7 path\n").file("f"),
    "pax time": Layer("").pax(evil.pax_record("mtime", "1e999")).file("f"),
    "global path": Layer("").pax(evil.pax_record("path", "x"), typeflag=b"g").file("f"),
    "global size": Layer("").pax(evil.pax_record("size", "1"), typeflag=b"g").file("f"),
    "sparse overlap": Layer("").file("f", b"x" * 20, pax={"GNU.sparse.map": "0,10,5,10", "GNU.sparse.size": "100"}),
    "sparse outside": Layer("").file("f", b"x" * 20, pax={"GNU.sparse.map": "90,20", "GNU.sparse.size": "100"}),
    "sparse sum": Layer("").file("f", b"x" * 20, pax={"GNU.sparse.map": "0,10", "GNU.sparse.size": "100"}),
    "sparse odd": Layer("").file("f", b"", pax={"GNU.sparse.map": "0", "GNU.sparse.size": "100"}),
    "sparse negative": Layer("").file("f", b"", pax={"GNU.sparse.map": "-1,0", "GNU.sparse.size": "100"}),
    "sparse on a directory": Layer("").entry("d", typeflag=b"5", pax={"GNU.sparse.map": "", "GNU.sparse.size": "100"}),
    "sparse version": Layer("").file("f", b"", pax={"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}),
    "sparse 1.0 text": Layer("").file("f", b"x" * 512, pax=SPARSE_1_0),
    "sparse 1.0 endless": Layer("").file(
        "f", b"9" * 5120, pax=SPARSE_1_0
    ),
}  # fmt: skip


@pytest.mark.parametrize("layer", HOSTILE.values(), ids=HOSTILE)
def test_d07_what_readers_disagree_about_is_refused(layer: Layer):
    with pytest.raises(InvalidLayer):
        entries(layer.tar)


def test_what_is_harmless_is_taken():
    comment = Layer("").pax(evil.pax_record("comment", "0" * 40), typeflag=b"g").file("f").tar
    assert [name for name, *_ in rows(comment)] == [b"f"]
    assert rows(b"") == rows(bytes(1024)) == rows(bytes(512)) == []
    assert rows(Layer("").file("f").tar + b"garbage" * 1000) == rows(Layer("").file("f").tar)  # after the end
    assert rows(Layer("").file("f").unended().tar) == rows(Layer("").file("f").tar)
    assert rows(Layer("").raw(evil.header("f", size=3)).raw(b"abc").unended().tar) == [(b"f", REGULAR, 3, b"")]
    assert rows(Layer("").hardlink("f", "g").tar) == [(b"f", b"1", 0, b"g")]
    blank = Layer("").raw(evil.header("f", mode=b"", uid=b"", gid=b"", mtime=b"")).tar
    assert rows(blank) == [(b"f", REGULAR, 0, b"")]


def test_d08_giant_headers_cost_no_memory():
    def endless() -> Iterator[bytes]:
        yield evil.header("PaxHeaders/0", typeflag=b"x", size=4 << 30)
        while True:
            yield b"x" * (1 << 20)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for head in (
        evil.header("PaxHeaders/0", typeflag=b"x", size=4 << 30),
        evil.header("PaxHeaders/0", typeflag=b"g", size=4 << 30),
        evil.header("././@LongLink", typeflag=b"L", size=4 << 30),
    ):
        stream = endless()
        next(stream)
        first = iter([head])
        with pytest.raises(InvalidLayer, match="extended header of"):
            list(TarReader(lambda first=first, stream=stream: next(first, None) or next(stream)))  # type: ignore[misc]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_d08_sparse_maps_are_bounded():
    header = bytearray(evil.header("f", typeflag=b"S", size=0, magic=b"ustar  \0"))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = (b"00000000001\0" + b"00000000000\0") * 21 + b"\1" + bytes(7)
    blocks = iter([bytes(header)])
    with pytest.raises(InvalidLayer, match="more than 100000 segments"):
        list(TarReader(lambda: next(blocks, block * 100)))
    numbers = b"10000000\n" + b"1\n" * (pax.SPARSE_SEGMENTS_MAX * 3)
    layer = Layer("").file("f", numbers, pax=SPARSE_1_0)
    with pytest.raises(InvalidLayer):
        entries(layer.tar)


def test_d07_time_is_linear():
    def cost(count: int) -> float:
        layer = Layer("")
        for number in range(count):
            layer.raw(evil.header(f"f{number}"))
        data = layer.tar
        begin = time.process_time()
        entries(data, 1000)
        return time.process_time() - begin

    small = min(cost(2000) for _ in range(3))
    assert min(cost(16000) for _ in range(3)) < 24 * small
    records = evil.pax_record("k", "v") * 80_000
    begin = time.process_time()
    entries(Layer("").pax(records).file("f").tar)
    assert time.process_time() - begin < 2


WORDS = [
    b"\0", b"\xff", b"\x80", b"0", b"7", b"/", b"x", b" ", b"1\n", b"1", b"2", b"5", b"L", b"K", b"S", b"g", b"\0" * 8,
    b"ustar  \0", b"ustar\x0000", b"00000000000\0", b"00000001000\0",
]  # fmt: skip
FIELDS = [0, 99, 100, 124, 135, 156, 157, 257, 345, 512, 514]
PLACES = st.one_of(st.sampled_from(FIELDS), st.integers(0, 1023))
MUTATIONS = st.lists(st.tuples(st.integers(0, 30), PLACES, st.sampled_from(WORDS)), min_size=1, max_size=3)


def mutated(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Overwrite parts of headers and of what follows them; checksums are right again, so that more gets through."""
    out = bytearray(data)
    headers = [at for at in range(0, len(out), 512) if out[at + 257 : at + 262] == b"ustar"]
    for number, place, word in changes:
        at = headers[number % len(headers)] + place
        if at + len(word) <= len(out):
            out[at : at + len(word)] = word
    for at in headers:
        out[at + 148 : at + 156] = b" " * 8
        out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


@requires("program:tar")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 40), MUTATIONS)
def test_d07_mutations_are_read_as_others_read_them_or_refused(form: str, seed: int, changes: Any):
    data = mutated(made_by_tarfile(FORMATS[form], seed=seed), changes)
    try:
        ours = rows(data)
    except InvalidLayer:
        return
    theirs = by_gnu_tar(data)
    if theirs is not None:
        assert [name for name, *_ in ours] == theirs
    elif (listed := by_tarfile(data)) is not None:
        assert ours == listed


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_or_empty(data: bytes):
    try:
        assert rows(data) == []
    except InvalidLayer:
        pass


@given(st.binary(max_size=300))
def test_pax_records_are_split_or_refused(data: bytes):
    try:
        found = pax.records(data)
    except InvalidLayer:
        return
    assert b"".join(evil.pax_record(key, value) for key, value in found) == data or any(
        record[:1] == b"0" or record[:1].isdigit() for record in data.split(b"\n")
    )
