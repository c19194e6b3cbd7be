"""How a layer on disk says that something of the layers below is gone.

In an image layer's tar that is a file `.wh.NAME` or `.wh..wh..opq` (OCI image-spec layer.md#whiteouts). Unpacked,
it takes the form that whoever mounts the layer understands:

    trusted   character device 0:0, and the attribute trusted.overlay.opaque: overlay mounted by root
    user      character device 0:0, and user.overlay.opaque: overlay mounted in a user namespace (userxattr)
    plain     the `.wh.` files themselves: any file system; merged by hutch, never by the kernel

Imports only cheap modules: the unpacking child uses it.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PREFIX = b".wh."
META_PREFIX = b".wh..wh."
OPAQUE_NAME = b".wh..wh..opq"

FORMS = ("trusted", "user", "plain")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Whiteouts:
    """Make and recognise whiteouts in one of the three forms."""

    __slots__ = ("_attribute", "form")

    def __init__(self, form: str) -> None:
        if form not in FORMS:
            raise ValueError(f"unknown whiteout form {form!r}")
        self.form: Final = form
        self._attribute = f"{form}.overlay.opaque"

    def hide(self, dir_fd: int, name: bytes) -> None:
        """Hide `name` of the layers below. The name must be free here, but for the plain form."""
        if self.form == "plain":
            _touch(dir_fd, PREFIX + name)
        else:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=dir_fd)

    def make_opaque(self, dir_fd: int) -> None:
        """Hide everything that the layers below have in this directory. `dir_fd` is not O_PATH."""
        if self.form == "plain":
            _touch(dir_fd, OPAQUE_NAME)
        else:
            os.setxattr(dir_fd, self._attribute, b"y")

    def hides(self, dir_fd: int, name: bytes) -> bool:
        """True if the layer hides `name` of the layers below and has nothing itself in its place."""
        if self.form == "plain":
            return _exists(dir_fd, PREFIX + name) and not _exists(dir_fd, name)
        try:
            return is_device_zero(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def is_opaque(self, dir_fd: int) -> bool:
        """True if the directory hides what the layers below have in it. `dir_fd` is not O_PATH."""
        if self.form == "plain":
            return _exists(dir_fd, OPAQUE_NAME)
        try:
            return os.getxattr(dir_fd, self._attribute) == b"y"
        except OSError as problem:
            if problem.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return False
            raise


def is_device_zero(status: os.stat_result) -> bool:
    """True for overlay's whiteout: the character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


class LowerLayers:
    """The layers below one that is being unpacked, read as overlay would merge them.

    Args:
        layer_fds: their directories, the nearest first; stay the caller's.
        whiteouts: the form they were unpacked in.
    """

    __slots__ = ("_layers", "_whiteouts")

    def __init__(self, layer_fds: tuple[int, ...], whiteouts: Whiteouts) -> None:
        self._layers = layer_fds
        self._whiteouts = whiteouts

    def root(self) -> os.stat_result | None:
        """The status of the root directory as the layers below have it."""
        return os.fstat(self._layers[0]) if self._layers else None

    def find(self, path: bytes) -> tuple[int, bytes, os.stat_result] | None:
        """Look up a normalised path; symbolic links are not followed, in no component.

        Returns:
            (fd of the parent directory, last name, lstat of it); the caller closes the fd. None if the
            merged view has no such file.
        """
        head, _, name = path.rpartition(b"/")
        for layer_fd in self._layers:
            parent_fd, covered = self._descend(layer_fd, head)
            if parent_fd < 0:
                if covered:
                    return None
                continue
            try:
                status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                if not is_device_zero(status):
                    return parent_fd, name, status
                covered = True
            except FileNotFoundError:
                covered |= self._whiteouts.hides(parent_fd, name) or self._whiteouts.is_opaque(parent_fd)
            os.close(parent_fd)
            if covered:
                return None
        return None

    def names(self, path: bytes) -> set[bytes]:
        """What the merged view has in the directory `path`; nothing if it is no directory there."""
        found: set[bytes] = set()
        hidden: set[bytes] = set()
        for layer_fd in self._layers:
            dir_fd, covered = self._descend(layer_fd, path)
            if dir_fd >= 0:
                try:
                    self._add_names(dir_fd, found, hidden)
                    covered |= self._whiteouts.is_opaque(dir_fd)
                finally:
                    os.close(dir_fd)
            if covered:
                break
        return found

    def _add_names(self, dir_fd: int, found: set[bytes], hidden: set[bytes]) -> None:
        """One layer's part of a merged directory: what layers above do not hide, and what it hides of those below."""
        present: set[bytes] = set()
        gone: set[bytes] = set()
        for name in map(os.fsencode, os.listdir(dir_fd)):
            if self._whiteouts.form == "plain" and name.startswith(PREFIX):
                gone.add(name[len(PREFIX) :])
            elif self._whiteouts.hides(dir_fd, name):
                gone.add(name)
            else:
                present.add(name)
        found |= present - hidden
        hidden |= gone - present

    def _descend(self, layer_fd: int, path: bytes) -> tuple[int, bool]:
        """Open a directory of one layer; (-1 if it has none, whether the layers further down are covered)."""
        covered = False
        current = os.open(b".", _DIRECTORY, dir_fd=layer_fd)
        for component in path.split(b"/") if path else ():
            try:
                following = openat2(current, component, _DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except OSError as problem:
                if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                # Absent here: look further down, unless this layer hides it. Not a directory: it covers all.
                absent = problem.errno == errno.ENOENT and not self._whiteouts.hides(current, component)
                return -1, covered or not absent
            finally:
                covered |= self._whiteouts.is_opaque(current)
                os.close(current)
            current = following
        return current, covered


def _touch(dir_fd: int, name: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=dir_fd))


def _exists(dir_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
