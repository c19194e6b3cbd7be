"""A second copy of a container's own files, as they lie under its overlay: whiteouts, attributes, holes and links kept.

What is copied is `snapshots/<key>/`: what a container has changed, not what it stands on. Content is shared on disk
where the file system can. The working directories of overlays are made anew.

Imports only cheap modules: the helper for ordinary users uses it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from hutch.snapshot.tree import copy_node

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DEPTH_MAX = 400
_WORK = (b"work", b"new-")
_FILES = (b"upper", b"root")  # see hutch.snapshot.overlay, hutch.snapshot.copy
_CAPABILITY = "security.capability"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_ACL_WITH_ID = (0x02, 0x08)  # ACL_USER, ACL_GROUP


class Shift:
    """How ids on disk change: those of one container's range become another's.

    Args:
        first: of the range they are in.
        size: of it.
        to: first of the other; the same one leaves everything as it is.
    """

    __slots__ = ("_by", "_range")

    def __init__(self, first: int = 0, size: int = 0, to: int = 0) -> None:
        self._range, self._by = range(first, first + size), to - first

    def __bool__(self) -> bool:
        return bool(self._range) and self._by != 0

    def __call__(self, number: int) -> int:
        """The id that `number` becomes."""
        return number + self._by if number in self._range else number


def duplicate(source: str, target: str, shift: Shift | None = None) -> None:
    """Copy a snapshot's directory.

    Args:
        source: the directory, whose content others have written.
        target: must not exist; its parent is the engine's own.
        shift: what becomes of ids.

    Raises:
        OSError: of the machine; what was copied stays for the caller to remove.
    """
    source_fd = os.open(source, _DIRECTORY)
    try:
        os.mkdir(target, 0o700)
        target_fd = os.open(target, _DIRECTORY)
        try:
            _Copy(target_fd, shift or Shift()).directory(source_fd, target_fd, b"", 0, own=True)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class _Copy:
    def __init__(self, top_fd: int, shift: Shift) -> None:
        self._top_fd, self._shift = top_fd, shift
        self._linked: dict[tuple[int, int], bytes] = {}

    def directory(self, source_fd: int, target_fd: int, path: bytes, depth: int, *, own: bool) -> None:
        """Fill a directory; `own` says that we are still above the container's files."""
        if depth > _DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, "directories nested too deep", os.fsdecode(path))
        for name in map(os.fsencode, os.listdir(source_fd)):
            try:
                status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it is not frozen, being without a cgroup
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=target_fd)
                if not (own and name.startswith(_WORK)):
                    self._below(source_fd, target_fd, name, path, depth, own=own and name not in _FILES)
            else:
                self._file(source_fd, target_fd, name, status, path)
        self._finish(source_fd, target_fd)

    def _below(self, source_fd: int, target_fd: int, name: bytes, path: bytes, depth: int, *, own: bool) -> None:
        child_fd = openat2(source_fd, name, _DIRECTORY, 0, _RESOLVE)
        try:
            made_fd = openat2(target_fd, name, _DIRECTORY, 0, _RESOLVE)
            try:
                self.directory(child_fd, made_fd, path + name + b"/", depth + 1, own=own)
            finally:
                os.close(made_fd)
        finally:
            os.close(child_fd)

    def _file(self, source_fd: int, target_fd: int, name: bytes, status: os.stat_result, path: bytes) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._linked:
            first = self._linked[key]
            os.link(first, name, src_dir_fd=self._top_fd, dst_dir_fd=target_fd, follow_symlinks=False)
            return
        copy_node(source_fd, target_fd, name, status)
        if self._shift:
            self._shift_file(source_fd, target_fd, name, status)
        if status.st_nlink > 1:
            self._linked[key] = path + name

    def _shift_file(self, source_fd: int, target_fd: int, name: bytes, status: os.stat_result) -> None:
        uid, gid = self._shift(status.st_uid), self._shift(status.st_gid)
        os.chown(name, uid, gid, dir_fd=target_fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        original_fd = os.open(name, flags, dir_fd=source_fd)
        try:
            fd = os.open(name, flags, dir_fd=target_fd)
            try:
                # The change of owner took the set-id bits and the capabilities.
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
                for attribute in os.listxattr(original_fd):
                    os.setxattr(fd, attribute, _shifted(attribute, os.getxattr(original_fd, attribute), self._shift))
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)
        finally:
            os.close(original_fd)

    def _finish(self, source_fd: int, target_fd: int) -> None:
        status = os.fstat(source_fd)
        os.fchown(target_fd, self._shift(status.st_uid), self._shift(status.st_gid))
        os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source_fd):
            if not name.endswith(".overlay.uuid"):  # it names one overlay among all
                os.setxattr(target_fd, name, _shifted(name, os.getxattr(source_fd, name), self._shift))
        os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _shifted(name: str, value: bytes, shift: Shift) -> bytes:
    """An extended attribute with the ids in it changed: linux/capability.h, linux/posix_acl_xattr.h."""
    if not shift:
        return value
    if name == _CAPABILITY and len(value) == 24:  # revision 3 ends with the id of its namespace's root
        return value[:20] + struct.pack("<I", shift(struct.unpack_from("<I", value, 20)[0]))
    if name in _ACLS and len(value) >= 4:
        entries = [
            (tag, permissions, shift(number) if tag in _ACL_WITH_ID else number)
            for tag, permissions, number in struct.iter_unpack("<HHI", value[4 : len(value) - (len(value) - 4) % 8])
        ]
        return value[:4] + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    return value
