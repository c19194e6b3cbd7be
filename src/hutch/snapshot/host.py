"""`@host`: the running system as an image. Overlays whose lower directories are the host's own.

Root gets one overlay of `/`, and one of each other real file system mounted below it. An ordinary user cannot have
that: in a user namespace the mounts below `/` are locked, and overlay refuses a lower directory that has locked mounts
in it (EINVAL, not to reveal what they cover). So the root is assembled: a directory with one overlay per directory of
`/` that has no mount below it, and the same again one level down where there is one.

Pseudo file systems are left out, as the runtime brings its own; so is the data root, for the container's layers would
otherwise appear inside it.
"""

from __future__ import annotations

import os
import stat

from hutch.linux.mountinfo import mountinfo
from hutch.snapshot.layers import check_key
from hutch.snapshot.overlay import overlay_mount
from hutch.snapshot.snapshotter import Part, Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.linux.mountinfo import MountInfo
    from hutch.spec.runtime import Mount

_PSEUDO = frozenset(
    "autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue "
    "nsfs proc pstore ramfs rpc_pipefs securityfs selinuxfs sysfs tmpfs tracefs".split()
)
_UNLAYERED = frozenset("affs cifs exfat hfs hfsplus isofs jfs msdos ntfs3 smb3 vfat".split())
"""They compare names in ways of their own, for which overlayfs takes no layer from them: shown read-only."""
_SEPARATORS = frozenset(":,\\\n")
_DEPTH_MAX = 8
_COVER = ["ro", "nosuid", "nodev", "noexec", "mode=0", "size=4k"]


def host_rootfs(root: str, key: str, *, user: bool) -> Rootfs:
    """Make, or find again, the directories of a writable view of the running system.

    Args:
        root: the data root, where what the container writes goes.
        key: of the snapshot; `remove` of any snapshotter deletes it.
        user: for mounting in a user namespace.
    """
    view = _View(root, f"{root}/snapshots/{check_key(key)}", mountinfo(), user=user)
    os.makedirs(view.directory, mode=0o700, exist_ok=True)
    if user:
        view.assemble()
    else:
        view.overlay_everything()
    view.cover(root)
    first = view.parts[0] if view.parts and not user else None
    return Rootfs(
        tuple(view.mounts),
        upper=first.upper if first else "",
        lowers=first.lowers if first else (),
        whiteouts="user" if user else "trusted",
        parts=tuple(view.parts),
    )


def shown(root: str) -> list[str]:
    """The host's mount points that root's view of the running system shows; `root` is the data root."""
    return _View(root, "", mountinfo(), user=False).shown()


def is_real(mount: MountInfo) -> bool:
    """True for a file system with files of its own; the host's `/` is one whatever its type."""
    return mount.mount_point == "/" or (mount.fstype not in _PSEUDO and not mount.fstype.startswith("fuse."))


class _View:
    """One view in the making."""

    def __init__(self, root: str, directory: str, table: list[MountInfo], *, user: bool) -> None:
        self.root, self.directory, self.user = root, directory, user
        self.mounts: list[Mount] = []
        self.parts: list[Part] = []
        # What is mounted last on a mount point is what one sees.
        self._by_point = {mount.mount_point: mount for mount in table}
        self._points = sorted(self._by_point)

    def overlay_everything(self) -> None:
        """One overlay for each real file system, parents first."""
        for point in self.shown():
            if os.path.isdir(point) and self._can_be_layer(point):
                self._overlay(point)
            elif os.path.exists(point):
                self._bind(point)

    def shown(self) -> list[str]:
        """Mount points of the real file systems that can be seen, parents first."""
        hidden: list[str] = [self.root]
        found: list[str] = []
        for point in self._points:
            if point == self.root or any(_below(point, one) for one in hidden):
                continue
            (found if is_real(self._by_point[point]) else hidden).append(point)
        return found

    def assemble(self) -> None:
        """A directory for the root, with overlays and links in it."""
        base = f"{self.directory}/root"
        os.makedirs(base, mode=0o755, exist_ok=True)
        self.mounts.append({"destination": "/", "type": "bind", "source": base, "options": ["bind", "rw"]})
        self._assemble("/", base, 0)

    def cover(self, path: str) -> None:
        """Put something empty over a path of the host, if the view shows it."""
        if any(_below(path, part.destination) for part in self.parts):
            self.mounts.append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": list(_COVER)})

    def _assemble(self, path: str, target: str, depth: int) -> None:
        for name in sorted(os.listdir(path)):
            source, made = f"{path.rstrip('/')}/{name}", f"{target}/{name}"
            status = os.lstat(source)
            if stat.S_ISLNK(status.st_mode):
                if not os.path.lexists(made):
                    os.symlink(os.readlink(source), made)
            elif stat.S_ISDIR(status.st_mode):
                os.makedirs(made, mode=stat.S_IMODE(status.st_mode) | 0o700, exist_ok=True)
                self._assemble_directory(source, made, depth)
            elif stat.S_ISREG(status.st_mode) and os.access(source, os.R_OK):
                os.close(os.open(made, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
                self._bind(source)

    def _assemble_directory(self, source: str, made: str, depth: int) -> None:
        mount = self._by_point.get(source)
        if source == self.root or (mount is not None and not is_real(mount)):
            return
        if not os.access(source, os.R_OK | os.X_OK):
            return  # an empty directory says as much
        if not self._can_be_layer(source):
            self._bind(source)
        elif not any(_below(point, source) for point in self._points):
            self._overlay(source)
        elif depth < _DEPTH_MAX:
            self._assemble(source, made, depth + 1)

    def _can_be_layer(self, path: str) -> bool:
        mount = self._by_point.get(path)
        return not _SEPARATORS & set(path) and (mount is None or mount.fstype not in _UNLAYERED)

    def _overlay(self, lower: str) -> None:
        place = f"{self.directory}/parts/{len(self.parts)}"
        upper, work = f"{place}/upper", f"{place}/work"
        os.makedirs(work, mode=0o700, exist_ok=True)
        if not os.path.isdir(upper):
            status = os.stat(lower)
            new = f"{place}/new-{os.urandom(4).hex()}"
            os.mkdir(new, 0o700)
            if not self.user:
                os.chown(new, status.st_uid, status.st_gid)
            os.chmod(new, stat.S_IMODE(status.st_mode))
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.rename(new, upper)
        self.mounts.append(overlay_mount((lower,), upper, work, user=self.user, destination=lower))
        self.parts.append(Part(lower, upper, (lower,)))

    def _bind(self, source: str) -> None:
        options = ["rbind", "ro", "nosuid", "nodev"]
        self.mounts.append({"destination": source, "type": "bind", "source": source, "options": options})


def _below(path: str, directory: str) -> bool:
    """True if `path` lies strictly below `directory`."""
    return path != directory and path.startswith(directory.rstrip("/") + "/")
