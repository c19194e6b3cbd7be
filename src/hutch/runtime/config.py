"""config.json: loaded, bounded and checked, before anything is done with it.

`check` looks at what the runtime will use and says where in the document a fault is, as ``linux.namespaces[2].path``.
Unknown properties are ignored, as OCI runtime-spec config.md#extensibility wants. What depends on the host (whether
it has AppArmor, whether an id is mapped) shows when it is used.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidConfig
from hutch.linux import caps, rlimits
from hutch.linux.namespaces import KINDS
from hutch.linux.process import IOPRIO_CLASSES, SCHED_POLICIES
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.spec.runtime import Process, Spec

_MAX_ID = (1 << 32) - 2  # 2³²-1 means "unchanged" to setresuid
_MAX_MAPPINGS = 340  # the kernel's UID_GID_MAP_MAX_EXTENTS
_MAX_TEXT = 1 << 17  # bytes of one string: what execve takes (MAX_ARG_STRLEN)
_MAX_DEPTH = 64
_DEVICE_TYPES = ("c", "b", "u", "p")
_PROPAGATIONS = (
    "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
)  # fmt: skip
_HOOK_POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_NUL = "\0"
_LINE = "\0\n\r"


def load(bundle: str) -> Spec:
    """Read and check `bundle`/config.json.

    Args:
        bundle: the bundle's directory, trusted.

    Raises:
        InvalidConfig: not a configuration that holds together; the message has the place.
        OSError: it cannot be read.
    """
    found: Any = documents.read_object(os.path.join(bundle, "config.json"))
    check(found)
    spec: Spec = found
    return spec


def check(spec: Any) -> None:
    """Check a whole configuration. OCI runtime-spec config.md.

    Raises:
        InvalidConfig: at the first fault, with its place.
    """
    _check_tree(spec, "", 0)
    check_version(_text(spec, "ociVersion", required=True))
    root = _object(spec, "root")
    if not root:
        raise InvalidConfig("root: required")
    _text(root, "root.path", required=True)
    _boolean(root, "root.readonly")
    for name in ("hostname", "domainname"):
        _text(spec, name, forbidden=_LINE, most=64)
    process = _object(spec, "process")
    if process:
        check_process(process)
    _each(spec, "mounts", _check_mount)
    hooks = _object(spec, "hooks")
    for point in _HOOK_POINTS:
        _each(hooks, f"hooks.{point}", _check_hook)
    _strings_of(_object(spec, "annotations"), "annotations")
    _check_linux(_object(spec, "linux"), spec)


def check_version(version: str) -> None:
    """Accept 1.x.y of the specification, with any suffix; later minor versions only add to it.

    Raises:
        InvalidConfig: not a semantic version, or another major one.
    """
    core = version.partition("+")[0].partition("-")[0].split(".")
    if len(core) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in core):
        raise InvalidConfig(f"ociVersion: {version!r}: not a semantic version")
    if core[0] != "1":
        raise InvalidConfig(f"ociVersion: {version!r}: unsupported; this runtime implements 1.0.0 to 1.3.0")


def check_process(process: Any, place: str = "process") -> Process:
    """Check one process, of a configuration or of an exec. OCI runtime-spec config.md#process.

    Raises:
        InvalidConfig: at the first fault, with its place.
    """
    args = _strings(process, f"{place}.args", _NUL)
    if not args:
        raise InvalidConfig(f"{place}.args: must not be empty")
    cwd = _text(process, f"{place}.cwd", required=True, forbidden=_NUL)
    if not cwd.startswith("/"):
        raise InvalidConfig(f"{place}.cwd: {cwd!r}: must be an absolute path")
    for index, entry in enumerate(_strings(process, f"{place}.env", _NUL)):
        name = entry.partition("=")[0]
        if not name or "\n" in name:
            raise InvalidConfig(f"{place}.env[{index}]: {entry[:64]!r}: not NAME=value")
    for name in ("terminal", "noNewPrivileges"):
        _boolean(process, f"{place}.{name}")
    for name in ("apparmorProfile", "selinuxLabel"):
        _text(process, f"{place}.{name}", forbidden=_LINE)
    _number(process, f"{place}.oomScoreAdj", range(-1000, 1001))
    _check_user(_object(process, f"{place}.user"), f"{place}.user")
    _check_scheduling(process, place)
    _check_limits(process, place)
    sets = _object(process, f"{place}.capabilities")
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        _strings(sets, f"{place}.capabilities.{name}", _LINE)
    size = _object(process, f"{place}.consoleSize")
    for name in ("height", "width"):
        _number(size, f"{place}.consoleSize.{name}", range(1 << 16), required=bool(size))
    checked: Process = process
    return checked


def _check_user(user: Any, place: str) -> None:
    for name in ("uid", "gid"):
        _number(user, f"{place}.{name}", range(_MAX_ID + 1))
    _number(user, f"{place}.umask", range(0o10000))
    for index, gid in enumerate(_list(user, f"{place}.additionalGids")):
        _is_number(gid, f"{place}.additionalGids[{index}]", range(_MAX_ID + 1))


def _check_scheduling(process: Any, place: str) -> None:
    scheduler = _object(process, f"{place}.scheduler")
    if scheduler:
        _choice(scheduler, f"{place}.scheduler.policy", SCHED_POLICIES, required=True)
        for name in ("nice", "priority", "runtime", "deadline", "period"):
            _number(scheduler, f"{place}.scheduler.{name}", range(-20, 1 << 63))
        _strings(scheduler, f"{place}.scheduler.flags", _LINE)
    priority = _object(process, f"{place}.ioPriority")
    if priority:
        _choice(priority, f"{place}.ioPriority.class", IOPRIO_CLASSES, required=True)
        _number(priority, f"{place}.ioPriority.priority", range(8))
    affinity = _object(process, f"{place}.execCPUAffinity")
    for name in ("initial", "final"):
        if text := _text(affinity, f"{place}.execCPUAffinity.{name}"):
            parse_numbers(text, f"{place}.execCPUAffinity.{name}", "CPUs")


def _check_limits(process: Any, place: str) -> None:
    seen = set()
    for index, limit in enumerate(_list(process, f"{place}.rlimits")):
        here = f"{place}.rlimits[{index}]"
        _is_object(limit, here)
        kind = _choice(limit, f"{here}.type", rlimits.NUMBERS, required=True)
        if kind in seen:
            raise InvalidConfig(f"{here}.type: {kind}: given twice")
        seen.add(kind)
        soft, hard = (_number(limit, f"{here}.{name}", range(1 << 64), required=True) for name in ("soft", "hard"))
        if soft > hard:
            raise InvalidConfig(f"{here}: soft limit {soft} is above the hard limit {hard}")


def parse_numbers(text: str, place: str, what: str) -> set[int]:
    """The CPUs or memory nodes (`what`) of a list such as ``0-3,7``, each below 8192; InvalidConfig otherwise."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) <= 4 for end in ends):
            raise InvalidConfig(f"{place}: {text[:64]!r}: not a list of {what}")
        low, high = int(ends[0]), int(ends[1])
        if low > high or high >= 8192:
            raise InvalidConfig(f"{place}: {text[:64]!r}: not a list of {what}")
        found.update(range(low, high + 1))
    return found


