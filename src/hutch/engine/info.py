"""What `hutch info` tells: the kernel, cgroups, storage and security this caller has, and what is missing."""

from __future__ import annotations

import os

from hutch import __version__
from hutch.engine import apparmor
from hutch.errors import HutchError, NoUserNamespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.engine import Engine


def information(engine: Engine) -> dict[str, Any]:
    """Everything, in the order it is shown; nothing is made or changed on disk but the private directories."""
    facts = engine.facts
    system = os.uname()
    return {
        "Version": __version__,
        "Kernel": system.release,
        "Architecture": system.machine,
        "CPUs": facts.processors,
        "MemoryBytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Rootless": facts.rootless,
        "Cgroup": {
            "Version": "2" if facts.cgroup2 else "1",
            "Driver": "systemd" if facts.rootless and facts.delegated else "cgroupfs",
            "Limits": facts.delegated,
            "Swap": facts.swap_accounting,
        },
        "Storage": {"Root": engine.root, "State": engine.state, **_snapshotter(engine)},
        "Security": {
            "Profile": "default",
            "Seccomp": os.access("/proc/sys/kernel/seccomp/actions_avail", os.F_OK),
            "AppArmor": facts.apparmor,
            "AppArmorProfile": "none" if apparmor.obstacle(facts) else apparmor.DEFAULT_PROFILE,
            "SELinux": facts.selinux,
            "UserNamespace": _user_namespace(engine),
        },
        "DefaultNetwork": "none",
        "Warnings": warnings(engine),
    }


def _snapshotter(engine: Engine) -> dict[str, str]:
    try:
        engine.prepare_directories()
        name = engine.snapshots.name
    except HutchError as error:
        return {"Snapshotter": "none", "Reason": str(error)}
    return {"Snapshotter": name, "Reason": engine.snapshotter_reason}


def _user_namespace(engine: Engine) -> str:
    if not engine.facts.rootless:
        return "private ids for each container (auto)"
    from hutch.snapshot.idmap import id_map

    missing = _no_user_namespaces()
    if missing:
        return missing
    return "single id" if id_map().single else "subordinate ids"


def _no_user_namespaces() -> str:
    """Why this user cannot make a user namespace, tried out by a helper; "" if it can."""
    from hutch.snapshot import helper

    try:
        helper.run("hutch.engine.userns_child", [])
    except OSError as problem:
        return str(NoUserNamespaces.because(problem.errno or 0))
    return ""


def warnings(engine: Engine) -> list[str]:
    """What does not work here that works elsewhere."""
    facts = engine.facts
    found = []
    if not facts.delegated:
        why = facts.undelegated
        found.append(f"no cgroup for limits: {why}; containers run without limits, and flags for limits fail")
    if not facts.swap_accounting:
        found.append("the kernel does not account for swap: --memory-swap is not available")
    if not facts.raise_limits and not facts.rootless:
        found.append("CAP_SYS_RESOURCE is missing: limits above the caller's own are lowered to them")
    if facts.apparmor and not facts.rootless and (reason := apparmor.obstacle(facts)):
        found.append(f"containers run without an AppArmor profile: {reason}")
    if not facts.apparmor and not facts.selinux:
        found.append("neither AppArmor nor SELinux is enabled")
    ids = _user_namespace(engine)
    if "not available" in ids:
        found.append("user namespaces are denied to this user: images can be listed, not unpacked, and none can be run")
    elif facts.rootless and ids == "single id":
        found.append("no subordinate ids: every file of a container belongs to one id")
    return found
