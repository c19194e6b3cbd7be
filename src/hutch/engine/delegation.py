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


def obstacle(uid: int) -> str:
    """Why no cgroup with limits can be had for this user; empty if its systemd manager gives them.

    Nothing but that manager is asked: a cgroup that an administrator handed to the user is left alone.
    """
    if not os.path.exists(f"{_CGROUP}/cgroup.controllers"):
        return "that takes cgroup v2, which this host does not have at /sys/fs/cgroup"
    path = f"{_CGROUP}/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    try:
        with open(path, encoding="ascii") as file:
            controllers = file.read(4096).split()
    except OSError:
        return f"no systemd manager runs for user {uid}"
    if "pids" not in controllers:
        return f"user@{uid}.service has no controllers delegated"
    from hutch.runtime.cgroups.systemd import user_bus

    bus = user_bus()
    return "" if os.path.exists(bus) else f"the user's systemd manager cannot be reached at {bus}"


def check_parent(parent: str) -> None:
    """Check --cgroup-parent.

    Raises:
        InvalidArgument: it is not a slice.
    """
    from hutch.runtime.cgroups.systemd import expand_slice

    if parent and not parent.endswith(".slice"):
        raise InvalidArgument(f"--cgroup-parent {parent[:200]}: an ordinary user's must be a slice of systemd's")
    expand_slice(parent or _SLICE)


def container_cgroup(container_id: str, parent: str) -> str:
    """Move this process into a scope of its own, and name the container's cgroup beside it.

    Args:
        container_id: names the scope.
        parent: the slice to put it in; the user's by default.

    Raises:
        InvalidArgument: `parent` is not a slice.
        HutchError: systemd refused.
    """
    from hutch.runtime.cgroups.systemd import enter_scope

    check_parent(parent)
    scope = enter_scope(f"hutch-{container_id}.scope", parent or _SLICE)
    leaf = f"{_CGROUP}{scope}/hutch"
    os.mkdir(leaf, 0o755)
    with open(f"{leaf}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    return f"{scope}/container"
