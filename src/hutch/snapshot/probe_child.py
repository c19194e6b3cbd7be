"""A helper process that mounts a small overlay, in namespaces of its own, to see whether it can be relied on."""

from __future__ import annotations

import os

from hutch.errors import NotSupported
from hutch.linux import mount
from hutch.snapshot import confine, idmap, report
from hutch.snapshot.whiteouts import Whiteouts, is_device_zero


def main(arguments: list[str]) -> int:
    """Try it.

    Args:
        arguments: the whiteout form, an empty directory of the data root, and the mount options, which name
            directories below it.
    """
    try:
        confine.enter_namespaces(idmap.id_map() if idmap.needs_user_namespace() else None)
        _try(*arguments)
        return report.results()
    except BaseException as problem:
        return report.failure(problem)


def _try(form: str, path: str, options: str) -> None:
    for name in ("lower", "lower/hidden", "upper", "work", "merged"):
        os.mkdir(f"{path}/{name}")
    for name in ("lower/file", "lower/hidden/below"):
        os.close(os.open(f"{path}/{name}", os.O_CREAT | os.O_CLOEXEC))
    os.mkdir(f"{path}/upper/hidden")
    whiteouts = Whiteouts(form)
    upper_fd = os.open(f"{path}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    hidden_fd = os.open("hidden", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper_fd)
    whiteouts.make_opaque(hidden_fd)
    mount.mount("overlay", f"{path}/merged", "overlay", 0, options)
    if os.listdir(f"{path}/merged/hidden"):
        raise NotSupported("overlay: opaque directories are not opaque")
    os.unlink(f"{path}/merged/file")
    if not is_device_zero(os.stat("file", dir_fd=upper_fd, follow_symlinks=False)):
        raise NotSupported("overlay: deleting leaves no whiteout")
    mount.umount2(f"{path}/merged")
