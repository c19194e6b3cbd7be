"""An ordinary user's cgroups: with systemd, hutch asks the user's manager for a scope and shares it with the container.

    user.slice/hutch-ID.scope      made by the user's manager, delegated
      ├── hutch                    this process and its guardian
      └── container                the container: limits, devices, freezing, killing

A cgroup with processes cannot give controllers to its children, hence the two leaves. As hutch is in the scope, systemd
does not take the container's cgroup away before its counters have been read.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidArgument

_CGROUP = "/sys/fs/cgroup"
_SLICE = "user.slice"


def has_manager(uid: int) -> bool:
    """Whether this user has a systemd manager that can give it cgroups with limits."""
    path = f"{_CGROUP}/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    try:
        with open(path, encoding="ascii") as file:
            if "pids" not in file.read(4096).split():
                return False
    except OSError:
        return False
    from hutch.runtime.cgroups.systemd import user_bus

    return os.path.exists(user_bus())


def container_cgroup(container_id: str, parent: str) -> str:
    """Move this process into a scope of its own, and name the container's cgroup beside it.

    Args:
        container_id: names the scope.
        parent: the slice to put it in; the user's by default.

    Raises:
        InvalidArgument: `parent` is not a slice.
        HutchError: systemd refused.
    """
    from hutch.runtime.cgroups.systemd import enter_scope, expand_slice

    if parent and not parent.endswith(".slice"):
        raise InvalidArgument(f"--cgroup-parent {parent[:200]}: an ordinary user's must be a slice of systemd's")
    expand_slice(parent or _SLICE)
    scope = enter_scope(f"hutch-{container_id}.scope", parent or _SLICE)
    leaf = f"{_CGROUP}{scope}/hutch"
    os.mkdir(leaf, 0o755)
    with open(f"{leaf}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    return f"{scope}/container"
