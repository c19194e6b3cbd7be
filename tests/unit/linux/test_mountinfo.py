from __future__ import annotations

import errno
import os

import pytest

from hutch.linux.mountinfo import MountInfo, mountinfo, parse_mountinfo


def test_fields_and_escapes():
    line = (
        rb"36 35 98:0 /m\134nt1 /mnt/a\040b\011c\012d\134x rw,noatime master:1 shared:7 - ext3\040x /dev/root rw,err=a"
    )
    entry = MountInfo(line)
    assert (entry.mount_id, entry.parent_id, entry.device) == (36, 35, (98, 0))
    assert entry.root == "/m\\nt1"
    assert entry.mount_point == "/mnt/a b\tc\nd\\x"
    assert entry.options == "rw,noatime"
    assert entry.optional == ("master:1", "shared:7")
    assert (entry.fstype, entry.source, entry.super_options) == ("ext3 x", "/dev/root", "rw,err=a")


def test_names_outside_utf8_survive():
    entry = MountInfo(b"1 2 0:3 / /\xff\\377 rw - tmpfs none rw")
    assert os.fsencode(entry.mount_point) == b"/\xff\xff"


@pytest.mark.parametrize("backslash", [rb"/a\400", rb"/a\8", rb"/a\04", b"/a\\"])
def test_what_is_no_escape_is_left_alone(backslash):
    assert MountInfo(b"1 2 0:3 / %s rw - tmpfs none rw" % backslash).mount_point == backslash.decode()


def test_empty_source():
    entry = MountInfo(b"1 2 0:3 / /x rw - tmpfs  rw,size=4k")
    assert (entry.source, entry.super_options) == ("", "rw,size=4k")


@pytest.mark.parametrize("line", [b"x", b"1 2 0:3 / /x rw tmpfs none rw", b"1 2 0:3 / - tmpfs none rw", b"1 2 - a"])
def test_other_text_is_refused(line):
    with pytest.raises(OSError, match="not a line of mountinfo") as caught:
        parse_mountinfo(line + b"\n")
    assert caught.value.errno == errno.EINVAL


def test_own_table_agrees_with_statx_of_the_root():
    root = [entry for entry in mountinfo() if entry.mount_point == "/"][-1]
    device = os.stat("/").st_dev
    assert root.device == (os.major(device), os.minor(device)) or root.fstype in ("btrfs", "overlay")


def test_no_such_process():
    with pytest.raises(FileNotFoundError):
        mountinfo("/proc/0/mountinfo")
