"""Apply a layer's tar stream to a directory, by descriptor.

Every path of the archive is untrusted. A parent directory is resolved once, by openat2 inside the root, and held;
the last component is never followed; metadata goes to descriptors, or with *at() calls that do not follow
(security.md D1-D6). An entry is replaced as OCI image-spec layer.md#applying-changesets says: a directory over a
directory keeps its content, anything else makes way. Whiteouts become what `hutch.snapshot.whiteouts` says.

A layer is unpacked into a directory of its own. What it takes for granted from below (parents it does not list, the
target of a hard link) is looked up in the layers below it and copied up.

Runs in the unpacking child: imports only cheap modules, expects a umask of 0 and one thread.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidLayer
from hutch.image.layer import BLOCKDEV, CHAR, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK, TarReader
from hutch.image.limits import Quota
from hutch.image.parents import Parents
from hutch.snapshot.removal import remove_tree
from hutch.snapshot.whiteouts import META_PREFIX, OPAQUE_NAME, PREFIX, LowerLayers, Whiteouts, is_device_zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.image.layer import Entry
    from hutch.image.limits import Limits

    Handler = Callable[[Entry, int, bytes, bytes], None]

ID_MAX = (1 << 32) - 2
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX

# The kernel's verdicts on what the archive asks for; everything else is the machine's failure.
_ARCHIVE_ERRORS = frozenset(
    getattr(errno, name) for name in "ENAMETOOLONG ELOOP ENOTDIR EISDIR EINVAL E2BIG ERANGE EMLINK".split()
)


class Owners:
    """Who may own files here.

    Attributes:
        uid, gid: whom files belong to that nobody chowns: the caller.
        single: True if only the caller's own id is mapped: then other owners are ignored,
            as podman's ignore_chown_errors does.
        devices: False in a user namespace, where the kernel makes no device nodes.
    """

    __slots__ = ("devices", "gid", "single", "uid")

    def __init__(self, *, single: bool = False, devices: bool = True) -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.single = single
        self.devices = devices


class Applier:
    """Apply entries one by one; `finish` puts the directories' metadata in place.

    Args:
        root_fd: the layer's directory, empty, 0700, open for reading; stays the caller's.
        lower_fds: directories of the layers below, nearest first; stay the caller's.
        whiteouts: the form in which this layer and those below say what is gone.

    Attributes:
        notes: what was left out, and how often: for the log, never an error.
        opaque_root: True if the layer hides everything below it.
        exact_modes: False where the process's umask is known to be 0.
    """

    exact_modes = False

    def __init__(
        self, root_fd: int, whiteouts: Whiteouts, limits: Limits, owners: Owners, lower_fds: tuple[int, ...] = ()
    ) -> None:
        self.notes: dict[str, int] = {}
        self.opaque_root = False
        self.quota = Quota(limits)
        self._root_fd = root_fd
        self._whiteouts = whiteouts
        self._owners = owners
        self._parents = Parents(root_fd, whiteouts, LowerLayers(lower_fds, whiteouts), self.quota)
        self._reader: TarReader
        self._handlers: dict[bytes, Handler] = {
            REGULAR: self._regular,
            LINK: self._hard_link,
            SYMLINK: self._symlink,
            CHAR: self._device,
            BLOCKDEV: self._device,
            DIRECTORY: self._directory,
            FIFO: self._fifo,
        }

    def run(self, reader: TarReader) -> None:
        """Apply the whole archive.

        Raises:
            InvalidLayer: the archive is malformed, climbs out, asks for what no file system does, or
                goes over a limit. What was applied stays: the caller throws the directory away.
            OSError: the machine failed (ENOSPC, EIO, …); the filename is the entry's.
        """
        self._reader = reader
        handlers, count = self._handlers, self.quota.count
        entry = None
        try:
            for entry in reader:
                count(entry.size if entry.sparse is None else sum(size for _, size in entry.sparse))
                path = normalised(entry.name)
                head, _, name = path.rpartition(b"/")
                if PREFIX in path and self._whiteout(entry, head, name):
                    continue
                if path:
                    handlers[entry.type](entry, self._parents.get(head), name, path)
                else:
                    self._root(entry)
            entry = None
            self._parents.finish(self._set_xattrs)
        except OSError as problem:
            raise _explained(problem, entry.name if entry else b"directories") from problem
        finally:
            self._parents.close()

    # One method per type: (entry, parent directory, last name, whole path)

    def _regular(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:  # noqa: ARG002
        try:
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=dir_fd)
        except FileExistsError:
            self._make_way(dir_fd, name)
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=dir_fd)
        try:
            if entry.sparse is None:
                self._reader.copy(fd, entry.size)
            else:
                for offset, size in entry.sparse:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._reader.copy(fd, size)
                os.ftruncate(fd, entry.size)
            self._set_owner(entry, fd)
            if entry.mode & _SPECIAL_BITS or self.exact_modes:
                os.fchmod(fd, entry.mode & 0o7777)
            if entry.xattrs:
                self._set_xattrs(fd, entry.xattrs)
            mtime = entry.mtime_nanos
            os.utime(fd, ns=(mtime if entry.atime_nanos is None else entry.atime_nanos, mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._make_way(dir_fd, name)
                os.mkdir(name, 0o700, dir_fd=dir_fd)
                # What made way hid whatever the layers below have here; so must the directory.
                fd = self._parents.keep(path, os.open(name, _DIRECTORY, dir_fd=dir_fd), entry)
                self._whiteouts.make_opaque(fd)
                self._set_owner(entry, fd)
                return
        fd = self._parents.keep(path, os.open(name, _DIRECTORY, dir_fd=dir_fd), entry)
        self._set_owner(entry, fd)

    def _symlink(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:  # noqa: ARG002
        if len(entry.linkname) > 4095:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try:
            os.symlink(entry.linkname, name, dir_fd=dir_fd)
        except FileExistsError:
            self._make_way(dir_fd, name)
            os.symlink(entry.linkname, name, dir_fd=dir_fd)
        self._finish_node(entry, dir_fd, name)

    def _hard_link(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:
        target = normalised(entry.linkname)
        head, _, last = target.rpartition(b"/")
        if not target or PREFIX in target:
            raise InvalidLayer("a hard link to what cannot be its target")
        if target == path:
            return
        # The other parent's descriptor is duplicated: looking up one may drop the other from the cache.
        dir_fd = os.dup(dir_fd)
        try:
            source_fd = self._link_source(head, last, target)
            try:
                os.link(last, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(
                    os.stat(last, dir_fd=source_fd, follow_symlinks=False),
                    os.stat(name, dir_fd=dir_fd, follow_symlinks=False),
                ):
                    return
                source_fd = os.dup(source_fd)
                try:
                    self._make_way(dir_fd, name)
                    os.link(last, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
                finally:
                    os.close(source_fd)
        finally:
            os.close(dir_fd)

    def _device(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:  # noqa: ARG002
        if entry.type == CHAR and entry.device == (0, 0):
            raise InvalidLayer("character device 0:0 in a layer: it would hide files below")  # security.md D12
        if not self._owners.devices:
            self._note("device nodes are left out in a user namespace")
            return
        kind = stat.S_IFCHR if entry.type == CHAR else stat.S_IFBLK
        major, minor = entry.device
        if major >= 1 << 12 or minor >= 1 << 20:
            raise InvalidLayer(f"device number {major}:{minor} is out of range")
        self._mknod(entry, dir_fd, name, kind, os.makedev(major, minor))

    def _fifo(self, entry: Entry, dir_fd: int, name: bytes, path: bytes) -> None:  # noqa: ARG002
        self._mknod(entry, dir_fd, name, stat.S_IFIFO, 0)

    def _root(self, entry: Entry) -> None:
        """`./`: the layer's own root, which can only be a directory (CVE-2021-29136)."""
        if entry.type != DIRECTORY:
            raise InvalidLayer("the root of a layer is not a directory")
        fd = self._parents.keep(b"", os.open(b".", _DIRECTORY, dir_fd=self._root_fd), entry)
        self._set_owner(entry, fd)

    def _whiteout(self, entry: Entry, head: bytes, name: bytes) -> bool:
        """Handle a path with `.wh.` in it; False if it is an ordinary name after all."""
        for component in head.split(b"/"):
            if component.startswith(META_PREFIX):
                return self._note("aufs metadata is ignored")
            if component.startswith(PREFIX):
                raise InvalidLayer("a whiteout is not a directory")
        if not name.startswith(PREFIX):
            return False
        if name == OPAQUE_NAME:
            if not head:
                self.opaque_root = True
            self._whiteouts.make_opaque(self._parents.get(head))
            return True
        if name.startswith(META_PREFIX):
            return self._note("aufs metadata is ignored")
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b"..") or entry.type == DIRECTORY:
            raise InvalidLayer("a whiteout of nothing")
        dir_fd = self._parents.get(head)
        try:
            status = os.stat(hidden, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            self._whiteouts.hide(dir_fd, hidden)
            return True
        # A whiteout is about the layers below only: what this layer itself has stays, but covers them.
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(hidden, _DIRECTORY, dir_fd=dir_fd)
            try:
                self._whiteouts.make_opaque(fd)
            finally:
                os.close(fd)
        return True

    # Parts

    def _link_source(self, head: bytes, last: bytes, target: bytes) -> int:
        """The directory that holds a hard link's target, copied up from below if this layer lacks it."""
        source_fd = self._parents.find(head)
        if source_fd >= 0:
            try:
                status = os.stat(last, dir_fd=source_fd, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if stat.S_ISDIR(status.st_mode) or is_device_zero(status):
                    raise InvalidLayer("a hard link to what cannot be its target")
                return source_fd
        if not self._parents.copy_up(target):
            raise InvalidLayer(f"a hard link to {shown(target)}, which does not exist")
        return self._parents.get(head)

    def _make_way(self, dir_fd: int, name: bytes) -> None:
        """Remove what an entry replaces."""
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self._parents.forget(in_use=dir_fd)
            remove_tree(dir_fd, name)
        else:
            os.unlink(name, dir_fd=dir_fd)

    def _mknod(self, entry: Entry, dir_fd: int, name: bytes, kind: int, device: int) -> None:
        mode = kind | entry.mode & 0o777
        try:
            os.mknod(name, mode, device, dir_fd=dir_fd)
        except FileExistsError:
            self._make_way(dir_fd, name)
            os.mknod(name, mode, device, dir_fd=dir_fd)
        self._finish_node(entry, dir_fd, name)

    def _finish_node(self, entry: Entry, dir_fd: int, name: bytes) -> None:
        """Owner and times of what has no descriptor to write them to."""
        if entry.xattrs:
            self._note("extended attributes of links and special files are left out")
        if entry.uid != self._owners.uid or entry.gid != self._owners.gid:
            self._chown(lambda uid, gid: os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False), entry)
        mtime = entry.mtime_nanos
        times = (mtime if entry.atime_nanos is None else entry.atime_nanos, mtime)
        os.utime(name, ns=times, dir_fd=dir_fd, follow_symlinks=False)

    def _set_owner(self, entry: Entry, fd: int) -> None:
        if entry.uid != self._owners.uid or entry.gid != self._owners.gid:
            self._chown(lambda uid, gid: os.fchown(fd, uid, gid), entry)

    def _chown(self, chown: Callable[[int, int], None], entry: Entry) -> None:
        if entry.uid > ID_MAX or entry.gid > ID_MAX:
            raise InvalidLayer(f"owner {entry.uid}:{entry.gid} is out of range")
        try:
            chown(entry.uid, entry.gid)
        except OSError as problem:
            if self._owners.single and problem.errno in (errno.EINVAL, errno.EPERM):
                self._note("owners other than the user are left out: no subordinate ids")
            elif problem.errno == errno.EINVAL:
                raise InvalidLayer(
                    f"owner {entry.uid}:{entry.gid} is not mapped in the user namespace",
                    hint="give the user more subordinate ids in /etc/subuid and /etc/subgid",
                ) from problem
            else:
                raise

    def _set_xattrs(self, fd: int, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if not _carried(name):
                self._note("extended attributes that would speak to the host's kernel are left out")
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as problem:
                if problem.errno == errno.EOPNOTSUPP:
                    self._note("the file system does not take some extended attributes")
                elif problem.errno == errno.EPERM and not self._owners.devices:
                    self._note("a user namespace does not take some extended attributes")
                else:
                    raise OSError(problem.errno, f"extended attribute {shown(name)}: {problem.strerror}") from None

    def _note(self, text: str) -> bool:
        self.notes[text] = self.notes.get(text, 0) + 1
        return True


def normalised(name: bytes) -> bytes:
    """The path below the root that an archive's name stands for: no leading or doubled slash, no dots; b"" is the root.

    Raises:
        InvalidLayer: it has a `..`, a NUL, or is longer than a path may be.
    """
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if b"." in name or b"//" in name or name[:1] == b"/":
        parts = [part for part in name.split(b"/") if part and part != b"."]
        if b".." in parts:
            raise InvalidLayer(f"{shown(name)}: a layer must not climb out of its root")
        name = b"/".join(parts)
    if b"\0" in name:
        raise InvalidLayer(f"{shown(name)}: a NUL in a name")
    if len(name) > 4095:
        raise InvalidLayer(f"{shown(name)}: file name too long")
    return name


def shown(name: bytes) -> str:
    """An untrusted name as it may stand in a message: escaped and cut."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text[:200])
    return text if len(name) <= 200 else text + "…"


def _carried(name: bytes) -> bool:
    """False for attributes that mean something to the kernel or the engine here, not to the image (security.md D12)."""
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == b"security.capability" or name.startswith(b"system.posix_acl_")


def _explained(problem: OSError, name: bytes) -> Exception:
    if problem.errno in _ARCHIVE_ERRORS:
        return InvalidLayer(f"{shown(name)}: {(problem.strerror or '').lower()}")
    return OSError(problem.errno, problem.strerror, shown(name))
