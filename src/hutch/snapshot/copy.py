"""Snapshots as full copies, for hosts where overlay does not mount.

Layers are kept apart as they come, with whiteouts as plain files, and are merged by copying when a container is made:
slow and large, but it needs nothing of the kernel or the file system (reflinks are used where there are any).

    snapshots/<key>/root    the merged copy, which is the container's root
"""

from __future__ import annotations

import os

from hutch.snapshot import helper
from hutch.snapshot.layers import delete
from hutch.snapshot.overlay import SnapshotDirectories
from hutch.snapshot.snapshotter import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class CopySnapshotter(SnapshotDirectories):
    """Copies.

    Args:
        root: the data root.
    """

    name = "copy"

    def __init__(self, root: str) -> None:
        super().__init__(root, "plain")

    def prepare(self, key: str, chain_ids: Sequence[str]) -> Rootfs:
        """Copy the layers, unless that has been done, and bind the copy."""
        path = self.path(key)
        root = f"{path}/root"
        lowers = self._store.stack(chain_ids)
        if not os.path.isdir(root):
            # Copied aside and renamed: after a crash there is no half-copied root.
            os.makedirs(path, mode=0o700, exist_ok=True)
            new = f"{path}/new-{os.urandom(4).hex()}"
            os.mkdir(new, 0o755)
            try:
                if lowers:
                    pairs = [word for lower in reversed(lowers) for word in (self._store.whiteouts, lower)]
                    helper.run("hutch.snapshot.tree_child", ["merge", new, *pairs])
                os.rename(new, root)
            except BaseException:
                delete(new)
                raise
        options = ["rbind", "rw", "nodev"]
        return Rootfs(({"destination": "/", "type": "bind", "source": root, "options": options},), "", lowers, "plain")
