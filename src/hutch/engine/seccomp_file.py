"""A user's own system call filter: a file in Docker's format (archMap, includes, excludes) or plain OCI linux.seccomp.

Only who asks for one pays for importing what reads it strictly.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from hutch.engine.seccomp_profile import PLATFORMS
from hutch.errors import InvalidArgument, InvalidConfig, NotFound, PermissionDenied
from hutch.runtime import seccomp
from hutch.spec.runtime import LinuxSeccomp, LinuxSyscall

MAX_PROFILE_BYTES = 1 << 20


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
    native = PLATFORMS.get(architecture, ("", ()))[0]
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
        seccomp.compile_profile(made, architecture=os.uname().machine)
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
        message = message.replace("JSON is malformed: ", "")
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
