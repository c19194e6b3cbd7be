"""spec: write a config.json to begin with, runc's own default."""

from __future__ import annotations

import os

from hutch.errors import AlreadyExists
from hutch.runtime.arguments import BOOLEAN, TEXT, Command, Flag
from hutch.runtime.commands.version import SPEC_VERSION
from hutch.runtime.documents import dump_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_QUIET = ("nosuid", "noexec", "nodev")
_MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats "
    "/proc/sched_debug /sys/firmware /proc/scsi"
).split()
_READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()


def _mount(destination: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": fstype, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def default_spec(*, rootless: bool) -> dict[str, Any]:
    """The configuration: a shell on a terminal in ``rootfs``, read-only.

    Args:
        rootless: in a user namespace with the caller as its root, on the host's network, without limits.
    """
    kinds = "pid ipc uts mount user" if rootless else "pid network ipc uts mount"
    namespaces = kinds.split()
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        namespaces.append("cgroup")
    linux: dict[str, Any] = {}
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        sys_mount = _mount("/sys", "none", "/sys", "rbind", *_QUIET, "ro")
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        sys_mount = _mount("/sys", "sysfs", "sysfs", *_QUIET, "ro")
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    linux["maskedPaths"] = _MASKED
    linux["readonlyPaths"] = _READONLY
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *(() if rootless else ("gid=5",)))
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "hutch",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", *pts),
            _mount("/dev/shm", "tmpfs", "shm", *_QUIET, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", *_QUIET),
            sys_mount,
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *_QUIET, "relatime", "ro"),
        ],
        "linux": linux,
    }


def _spec(context: Context, options: Options, arguments: list[str]) -> int:
    del context, arguments
    bundle = options.text("bundle")
    path = os.path.join(bundle, "config.json") if bundle else "config.json"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise AlreadyExists(f"file {path} exists", hint="remove it first") from None
    with os.fdopen(fd, "wb") as file:
        file.write(dump_bytes(default_spec(rootless=options.on("rootless")), "\t"))
    return 0


COMMANDS = {
    "spec": Command(
        "",
        _spec,
        flags=(
            Flag("bundle", TEXT, "directory to write config.json to (default: the current one)", letter="b"),
            Flag("rootless", BOOLEAN, "write a configuration for an ordinary user"),
        ),
        minimum=0,
        maximum=0,
    ),
}
