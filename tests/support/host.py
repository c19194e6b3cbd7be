"""Facts about the host, and the decorator that skips a test with a reason where one is missing.

    @requires("root", "cgroup1", "program:podman")
    def test_...

or ``pytestmark = requires("root")`` for a module. A need is a word of `NEEDS`, or one of
``program:NAME``, ``cap:NAME`` (an effective capability), ``kernel:5.14`` (at least), ``fs:NAME``
(/proc/filesystems), ``controller:NAME`` (a cgroup controller, of any version), ``module:NAME`` (of Python),
``machine:x86_64``. An unknown need is an error: a misspelt one must not skip anything.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable

import pytest

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def requires(*needs: str) -> pytest.MarkDecorator:
    """Skip the test, naming what is missing, unless the host has all of `needs`."""
    for need in needs:
        _check(need)
    return pytest.mark.requires(*needs)


def missing(needs: tuple[str, ...]) -> str:
    """Why these needs are not met, or an empty string."""
    for need in needs:
        if reason := _reason(need):
            return reason
    return ""


def read(path: str) -> str:
    """The text of a /proc or /sys file, empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def cgroup_mounts() -> list[tuple[str, str, tuple[str, ...]]]:
    """(mount point, "cgroup" or "cgroup2", super options) of each cgroup file system mounted here."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, options = right.split(" ", 2)
        if fstype in {"cgroup", "cgroup2"}:
            found.append((left.split(" ")[4], fstype, tuple(options.split(","))))
    return found


def is_cgroup2() -> bool:
    """Whether the one v2 tree is at /sys/fs/cgroup (neither legacy nor hybrid)."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def controllers() -> frozenset[str]:
    """Names of the controllers that cgroups made here can use, of whichever version."""
    if is_cgroup2():
        return frozenset(read("/sys/fs/cgroup/cgroup.controllers").split())
    known = {line.split("\t")[0] for line in read("/proc/cgroups").splitlines()[1:]}
    return frozenset(known & {option for _, _, options in cgroup_mounts() for option in options})


def subordinate_ids(user: str) -> bool:
    """Whether /etc/subuid and /etc/subgid give `user` ranges."""
    return all(
        any(line.startswith(f"{user}:") for line in read(path).splitlines()) for path in ("/etc/subuid", "/etc/subgid")
    )


def _userns() -> str:
    if read("/proc/sys/user/max_user_namespaces").strip() == "0":
        return "user namespaces are off (user.max_user_namespaces = 0)"
    if read("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0" and os.geteuid() != 0:
        return "user namespaces are for root only (kernel.unprivileged_userns_clone = 0)"
    if not os.path.exists("/proc/self/ns/user"):
        return "the kernel has no user namespaces"
    return ""


def _subids() -> str:
    import pwd

    name = pwd.getpwuid(os.geteuid()).pw_name
    return "" if subordinate_ids(name) else f"{name} has no subordinate ids in /etc/subuid and /etc/subgid"


NEEDS: dict[str, Callable[[], str]] = {
    "root": lambda: "" if os.geteuid() == 0 else "needs root",
    "user": lambda: "" if os.geteuid() != 0 else "is about an ordinary user, and this one is root",
    "cgroup1": lambda: "" if any(kind == "cgroup" for _, kind, _ in cgroup_mounts()) else "no cgroup v1 is mounted",
    "cgroup2": lambda: "" if is_cgroup2() else "cgroup v2 is not at /sys/fs/cgroup",
    "apparmor": lambda: "" if read("/sys/module/apparmor/parameters/enabled").startswith("Y") else "no AppArmor",
    "selinux": lambda: "" if os.path.exists("/sys/fs/selinux/enforce") else "no SELinux",
    "systemd": lambda: "" if os.path.isdir("/run/systemd/system") else "systemd is not the init",
    "userns": _userns,
    "subids": _subids,
    "ext4": lambda: "" if shutil.which("mkfs.ext4") else "no mkfs.ext4",
}


def _check(need: str) -> None:
    kind, colon, _ = need.partition(":")
    if need not in NEEDS and not (colon and kind in _PREFIXED):
        raise ValueError(f"unknown need {need!r}")


@functools.cache
def _reason(need: str) -> str:
    _check(need)
    kind, colon, value = need.partition(":")
    return _PREFIXED[kind](value) if colon else NEEDS[need]()


def _capability(name: str) -> str:
    held = int(read("/proc/self/status").partition("CapEff:")[2].split()[0], 16)
    bit = CAPABILITIES.index(name.removeprefix("CAP_"))
    return "" if held >> bit & 1 else f"this machine does not grant CAP_{name.removeprefix('CAP_')}"


def _kernel(version: str) -> str:
    release = platform.release()
    have = tuple(int("".join(filter(str.isdigit, part)) or "0") for part in release.split("-")[0].split(".")[:2])
    return "" if have >= tuple(map(int, version.split("."))) else f"needs Linux {version}, this is {release}"


def _filesystem(name: str) -> str:
    return "" if name in read("/proc/filesystems").split() else f"the kernel has no {name} file system"


_PREFIXED: dict[str, Callable[[str], str]] = {
    "program": lambda name: "" if shutil.which(name) else f"{name} is not installed",
    "cap": _capability,
    "kernel": _kernel,
    "fs": _filesystem,
    "controller": lambda name: "" if name in controllers() else f"no cgroup controller {name}",
    "module": lambda name: "" if importlib.util.find_spec(name) else f"Python has no module {name}",
    "machine": lambda name: "" if platform.machine() == name else f"is about {name}, this is {platform.machine()}",
}