def _check_mount(mount: Any, place: str) -> None:
    destination = _text(mount, f"{place}.destination", required=True, forbidden=_LINE)
    if not destination:
        raise InvalidConfig(f"{place}.destination: required")
    for name in ("type", "source"):
        _text(mount, f"{place}.{name}", forbidden=_NUL if name == "source" else _LINE)
    _strings(mount, f"{place}.options", _NUL)
    for name in ("uidMappings", "gidMappings"):
        _check_mappings(mount, f"{place}.{name}")
    if bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
        raise InvalidConfig(f"{place}: uidMappings and gidMappings must be given together")


def _check_mappings(holder: Any, place: str) -> None:
    mappings = _list(holder, place)
    if len(mappings) > _MAX_MAPPINGS:
        raise InvalidConfig(f"{place}: more than {_MAX_MAPPINGS} mappings")
    for index, mapping in enumerate(mappings):
        here = f"{place}[{index}]"
        _is_object(mapping, here)
        size = _number(mapping, f"{here}.size", range(1, 1 << 32), required=True)
        for name in ("containerID", "hostID"):
            if _number(mapping, f"{here}.{name}", range(1 << 32), required=True) + size > 1 << 32:
                raise InvalidConfig(f"{here}.{name}: the range ends beyond 2³²")


