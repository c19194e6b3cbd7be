"""Copies of snapshots: what of a tree stays the same, and what becomes of ids."""

from __future__ import annotations

import os
import struct

from hutch.snapshot.duplicate import Shift, _shifted, duplicate


def test_a_tree_is_copied(tmp_path):
    source = tmp_path / "source"
    upper = source / "upper"
    (upper / "deep" / "work").mkdir(parents=True)
    (source / "work" / "rest").mkdir(parents=True)
    (upper / "file").write_bytes(b"content")
    (upper / "file").chmod(0o640)
    (upper / "deep" / "hard").hardlink_to(upper / "file")
    (upper / "link").symlink_to("/nowhere")
    (upper / "deep" / "work" / "kept").write_bytes(b"")
    os.mkfifo(upper / "fifo")
    os.utime(upper / "deep", (1, 2))
    duplicate(str(source), str(tmp_path / "copy"))
    copy = tmp_path / "copy" / "upper"
    assert (copy / "file").read_bytes() == b"content"
    assert (copy / "file").stat().st_mode & 0o777 == 0o640
    assert (copy / "file").stat().st_nlink == 2 and (copy / "deep" / "hard").samefile(copy / "file")
    assert not (copy / "file").samefile(upper / "file")
    assert os.readlink(copy / "link") == "/nowhere"
    assert (copy / "fifo").is_fifo()
    assert (copy / "deep" / "work" / "kept").exists(), "the container's own directory of that name"
    assert os.stat(copy / "deep").st_mtime == 2
    assert os.listdir(tmp_path / "copy" / "work") == [], "overlay's is made anew"


def test_ids_of_the_range_move():
    shift = Shift(1000, 10, 5000)
    assert [shift(number) for number in (999, 1000, 1009, 1010)] == [999, 5000, 5009, 1010]
    assert not Shift(1000, 10, 1000)
    assert not Shift()


def test_ids_in_attributes_move():
    shift = Shift(1000, 10, 5000)
    capability = struct.pack("<IIIII", 0x03000001, 1, 0, 0, 0) + struct.pack("<I", 1000)
    assert _shifted("security.capability", capability, shift)[20:] == struct.pack("<I", 5000)
    assert _shifted("security.capability", capability[:20], shift) == capability[:20]  # revision 2 has none
    entries = [(0x01, 6, 0xFFFFFFFF), (0x02, 4, 1005), (0x08, 4, 7), (0x20, 0, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    moved = list(struct.iter_unpack("<HHI", _shifted("system.posix_acl_access", acl, shift)[4:]))
    assert moved == [entries[0], (0x02, 4, 5005), entries[2], entries[3]]
    assert _shifted("user.note", acl, shift) == acl
