"""Where this host's cgroup hierarchies are mounted, and where in them this process is.

Facts come from mountinfo and /proc/self/cgroup, never from guessing names below /sys/fs/cgroup: controllers may be
mounted together (``cpu,cpuacct``), elsewhere, or as a subtree (inside a container).
"""

from __future__ import annotations

import os

from hutch.errors import InvalidArgument, NotSupported
from hutch.linux.mountinfo import MountInfo

DEFAULT_ROOT = "/sys/fs/cgroup"

# What the kernel's super options list beside controllers.
_NOT_CONTROLLERS = frozenset(
    ("rw", "ro", "clone_children", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods", "nsdelegate")
)


class Mount:
    """One mounted hierarchy: `top` is which of its cgroups appears at `path`."""

    __slots__ = ("path", "top")

    def __init__(self, path: str, top: str) -> None:
        self.path = path
        self.top = top

    def locate(self, cgroup: str) -> str:
        """Return the directory of a cgroup named as /proc/PID/cgroup names it.

        A cgroup that this mount does not show (a cgroup namespace, a subtree mount) is answered with the mount's
        own top, the closest that can be reached.
        """
        if self.top == "/":
            below = cgroup
        elif cgroup == self.top or cgroup.startswith(self.top + "/"):
            below = cgroup[len(self.top) :]
        else:
            below = ""
        if ".." in below.split("/"):
            below = ""
        return (self.path + "/" + below.strip("/")).rstrip("/")


class Hierarchies:
    """Every mounted hierarchy: v1 by controller (or ``name=…``), and the unified one if there is one."""

    __slots__ = ("unified", "v1")

    def __init__(self, v1: dict[str, Mount], unified: Mount | None) -> None:
        self.v1 = v1
        self.unified = unified

    @property
    def is_v2(self) -> bool:
        """Whether cgroup v2 is all there is; named v1 hierarchies without controllers do not count."""
        return self.unified is not None and all(name.startswith("name=") for name in self.v1)


def find(root: str = DEFAULT_ROOT, mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
    """Find the hierarchies mounted at or below `root`, and for the default root also those mounted elsewhere.

    Raises:
        NotSupported: no cgroup file system is mounted there.
    """
    v1: dict[str, Mount] = {}
    unified: Mount | None = None
    root = root.rstrip("/")
    entries = _cgroup_mounts(mountinfo)
    below = [entry for entry in entries if (entry[0].path + "/").startswith(root + "/")]
    elsewhere = [entry for entry in entries if entry not in below] if root == DEFAULT_ROOT else []
    for mount, fstype, options in below + elsewhere:
        if fstype == "cgroup2":
            unified = unified or mount
            continue
        for option in options.split(","):
            if option.startswith("name=") or ("=" not in option and option not in _NOT_CONTROLLERS):
                v1.setdefault(option, mount)
    if not v1 and unified is None:
        raise NotSupported(f"cgroup: no hierarchy is mounted at {root}")
    return Hierarchies(v1, unified)


def _cgroup_mounts(path: str) -> list[tuple[Mount, str, str]]:
    found = []
    with open(path, "rb") as file:
        for line in file:
            if b" - cgroup" not in line:  # hosts have thousands of mounts, and a dozen of these
                continue
            info = MountInfo(line.rstrip(b"\n"))
            found.append((Mount(info.mount_point, info.root), info.fstype, info.super_options))
    return found


def own_cgroups(pid: int | str = "self") -> dict[str, str]:
    """Return the cgroup of a process in each hierarchy: controller (or ``name=…``, or "" for unified) → path."""
    cgroups: dict[str, str] = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                cgroups[controller] = path
    return cgroups


def check_path(cgroups_path: str) -> str:
    """Check a spec's cgroupsPath and return it without empty and ``.`` components; a leading / is kept.

    Raises:
        InvalidArgument: ``..``, a control character, or a name longer than the kernel takes.
    """
    parts = [part for part in cgroups_path.split("/") if part not in {"", "."}]
    for part in parts:
        if part == "..":
            raise InvalidArgument(f"cgroup path {cgroups_path[:200]!r}: .. is not allowed")
        if len(os.fsencode(part)) > 255:
            raise InvalidArgument(f"cgroup path {cgroups_path[:40]!r}…: a component is longer than 255 bytes")
        if any(ord(c) < 32 or c == "\x7f" for c in part):
            raise InvalidArgument(f"cgroup path {cgroups_path[:200]!r}: control characters are not allowed")
    if len(cgroups_path) > 3072:
        raise InvalidArgument(f"cgroup path {cgroups_path[:40]!r}…: longer than 3072 characters")
    return ("/" if cgroups_path.startswith("/") else "") + "/".join(parts)