def _check_hook(hook: Any, place: str) -> None:
    path = _text(hook, f"{place}.path", required=True, forbidden=_NUL)
    if not path.startswith("/"):
        raise InvalidConfig(f"{place}.path: {path!r}: must be an absolute path")
    _strings(hook, f"{place}.args", _NUL)
    _strings(hook, f"{place}.env", _NUL)
    if "timeout" in hook:
        _number(hook, f"{place}.timeout", range(1, 1 << 31))


def _check_linux(linux: Any, spec: Any) -> None:
    present = _check_namespaces(linux)
    for name in ("uidMappings", "gidMappings"):
        _check_mappings(linux, f"linux.{name}")
        if linux.get(name) and "user" not in present:
            raise InvalidConfig(f"linux.{name}: needs a user namespace")
    if present.get("user") == "" and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise InvalidConfig("linux.namespaces: a new user namespace needs linux.uidMappings and linux.gidMappings")
    if "mount" not in present:
        raise InvalidConfig(
            "linux.namespaces: a mount namespace is required",
            hint="without one, the container's mounts would be the host's",
        )
    for name in ("hostname", "domainname"):
        if spec.get(name) and "uts" not in present:
            raise InvalidConfig(f"{name}: needs a uts namespace")
    _each(linux, "linux.devices", _check_device)
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(_strings(linux, f"linux.{name}", _LINE)):
            if not path.startswith("/"):
                raise InvalidConfig(f"linux.{name}[{index}]: {path!r}: must be an absolute path")
    _choice(linux, "linux.rootfsPropagation", _PROPAGATIONS)
    _text(linux, "linux.cgroupsPath", forbidden=_LINE)
    _text(linux, "linux.mountLabel", forbidden=_LINE)
    _check_sysctls(_object(linux, "linux.sysctl"), present)
    _check_rest(linux, present)


def _check_namespaces(linux: Any) -> dict[str, str]:
    """Kind → path, "" for a new one."""
    present: dict[str, str] = {}
    for index, namespace in enumerate(_list(linux, "linux.namespaces")):
        here = f"linux.namespaces[{index}]"
        _is_object(namespace, here)
        kind = _choice(namespace, f"{here}.type", KINDS, required=True)
        if kind in present:
            raise InvalidConfig(f"{here}.type: {kind}: given twice")
        path = _text(namespace, f"{here}.path", forbidden=_LINE)
        if path and not path.startswith("/"):
            raise InvalidConfig(f"{here}.path: {path!r}: must be an absolute path")
        present[kind] = path
    return present


def _check_device(device: Any, place: str) -> None:
    kind = _choice(device, f"{place}.type", _DEVICE_TYPES, required=True)
    path = _text(device, f"{place}.path", required=True, forbidden=_LINE)
    if not path.startswith("/"):
        raise InvalidConfig(f"{place}.path: {path!r}: must be an absolute path")
    for name, top in (("major", 1 << 12), ("minor", 1 << 20)):
        _number(device, f"{place}.{name}", range(top), required=kind != "p")
    _number(device, f"{place}.fileMode", range(0o100000 << 2))
    for name in ("uid", "gid"):
        _number(device, f"{place}.{name}", range(_MAX_ID + 1))


# Sysctls that belong to a namespace, and to which. OCI runtime-spec config-linux.md#sysctl leaves the list to us.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced",
        "auto_msgmni", "msg_next_id", "sem_next_id", "shm_next_id",
    )
)  # fmt: skip


