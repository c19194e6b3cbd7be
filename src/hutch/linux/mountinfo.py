"""The mount table of a process: /proc/<pid>/mountinfo, parsed."""

from __future__ import annotations

import errno
import os

_LIMIT = 64 << 20  # a hundred thousand mounts, the kernel's default bound, fit


class MountInfo:
    """One line of mountinfo (proc(5)), with octal escapes undone.

    Attributes:
        mount_id, parent_id: unique while the mount exists.
        device: (major, minor) as in st_dev.
        root: the directory of the file system that is mounted.
        mount_point: relative to the reader's root.
        options: per mount, comma-separated.
        optional: propagation: "shared:3", "master:3", "propagate_from:2", "unbindable".
        fstype, source, super_options: of the file system.
    """

    __slots__ = (
        "device",
        "fstype",
        "mount_id",
        "mount_point",
        "optional",
        "options",
        "parent_id",
        "root",
        "source",
        "super_options",
    )

    def __init__(self, line: bytes) -> None:
        """Parse one line.

        Raises:
            OSError: EINVAL, not a line of mountinfo.
        """
        before, separator, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        if not separator or len(fields) < 6 or len(rest) < 3:
            raise OSError(errno.EINVAL, f"not a line of mountinfo: {line[:200]!r}")
        self.mount_id, self.parent_id = int(fields[0]), int(fields[1])
        major, _, minor = fields[2].partition(b":")
        self.device = (int(major), int(minor))
        self.root, self.mount_point, self.options = (_unescape(field) for field in fields[3:6])
        self.optional = tuple(os.fsdecode(field) for field in fields[6:])
        self.fstype, self.source, self.super_options = (_unescape(field) for field in rest[:3])

    def __repr__(self) -> str:
        return f"<MountInfo {self.mount_id} {self.mount_point!r} {self.fstype} {self.options}>"


def _unescape(field: bytes) -> str:
    if b"\\" not in field:
        return os.fsdecode(field)
    first, *rest = field.split(b"\\")
    result = bytearray(first)
    for part in rest:
        digits = part[:3]
        if len(digits) == 3 and all(0x30 <= digit <= 0x37 for digit in digits) and digits[0] <= 0x33:
            result.append(int(digits, 8))
            result += part[3:]
        else:
            result += b"\\" + part
    return os.fsdecode(bytes(result))


def parse_mountinfo(data: bytes) -> list[MountInfo]:
    """Every mount of a mountinfo file's content, in its order."""
    return [MountInfo(line) for line in data.split(b"\n") if line]


def mountinfo(path: str | bytes = "/proc/self/mountinfo") -> list[MountInfo]:
    """The mounts that a process sees, parents before children.

    Args:
        path: /proc/<pid>/mountinfo; of procfs, the caller trusts it.

    Raises:
        OSError: ENOENT (no such process), EINVAL (not mountinfo), EFBIG (over 64 MiB).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks, room = [], _LIMIT
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
            room -= len(chunk)
            if room < 0:
                raise OSError(errno.EFBIG, f"larger than {_LIMIT} bytes", path)
    finally:
        os.close(fd)
    return parse_mountinfo(b"".join(chunks))
