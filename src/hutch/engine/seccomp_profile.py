"""The system call filter a container gets: the default profile, or one the user wrote.

The default allows what is listed in `seccomp_calls`, by the container's capabilities and architecture. Anything else
the profile knows of fails with EPERM, and what is newer than it with ENOSYS, which programs take for "use the older
call" (that stub is the compiler's: hutch.runtime.seccomp). clone3 fails with ENOSYS too, for its flags are behind a
pointer and cannot be filtered. Only the image's own architecture is let in: a second one would double what the kernel
exposes, and i386's socketcall hides its arguments from any filter.

``compat`` is Docker's profile, call for call: more architectures, and terminal ioctls allowed.

A user's profile is a file in Docker's format (archMap, includes, excludes) or plain OCI ``linux.seccomp``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from hutch.engine import seccomp_calls as calls
from hutch.errors import InvalidArgument, InvalidConfig, NotFound, PermissionDenied
from hutch.runtime import seccomp, syscalls
from hutch.spec.runtime import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

MAX_PROFILE_BYTES = 1 << 20

ENOSYS = 38
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"

# An image's architecture as OCI platforms name it → the specification's name, and what the same processor also runs
_PLATFORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "amd64": ("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "arm64": ("SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
    "386": ("SCMP_ARCH_X86", ()),
    "arm": ("SCMP_ARCH_ARM", ()),
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "armv6l": "arm"}


def for_container(
    wanted: str,
    capabilities: Collection[str],
    *,
    architecture: str = "",
    compat: bool = False,
) -> LinuxSeccomp:
    """Return the profile for one container.

    Args:
        wanted: path of the user's profile; empty for the default.
        capabilities: ``CAP_…`` names that the container is given.
        architecture: the image's, as OCI platforms name it (``amd64``); this machine's if empty.
        compat: Docker's profile instead of hutch's.

    Raises:
        InvalidArgument, InvalidConfig: an unknown architecture, or a file that is no profile.
        NotFound, PermissionDenied: the file cannot be read.
    """
    native = _MACHINES.get(platform.machine(), platform.machine())
    if wanted:
        return read_profile(wanted, capabilities, architecture=native, kernel=os.uname().release)
    return default_profile(capabilities, architecture=architecture or native, compat=compat)


def default_profile(capabilities: Collection[str], *, architecture: str, compat: bool = False) -> LinuxSeccomp:
    """Build the default profile, or Docker's.

    Args:
        capabilities: ``CAP_…`` names that the container is given.
        architecture: the image's, as OCI platforms name it.
        compat: Docker's profile, call for call.

    Raises:
        InvalidArgument: an architecture without a system call table.
    """
    if architecture not in _PLATFORMS:
        raise InvalidArgument(f"seccomp: no default profile for architecture {architecture[:40]!r}")
    own, others = _PLATFORMS[architecture]
    architectures = [own, *others] if compat else [own]
    names = set(calls.ALWAYS)
    for each in architectures:
        names.update(calls.BY_ARCHITECTURE[each])
    for capability in capabilities:
        names.update(calls.BY_CAPABILITY.get(capability, ()))
    if compat or own == "SCMP_ARCH_X86":
        # i386 programs reach every socket through it; an i386 image without it has no network.
        names.add("socketcall")
    rules: list[LinuxSyscall] = []
    if compat:
        names.add("ioctl")
    else:
        rules += _all_but("ioctl", 1, calls.DENIED_IOCTLS)
    rules += _all_but("socket", 0, calls.DENIED_FAMILIES)
    rules += [_rule("personality", (0, "SCMP_CMP_EQ", value, 0)) for value in calls.PERSONALITIES]
    if "clone" not in names:
        rules.append(_rule("clone", (0, "SCMP_CMP_MASKED_EQ", calls.CLONE_NAMESPACES, 0)))
        rules.append({"names": ["clone3"], "action": _ERRNO, "errnoRet": ENOSYS})
    known = {name for each in architectures for name in syscalls.numbers(seccomp.ARCHITECTURES[each][0])}
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": [{"names": sorted(names & known), "action": _ALLOW}, *rules],
    }


def _rule(name: str, condition: tuple[int, str, int, int]) -> LinuxSyscall:
    index, op, value, value_two = condition
    argument: LinuxSeccompArg = {"index": index, "value": value, "valueTwo": value_two, "op": op}
    return {"names": [name], "action": _ALLOW, "args": [argument]}


def _all_but(name: str, index: int, denied: Collection[int]) -> list[LinuxSyscall]:
    """Allow a call unless an argument is one of a few values: below, between and above them.

    A rule that denies would not do: one that allows the rest of the call would come before it in other runtimes.
    """
    low, high = min(denied), max(denied)
    between = [value for value in range(low + 1, high) if value not in denied]
    conditions = [("SCMP_CMP_LT", low), ("SCMP_CMP_GT", high), *(("SCMP_CMP_EQ", value) for value in between)]
    return [_rule(name, (index, op, value, 0)) for op, value in conditions]


# --- the user's profile -----------------------------------------------------------------------------------------


class _Filter(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """When a rule of Docker's format counts; every named capability, one of the architectures, at least this kernel."""

    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class _Argument(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Call(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    action: str
    names: list[str] | None = None
    name: str = ""
    args: list[_Argument] | None = None
    errno_ret: int | None = None
    errno: str = ""  # podman's profiles repeat errnoRet in words
    comment: str = ""
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _ArchMap(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    architectures: list[str] | None = None
    arch_map: list[_ArchMap] | None = None
    flags: list[str] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[_Call] | None = None


def read_profile(path: str, capabilities: Collection[str], *, architecture: str, kernel: str) -> LinuxSeccomp:
    """Read a profile file, in Docker's format or the OCI's, and settle what it leaves to the container.

    Args:
        path: the user's file, at most 1 MiB.
        capabilities: ``CAP_…`` names that the container is given.
        architecture: this machine's, as OCI platforms name it.
        kernel: its release, such as ``6.1.0-13-amd64``.

    Raises:
        NotFound, PermissionDenied: the file cannot be read.
        InvalidConfig: not a profile; unknown members are refused, for a filter that is half understood is none.
    """
    profile = _decode(_read(path), path)
    if profile.architectures and profile.arch_map:
        raise InvalidConfig(f"seccomp profile {path}: has both architectures and archMap")
    native = _PLATFORMS.get(architecture, ("", ()))[0]
    names = list(profile.architectures or ())
    for entry in profile.arch_map or ():
        if entry.architecture == native:
            names = [entry.architecture, *(entry.sub_architectures or ())]
    context = _Context(frozenset(capabilities), architecture, _version(kernel, path))
    made: LinuxSeccomp = {
        "defaultAction": profile.default_action,
        "architectures": names,
        "syscalls": [_syscall(call, path) for call in profile.syscalls or () if _counts(call, context, path)],
    }
    optional: Mapping[str, Any] = {
        "defaultErrnoRet": profile.default_errno_ret,
        "flags": profile.flags,
        "listenerPath": profile.listener_path or None,
        "listenerMetadata": profile.listener_metadata or None,
    }
    made.update(cast("LinuxSeccomp", {key: value for key, value in optional.items() if value is not None}))
    try:
        seccomp.compile_profile(made, architecture=platform.machine())
    except InvalidConfig as error:
        raise InvalidConfig(f"seccomp profile {path}: {error}", hint=error.hint) from error
    return made


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"seccomp profile {path}: no such file or directory") from error
    except PermissionError as error:
        raise PermissionDenied(f"seccomp profile {path}: permission denied") from error
    except OSError as error:
        raise InvalidArgument(f"seccomp profile {path}: {os.strerror(error.errno or 0).lower()}") from error
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidConfig(f"seccomp profile {path}: larger than {MAX_PROFILE_BYTES} bytes")
    return data


def _decode(data: bytes, path: str) -> _Profile:
    try:
        return msgspec.json.decode(data, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)
        raise InvalidConfig(
            f"seccomp profile {path}: {message[:1].lower()}{message[1:200]}",
            hint="give Docker's profile format, or the linux.seccomp object of an OCI config.json",
        ) from error


class _Context:
    """What rules may depend on."""

    __slots__ = ("architecture", "capabilities", "kernel")

    def __init__(self, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> None:
        self.capabilities = capabilities
        self.architecture = architecture
        self.kernel = kernel


def _counts(call: _Call, context: _Context, path: str) -> bool:
    """Whether a rule is for this container."""
    includes, excludes = call.includes or _Filter(), call.excludes or _Filter()
    if includes.arches and context.architecture not in includes.arches:
        return False
    if includes.caps and not context.capabilities.issuperset(includes.caps):
        return False
    if includes.min_kernel and context.kernel < _version(includes.min_kernel, path):
        return False
    if excludes.arches and context.architecture in excludes.arches:
        return False
    if excludes.caps and not context.capabilities.isdisjoint(excludes.caps):
        return False
    return not (excludes.min_kernel and context.kernel >= _version(excludes.min_kernel, path))


def _version(text: str, path: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not major.isdecimal() or not minor.isdecimal() or len(text) > 200:
        raise InvalidConfig(f"seccomp profile {path}: {text[:40]!r} is not a kernel version")
    return int(major), int(minor)


def _syscall(call: _Call, path: str) -> LinuxSyscall:
    names = [*(call.names or ()), *([call.name] if call.name else ())]
    if call.names and call.name:
        raise InvalidConfig(f"seccomp profile {path}: a rule has both name and names")
    if not names:
        raise InvalidConfig(f"seccomp profile {path}: a rule names no system call")
    made: LinuxSyscall = {"names": names, "action": call.action}
    if call.errno_ret is not None:
        made["errnoRet"] = call.errno_ret
    elif call.errno:
        made["errnoRet"] = _errno(call.errno, path)
    if call.args:
        made["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in call.args
        ]
    return made


def _errno(name: str, path: str) -> int:
    import errno

    number = getattr(errno, name, None)
    if not isinstance(number, int):
        raise InvalidConfig(f"seccomp profile {path}: {name[:40]!r} is not an error number's name")
    return number
