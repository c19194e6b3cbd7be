"""Snapshots as overlay mounts: natively for root, with `userxattr` in a user namespace.

    snapshots/<key>/upper   what the container writes
    snapshots/<key>/work    overlay's own
    snapshots/<key>/empty   the lower directory of an image without layers

metacopy, redirect_dir and index are off whatever the module's defaults: layers come from others, and attributes in
them must not redirect lookups (security.md D12). Needs Linux 5.11 in a user namespace.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidState, NotFound
from hutch.linux.files import private_directory
from hutch.snapshot import helper, idmap
from hutch.snapshot.layers import LayerStore, check_key
from hutch.snapshot.snapshotter import Rootfs, Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.snapshot.layers import DirectoryStage
    from hutch.snapshot.snapshotter import LayerInfo
    from hutch.spec.runtime import Mount

OPTIONS = ("metacopy=off", "redirect_dir=nofollow", "index=off")


def overlay_mount(lowers: Sequence[str], upper: str, work: str, *, user: bool, destination: str = "/") -> Mount:
    """The OCI mount of an overlay.

    Args:
        lowers: directories, top first; absolute, without ':' or ','.
        upper: where writes go; "" for a read-only overlay.
        work: an empty directory on the same file system as `upper`.
        user: mounted in a user namespace.
        destination: relative to the container's root.
    """
    options = [f"lowerdir={':'.join(lowers)}"]
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    options += [*OPTIONS, "nodev"]  # device nodes of a layer are files to look at, not to open (security.md D14)
    if user:
        options.append("userxattr")
    return {"destination": destination, "type": "overlay", "source": "overlay", "options": options}


class SnapshotDirectories:
    """What snapshotters share that keep `snapshots/<key>/` beside a LayerStore."""

    name = ""

    def __init__(self, root: str, whiteouts: str) -> None:
        self._store = LayerStore(root, whiteouts)
        self._snapshots = f"{root}/snapshots"
        private_directory(self._snapshots)

    def has(self, chain_id: str) -> bool:
        """True if the layer is whole."""
        return self._store.has(chain_id)

    def info(self, chain_id: str) -> LayerInfo:
        """What is recorded about a layer."""
        return self._store.info(chain_id)

    def stage(self, chain_id: str, parents: Sequence[str]) -> DirectoryStage:
        """Begin a layer on top of others."""
        return self._store.stage(chain_id, parents)

    def layers(self) -> list[str]:
        """The chain ids of whole layers."""
        return self._store.all()

    def remove_layer(self, chain_id: str) -> None:
        """Delete a layer."""
        self._store.remove(chain_id)

    def snapshots(self) -> list[str]:
        """The keys of snapshots."""
        return sorted(os.listdir(self._snapshots))

    def path(self, key: str) -> str:
        """The directory of a snapshot that may or may not exist."""
        return f"{self._snapshots}/{check_key(key)}"

    def remove(self, key: str) -> None:
        """Delete a snapshot; InvalidState if something is mounted in it, and what is mounted is not touched."""
        path = self.path(key)
        try:
            self._store.discard(path, durable=False)  # its container is being removed, if need be once more
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            raise InvalidState(
                f"snapshot {key}: something is mounted in it: {problem.filename or path}",
                have="mounted", want="unmounted", hint="unmount it, then remove again",
            ) from problem  # fmt: skip

    def usage(self, key: str) -> Usage:
        """What the snapshot takes on disk."""
        path = self.path(key)
        if not os.path.isdir(path):
            raise NotFound(f"snapshot {key}: not here")
        if idmap.needs_user_namespace():
            size, inodes = helper.run("hutch.snapshot.tree_child", ["usage", path])
            return Usage(int(size), int(inodes))
        from hutch.snapshot.tree import usage_of

        return Usage(*usage_of(path))

    def sweep(self) -> int:
        """Delete what crashed processes left half done."""
        return self._store.sweep()


class OverlaySnapshotter(SnapshotDirectories):
    """Overlay.

    Args:
        root: the data root.
        user: for mounting in a user namespace.
    """

    name = "overlay"

    def __init__(self, root: str, *, user: bool) -> None:
        super().__init__(root, "user" if user else "trusted")
        self._user = user

    def prepare(self, key: str, chain_ids: Sequence[str]) -> Rootfs:
        """Make upper and work directories, or find them again; the mount that joins them to the layers."""
        path = self.path(key)
        lowers = self._store.stack(chain_ids)
        if not lowers:
            os.makedirs(f"{path}/empty", mode=0o755, exist_ok=True)
            lowers = (f"{path}/empty",)
        upper, work = f"{path}/upper", f"{path}/work"
        if not os.path.isdir(upper):
            # Made aside and renamed: after a crash there is no upper directory with half its metadata.
            os.makedirs(work, mode=0o700, exist_ok=True)
            new = f"{path}/new-{os.urandom(4).hex()}"
            os.mkdir(new, 0o700)
            if not chain_ids:
                os.chmod(new, 0o755)
            else:
                like(lowers[0], new)
            os.rename(new, upper)
        mount = overlay_mount(lowers, upper, work, user=self._user)
        return Rootfs((mount,), upper, lowers, self._store.whiteouts)


def like(original: str, directory: str) -> None:
    """Give a directory the owner, mode and times of another: overlay shows the upper directory's."""
    status = os.stat(original)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()) and idmap.needs_user_namespace():
        helper.run("hutch.snapshot.tree_child", ["like", original, directory])
        return
    os.chown(directory, status.st_uid, status.st_gid)
    os.chmod(directory, stat.S_IMODE(status.st_mode))
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))