def _check_sysctls(sysctls: Any, present: dict[str, str]) -> None:
    _strings_of(sysctls, "linux.sysctl")
    for key, value in sysctls.items():
        here = f"linux.sysctl[{key!r}]"
        if any(part in ("", ".", "..") for part in key.replace("/", ".").split(".")):
            raise InvalidConfig(f"{here}: not the name of a sysctl")
        if any(character in _LINE for character in value):
            raise InvalidConfig(f"{here}: the value holds a line break")
        name = sysctl_name(key)
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        elif name in ("kernel.hostname", "kernel.domainname"):
            needed = "uts"
        elif name.startswith("user."):
            needed = "user"
        else:
            raise InvalidConfig(f"{here}: not in a separate kernel namespace")
        if needed not in present:
            raise InvalidConfig(f"{here}: not allowed in the host's {needed} namespace")
        if needed == "network" and present[needed] and _is_ours(present[needed], needed):
            raise InvalidConfig(f"{here}: not allowed in the host's network namespace")


def sysctl_name(key: str) -> str:
    """The dotted name: of two separators in use, the first one in the key separates."""
    slash, dot = key.find("/"), key.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.translate({ord("/"): ".", ord("."): "/"})
    return key


def _is_ours(path: str, kind: str) -> bool:
    from hutch.linux.namespaces import namespace_id

    try:
        found = os.stat(path)
    except OSError:
        return False  # joining it will say so
    return (found.st_dev, found.st_ino) == namespace_id("self", kind)


def _check_rest(linux: Any, present: dict[str, str]) -> None:
    offsets = _object(linux, "linux.timeOffsets")
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidConfig(f"linux.timeOffsets.{clock}: not a clock that can be shifted")
        _is_object(offset, f"linux.timeOffsets.{clock}")
        _number(offset, f"linux.timeOffsets.{clock}.secs", range(-(1 << 63), 1 << 63))
        _number(offset, f"linux.timeOffsets.{clock}.nanosecs", range(1_000_000_000))
    if offsets and present.get("time") != "":
        raise InvalidConfig("linux.timeOffsets: needs a new time namespace")
    persona = _object(linux, "linux.personality")
    if persona:
        _choice(persona, "linux.personality.domain", ("LINUX", "LINUX32"), required=True)
        if persona.get("flags"):
            raise InvalidConfig("linux.personality.flags: the specification defines none")
    devices = _object(linux, "linux.netDevices")
    for name, device in devices.items():
        _is_object(device, f"linux.netDevices.{name}")
        for text in (name, _text(device, f"linux.netDevices.{name}.name")):
            if len(text) > 15 or text in (".", "..") or any(c in "/: \t\n\0" for c in text) or not text.isprintable():
                raise InvalidConfig(f"linux.netDevices.{name}: {text!r}: not the name of a network device")
    if devices and present.get("network") is None:
        raise InvalidConfig("linux.netDevices: needs a network namespace")
    _object(linux, "linux.resources")
    for name in ("intelRdt", "memoryPolicy", "seccomp"):
        _object(linux, f"linux.{name}")
    _check_memory_policy(linux.get("memoryPolicy"))
    seccomp = linux.get("seccomp") or {}
    listener = _text(seccomp, "linux.seccomp.listenerPath", forbidden=_NUL)
    if _text(seccomp, "linux.seccomp.listenerMetadata") and not listener:
        raise InvalidConfig("linux.seccomp.listenerMetadata: needs linux.seccomp.listenerPath")


def _check_memory_policy(policy: Any) -> None:
    if not policy:
        return
    from hutch.linux.mempolicy import FLAGS, MODES

    here = "linux.memoryPolicy"
    _choice(policy, f"{here}.mode", MODES, required=True)
    if nodes := _text(policy, f"{here}.nodes", forbidden=_LINE):
        parse_numbers(nodes, f"{here}.nodes", "nodes")
    for index, flag in enumerate(_strings(policy, f"{here}.flags", _LINE)):
        if flag not in FLAGS:
            raise InvalidConfig(f"{here}.flags[{index}]: {flag!r}: not one of {', '.join(FLAGS)}")


