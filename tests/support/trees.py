"""Describe directory trees exactly, also through mounts made for the purpose in namespaces of their own.

As a program, in a fresh process: ``python trees.py MOUNTS TARGET [COMMAND...]``, where MOUNTS is a JSON list of OCI
mounts. It mounts them at TARGET, in a user namespace for an ordinary user, and prints the description; with a
command, it runs that in the new root instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Tree = dict[str, list[Any]]


def describe(path: str, *, times: bool = True) -> Tree:
    """Every file below `path` by its relative name: mode, owner, time, content, attributes, its first hard link."""
    found: Tree = {}
    links: dict[tuple[int, int], str] = {}
    base = os.fsencode(path)
    pending = [b""]
    while pending:
        name = pending.pop()
        full = os.path.join(base, name) if name else base
        status = os.lstat(full)
        shown = name.decode("utf-8", "backslashreplace") or "."
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = [status.st_size, hashlib.file_digest(file, "sha256").hexdigest()]
        elif kind == stat.S_IFLNK:
            content = os.readlink(full).decode("utf-8", "backslashreplace")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        elif kind == stat.S_IFDIR:
            pending += sorted((os.path.join(name, child) for child in os.listdir(full)), reverse=True)
        first = None
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), shown)
        xattrs = {
            key: os.getxattr(full, key, follow_symlinks=False).hex()
            for key in os.listxattr(full, follow_symlinks=False)
            if ".overlay." not in key and key != "security.selinux"
        }
        found[shown] = [
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns if times else None,
            content,
            xattrs,
            first,
        ]
    return dict(sorted(found.items()))


def through(mounts: Sequence[Mapping[str, Any]], target: str, *command: str, python: str = sys.executable) -> Any:
    """What a new process sees through `mounts` at `target`: a Tree, or what a command prints."""
    done = subprocess.run(program(mounts, target, *command, python=python), capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr.decode())
    return done.stdout.decode() if command else json.loads(done.stdout)


def program(mounts: Sequence[Mapping[str, Any]], target: str, *command: str, python: str = sys.executable) -> list[str]:
    """The command line of `through`; it needs no file that only we can read."""
    with open(__file__, encoding="utf-8") as file:
        return [python, "-c", file.read(), json.dumps(mounts), target, *command]


def _main() -> None:
    from hutch.linux import mount
    from hutch.linux.namespaces import CLONE_NEWNS, unshare
    from hutch.snapshot import idmap

    mounts, target, *command = sys.argv[1:]
    if idmap.needs_user_namespace():
        idmap.enter(idmap.id_map(), CLONE_NEWNS)
    else:
        unshare(CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    flags = {"ro": mount.MOUNT_ATTR_RDONLY, "nosuid": mount.MOUNT_ATTR_NOSUID, "nodev": mount.MOUNT_ATTR_NODEV}
    for one in json.loads(mounts):
        place = target + one["destination"].rstrip("/")
        words = one["options"]
        attributes = sum(flags[word] for word in words if word in flags)
        if one["type"] == "bind":
            recursive = mount.MS_REC if "rbind" in words else 0
            mount.mount(one["source"], place, None, mount.MS_BIND | recursive)
            mount.mount_setattr(-100, place, attr_set=attributes)
        elif one["type"] == "overlay" and len(data := ",".join(word for word in words if word not in flags)) < 4096:
            old = {"ro": mount.MS_RDONLY, "nosuid": mount.MS_NOSUID, "nodev": mount.MS_NODEV}
            mount.mount("overlay", place, "overlay", sum(old[word] for word in words if word in old), data)
        elif one["type"] == "overlay":  # more than a page of options: since Linux 6.7
            fd = mount.fsopen("overlay")
            for word in words:
                key, equals, value = word.partition("=")
                if key == "lowerdir":
                    for lower in value.split(":"):
                        mount.fsconfig_string(fd, "lowerdir+", lower)
                elif equals:
                    mount.fsconfig_string(fd, key, value)
                elif word not in flags:
                    mount.fsconfig_flag(fd, key)
            mount.fsconfig_create(fd)
            mount.move_mount(mount.fsmount(fd, attributes), "", -100, place)
        else:
            data = ",".join(word for word in words if "=" in word)
            mount.mount(one["source"], place, one["type"], mount.MS_NOSUID | mount.MS_RDONLY, data)
    if command:
        os.chroot(target)
        os.chdir("/")
        os.execv(command[0], command)
    print(json.dumps(describe(target)))


if __name__ == "__main__":
    _main()
