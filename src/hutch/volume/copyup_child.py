"""The helper process of `hutch.volume.copyup`: in a user namespace for an ordinary user.

VOLUME (FORM LAYER)…    copy the layers, base first, then move what was copied into VOLUME/_data; without layers, go on
                        moving. The lock on _data is inherited, and lasts as long as this process.
"""

from __future__ import annotations

import os
import stat

from hutch.linux.files import rename_new, syncfs
from hutch.snapshot import confine, idmap, report
from hutch.snapshot.removal import remove_tree
from hutch.snapshot.tree import copy_merged

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def main(arguments: list[str]) -> int:
    """Fill a volume; the paths are the engine's own."""
    try:
        confine.enter_namespaces(idmap.id_map() if idmap.needs_user_namespace() else None)
        os.umask(0)
        _fill(arguments[0], arguments[1::2], arguments[2::2])
        return report.results()
    except BaseException as problem:
        return report.failure(problem)


def _fill(volume: str, forms: list[str], layers: list[str]) -> None:
    volume_fd = os.open(volume, _DIRECTORY)
    data_fd = os.open("_data", _DIRECTORY, dir_fd=volume_fd)
    remove_tree(volume_fd, b"fill.part")
    if layers:
        try:
            _copy(volume_fd, forms, layers)
            if os.listdir(data_fd):
                # A container that asked for no copy wrote meanwhile: the volume is not empty any more.
                remove_tree(volume_fd, b"fill.part")
                return
            os.rename("fill.part", "fill", src_dir_fd=volume_fd, dst_dir_fd=volume_fd)
        except BaseException:
            remove_tree(volume_fd, b"fill.part")
            raise
    _move(volume_fd, data_fd)


def _copy(volume_fd: int, forms: list[str], layers: list[str]) -> None:
    layer_fds = [os.open(layer, _DIRECTORY) for layer in layers]
    os.mkdir("fill.part", 0o700, dir_fd=volume_fd)
    part_fd = os.open("fill.part", _DIRECTORY, dir_fd=volume_fd)
    copy_merged(layer_fds, forms, part_fd)
    syncfs(part_fd)
    os.close(part_fd)


def _move(volume_fd: int, data_fd: int) -> None:
    fill_fd = os.open("fill", _DIRECTORY, dir_fd=volume_fd)
    status = os.fstat(fill_fd)
    for name in os.listdir(fill_fd):
        try:
            rename_new(fill_fd, name, data_fd, name)
        except FileExistsError:
            continue  # a container's own, which counts for more
    os.chown("_data", status.st_uid, status.st_gid, dir_fd=volume_fd, follow_symlinks=False)
    os.fchmod(data_fd, stat.S_IMODE(status.st_mode))
    os.utime(data_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    remove_tree(volume_fd, b"fill")