# --- the shapes --------------------------------------------------------------------------------------------------


def _check_tree(value: Any, place: str, depth: int) -> None:
    """Whatever is in the document, also where nobody looks: no endless texts, no NUL in a key, no endless depth."""
    if depth > _MAX_DEPTH:
        raise InvalidConfig(f"{place}: nested more than {_MAX_DEPTH} deep")
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise InvalidConfig(f"{place}: a text of more than {_MAX_TEXT} bytes")
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(item) in (str, dict, list):
                if _NUL in key:
                    raise InvalidConfig(f"{place}: a key holds a NUL byte")
                _check_tree(item, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if type(item) in (str, dict, list):
                _check_tree(item, f"{place}[{index}]", depth + 1)
    if depth == 0:
        _is_object(value, "config.json")


def _name(place: str) -> str:
    return place.rpartition(".")[2]


def _text(holder: Any, place: str, *, required: bool = False, forbidden: str = _NUL, most: int = _MAX_TEXT) -> str:
    value = holder.get(_name(place))
    if value is None:
        if required:
            raise InvalidConfig(f"{place}: required")
        return ""
    if not isinstance(value, str):
        raise InvalidConfig(f"{place}: must be a string")
    _is_clean(value, place, forbidden)
    if len(value) > most:
        raise InvalidConfig(f"{place}: longer than {most} bytes")
    return value


def _is_clean(value: str, place: str, forbidden: str) -> None:
    for character in forbidden:
        if character in value:
            raise InvalidConfig(
                f"{place}: {value[:64]!r}: holds {'a NUL byte' if character == _NUL else 'a line break'}"
            )


def _strings(holder: Any, place: str, forbidden: str) -> list[str]:
    values = _list(holder, place)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise InvalidConfig(f"{place}[{index}]: must be a string")
        _is_clean(value, f"{place}[{index}]", forbidden)
    return values


def _strings_of(holder: Any, place: str) -> None:
    for key, value in holder.items():
        if not isinstance(value, str):
            raise InvalidConfig(f"{place}[{key!r}]: must be a string")


def _list(holder: Any, place: str) -> list[Any]:
    value = holder.get(_name(place))
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidConfig(f"{place}: must be an array")
    return value


def _each(holder: Any, place: str, check_one: Callable[[Any, str], None]) -> None:
    for index, item in enumerate(_list(holder, place)):
        here = f"{place}[{index}]"
        _is_object(item, here)
        check_one(item, here)


def _object(holder: Any, place: str) -> Any:
    value = holder.get(_name(place))
    if value is None:
        return {}
    _is_object(value, place)
    return value


def _is_object(value: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise InvalidConfig(f"{place}: must be an object")


def _boolean(holder: Any, place: str) -> None:
    value = holder.get(_name(place))
    if value is not None and not isinstance(value, bool):
        raise InvalidConfig(f"{place}: must be true or false")


def _number(holder: Any, place: str, allowed: range, *, required: bool = False) -> int:
    value = holder.get(_name(place))
    if value is None:
        if required:
            raise InvalidConfig(f"{place}: required")
        return 0
    return _is_number(value, place, allowed)


def _is_number(value: Any, place: str, allowed: range) -> int:
    if type(value) is not int:
        raise InvalidConfig(f"{place}: must be an integer")
    if value not in allowed:
        raise InvalidConfig(f"{place}: {value}: out of range")
    return value


def _choice(holder: Any, place: str, choices: Any, *, required: bool = False) -> str:
    value = _text(holder, place, required=required, forbidden=_LINE)
    if value and value not in choices:
        raise InvalidConfig(f"{place}: {value!r}: not one of {', '.join(choices)}")
    if required and not value:
        raise InvalidConfig(f"{place}: required")
    return value


def unknown_capabilities(names: list[str]) -> list[str]:
    """Those that this version does not know; OCI runtime-spec config.md wants a warning, not an error."""
    return [name for name in names if name not in caps.BITS]
