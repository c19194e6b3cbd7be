"""The writer of tars and of layers: what comes out is read by our own reader, by Python's and by GNU tar."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hutch.image.layer import DIRECTORY, REGULAR, SYMLINK, TarReader
from hutch.image.tarwriter import TarWriter
from hutch.image.treewriter import Opened, TreeWriter

LONG = b"d/" + b"x" * 120


def written(fill: Callable[[TarWriter], None]) -> bytes:
    fd = os.memfd_create("archive")
    try:
        tar = TarWriter(fd)
        fill(tar)
        tar.finish()
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as file:
            data = file.read()
    finally:
        os.close(fd)
    assert tar.size == len(data)
    return data


def entries(data: bytes) -> list:
    stream = io.BytesIO(data)
    return list(TarReader(lambda: stream.read(1 << 16)))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (b"plain", {}),
        (LONG, {}),
        ("ü/ä".encode(), {}),
        (b"not-utf-8-\xff", {}),
        (b"a\nb", {}),
        (b"x" * 100, {}),
        (b"x" * 101, {}),
        (b"ids", {"uid": 1 << 21, "gid": (1 << 32) - 2}),
        (b"early", {"mtime_nanos": -1_500_000_000}),
        (b"late", {"mtime_nanos": (1 << 34) * 10**9 + 1}),
        (b"fraction", {"mtime_nanos": 1_234_567_890_123_456_789}),
        (b"attributes", {"xattrs": {b"user.a": b"\0\n=", b"security.capability": bytes(20)}}),
    ],
)
def test_what_is_written_is_read(name, fields):
    def fill(tar):
        tar.entry(name, REGULAR, mode=0o4755, **fields)

    data = written(fill)
    (entry,) = entries(data)
    assert (entry.name, entry.mode, entry.type) == (name, 0o4755, REGULAR)
    for key in ("uid", "gid", "mtime_nanos"):
        assert getattr(entry, key) == fields.get(key, 0)
    assert (entry.xattrs or {}) == fields.get("xattrs", {})
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        assert [os.fsencode(member.name) for member in tar] == [name]
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-t"], input=data, capture_output=True, check=True
    ).stdout
    assert listed == name + b"\n"


def test_long_links_and_large_sizes():
    def fill(tar):
        tar.entry(b"link", SYMLINK, linkname=LONG)
        tar.entry(b"directory/", DIRECTORY, mode=0o1777)

    link, directory = entries(written(fill))
    assert (link.linkname, directory.name, directory.mode) == (LONG, b"directory/", 0o1777)


def test_a_name_that_no_reader_could_make_is_refused():
    with pytest.raises(OSError, match="too long"):
        written(lambda tar: tar.entry(b"x" * 5000, REGULAR))


def tree(path: Path) -> bytes:
    def fill(tar):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with TreeWriter(tar) as writer:
                writer.tree(fd, b".", b"top")
        finally:
            os.close(fd)

    return written(fill)


def test_a_tree(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_text("content")
    os.link(tmp_path / "b/file", tmp_path / "b/hard")
    os.symlink("file", tmp_path / "b/link")
    os.mkfifo(tmp_path / "a-fifo")
    os.setxattr(tmp_path / "b/file", "user.kept", b"1")
    data = tree(tmp_path)
    assert data == tree(tmp_path)
    found = {entry.name: entry for entry in entries(data)}
    assert list(found) == [b"top/", b"top/a-fifo", b"top/b/", b"top/b/file", b"top/b/hard", b"top/b/link"]
    assert found[b"top/b/hard"].linkname == b"top/b/file"
    assert found[b"top/b/file"].xattrs == {b"user.kept": b"1"}
    assert found[b"top/b/file"].mtime_nanos == (tmp_path / "b/file").stat().st_mtime_ns


def test_a_sparse_file_costs_what_it_holds(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"data")
    data = tree(tmp_path)
    assert len(data) < 1 << 17
    entry = entries(data)[1]
    assert (entry.name, entry.size) == (b"top/sparse", 1 << 40)
    assert [segment for segment in entry.sparse if segment[0] == 1 << 30]
    listed = subprocess.run(["tar", "-tv"], input=data, capture_output=True, check=True).stdout.decode()
    assert f" {1 << 40} " in listed
    assert listed.rstrip().endswith("top/sparse")


@pytest.mark.parametrize("now", [b"", b"short", b"longer than it was before"])
def test_a_file_that_changes_while_it_is_read_keeps_the_size_in_its_header(tmp_path, now):
    path = tmp_path / "file"
    path.write_bytes(b"ten bytes!")

    def fill(tar):
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with TreeWriter(tar) as writer, Opened(fd, b"file") as opened:
                path.write_bytes(now)
                writer.entry(opened, b"file")
                writer.entry(opened, b"after")
        finally:
            os.close(fd)

    with tarfile.open(fileobj=io.BytesIO(written(fill))) as tar:
        stream = tar.extractfile("file")
        assert stream is not None
        assert stream.read() == now[:10].ljust(10, b"\0")
        assert tar.getnames() == ["file", "after"]


def test_sockets_are_left_out_and_said(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            null_fd = os.open(os.devnull, os.O_WRONLY)
            with TreeWriter(TarWriter(null_fd)) as writer:
                writer.tree(fd, b".", b".")
            os.close(null_fd)
        finally:
            os.close(fd)
    assert writer.notes == {"sockets": 1}
