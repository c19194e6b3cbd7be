"""A helper process for trees whose files belong to others: in a user namespace for an ordinary user.

remove PATH             delete the tree
usage PATH              → bytes, inodes
like ORIGINAL PATH      give a directory the owner, mode and times of another
merge PATH (FORM LAYER)…  copy layers, base first, over one another into an empty directory
duplicate PATH TARGET   copy a snapshot's directory to one that is not there yet
"""

from __future__ import annotations

import os
import stat

from hutch.snapshot import confine, idmap, report
from hutch.snapshot.duplicate import duplicate
from hutch.snapshot.removal import remove_tree
from hutch.snapshot.tree import copy_merged, usage_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def main(arguments: list[str]) -> int:
    """Do one of the above; all paths are the engine's own."""
    try:
        confine.enter_namespaces(idmap.id_map() if idmap.needs_user_namespace() else None)
        os.umask(0)
        return report.results(*_do(*arguments))
    except BaseException as problem:
        return report.failure(problem)


def _do(verb: str, path: str, *others: str) -> list[bytes]:
    if verb == "remove":
        parent_fd = os.open(os.path.dirname(path), _DIRECTORY)
        remove_tree(parent_fd, os.fsencode(os.path.basename(path)))
        return []
    if verb == "usage":
        return [b"%d" % number for number in usage_of(path)]
    if verb == "like":
        status = os.stat(path)
        os.chown(others[0], status.st_uid, status.st_gid)
        os.chmod(others[0], stat.S_IMODE(status.st_mode))
        os.utime(others[0], ns=(status.st_atime_ns, status.st_mtime_ns))
        return []
    if verb == "merge":
        layer_fds = [os.open(layer, _DIRECTORY) for layer in others[1::2]]
        copy_merged(layer_fds, others[::2], os.open(path, _DIRECTORY))
        return []
    if verb == "duplicate":
        duplicate(path, others[0])
        return []
    raise ValueError(verb)
