"""The container's mount list: the kernel's file systems, the engine's files, then what the user attached. Pure.

Mounts are sorted by depth, so that one below another is mounted after it; a mount of the user's replaces a default one
with the same destination. Attached storage is nosuid and nodev unless the user says otherwise, and a read-only bind is
read-only in everything below it.
"""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.engine.mountspec import MountRequest
    from hutch.engine.options import RunOptions
    from hutch.spec.runtime import Mount

DEFAULT_SHM = 64 << 20
_TTY_GID = 5
_KERNEL_BIND = ["rbind", "nosuid", "noexec", "nodev", "rslave"]


class Attached(Record):
    """A mount request whose source is known: the host path to bind, if it is of a kind that has one.

    Attributes:
        fstype: of a volume that is a file system to be mounted anew; empty for one to bind.
        data: the parameters of that file system.
        idmap: whether ids on disk are the host's and must be shown as the container's.
    """

    request: MountRequest
    source: str = ""
    fstype: str = ""
    data: tuple[str, ...] = ()
    idmap: bool = False


class MountFacts(Record):
    """What the mount list depends on besides the options.

    Attributes:
        userns: whether the container has a user namespace of its own, so that sysfs, procfs and mqueue can only be
            mounted for namespaces that it owns.
        host_mqueue: whether the host has a /dev/mqueue, for --ipc=host.
        tty_gid_mapped: whether group 5, which owns terminals, exists in the container.
        files: destination → host path of the engine's files.
        attached: the user's mounts.
        extra: further mounts, as they are.
    """

    userns: bool = False
    host_mqueue: bool = True
    tty_gid_mapped: bool = True
    files: tuple[tuple[str, str], ...] = ()
    attached: tuple[Attached, ...] = ()
    extra: tuple[Mount, ...] = ()


def mount_list(options: RunOptions, facts: MountFacts) -> list[Mount]:
    """Every mount of the container but its root, in the order they are made. OCI runtime-spec config.md#mounts."""
    by_destination = {mount["destination"]: mount for mount in _kernel_mounts(options, facts)}
    for destination, source in facts.files:
        by_destination[destination] = {
            "destination": destination,
            "type": "bind",
            "source": source,
            "options": ["bind", "nosuid", "nodev", "noexec", "rprivate"],
        }
    for mount in facts.extra:
        by_destination[mount["destination"]] = mount
    for attached in facts.attached:
        by_destination[attached.request.target] = _user_mount(attached)
    return sorted(by_destination.values(), key=lambda mount: mount["destination"].count("/"))


def _kernel_mounts(options: RunOptions, facts: MountFacts) -> Iterable[Mount]:
    ro = [] if options.privileged else ["ro"]
    noexec = [] if options.security.profile == "compat" else ["noexec"]
    if facts.userns and options.pid not in ("", "private"):
        yield {"destination": "/proc", "type": "bind", "source": "/proc", "options": list(_KERNEL_BIND)}
    else:
        yield {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}
    yield {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", *noexec, "strictatime", "mode=755", "size=65536k"],
    }
    gid = [f"gid={_TTY_GID}"] if facts.tty_gid_mapped else []
    yield {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *gid],
    }
    if facts.userns and options.network != "none":
        yield {"destination": "/sys", "type": "bind", "source": "/sys", "options": [*_KERNEL_BIND, "ro"]}
    else:
        yield {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", *ro],
        }
    yield {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", *ro],
    }
    yield from _ipc_mounts(options, facts)


def _ipc_mounts(options: RunOptions, facts: MountFacts) -> Iterable[Mount]:
    if options.ipc == "host":
        for destination in ("/dev/shm", "/dev/mqueue")[: 2 if facts.host_mqueue else 1]:
            yield {"destination": destination, "type": "bind", "source": destination, "options": list(_KERNEL_BIND)}
        return
    yield {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    }
    if options.ipc != "none":
        size = options.shm_size or DEFAULT_SHM
        yield {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"],
        }


def _user_mount(attached: Attached) -> Mount:
    request = attached.request
    switches = {"nosuid", "nodev"}
    if request.kind == "tmpfs":
        switches.add("noexec")
    for option in request.options:
        opposite = option[2:] if option.startswith("no") else f"no{option}"
        switches.discard(opposite)
        if option.startswith("no"):
            switches.add(option)
    if request.kind == "tmpfs":
        access = ["ro"] if request.read_only else []
        extra = [option for option in request.options if option in ("noatime", "relatime")]
        mode = [] if any(entry.startswith("mode=") for entry in request.data) else ["mode=1777"]
        options = [*sorted(switches), *extra, *access, *mode, *request.data]
        return {"destination": request.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if attached.fstype:
        options = [*sorted(switches), *(["ro"] if request.read_only else []), *attached.data]
        return {"destination": request.target, "type": attached.fstype, "source": attached.source, "options": options}
    mount: Mount = {
        "destination": request.target,
        "type": "bind",
        "source": attached.source,
        "options": [
            "bind" if request.recursive == "disabled" else "rbind",
            *sorted(switches),
            request.propagation,
            *_read_only(request),
        ],
    }
    if request.subpath:
        mount["options"].append(f"subpath={request.subpath}")  # found by descriptor: a container may swap directories
    if attached.idmap:
        mount["options"].append("idmap")
    return mount


def _read_only(request: MountRequest) -> list[str]:
    if not request.read_only:
        return []
    if request.recursive == "readonly" and not request.propagation.endswith("private"):
        raise InvalidArgument("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'")
    return ["ro"] if request.recursive in ("writable", "disabled") else ["ro", "rro"]
