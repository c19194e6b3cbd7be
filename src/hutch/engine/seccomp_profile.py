"""The system call filter a container gets: the default profile, or one the user wrote.

The default allows what is listed in `seccomp_calls`, by the container's capabilities and architecture. Anything else
the profile knows of fails with EPERM, and what is newer than it with ENOSYS, which programs take for "use the older
call" (that stub is the compiler's: hutch.runtime.seccomp). clone3 fails with ENOSYS too, for its flags are behind a
pointer and cannot be filtered. Only the image's own architecture is let in: a second one would double what the kernel
exposes, and i386's socketcall hides its arguments from any filter.

``compat`` is Docker's profile, call for call: more architectures, and terminal ioctls allowed.

A user's own profile is read by `hutch.engine.seccomp_file`.
"""

from __future__ import annotations

import os

from hutch.engine import seccomp_calls as calls
from hutch.errors import InvalidArgument
from hutch.runtime import seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from hutch.spec.runtime import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

ENOSYS = 38
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"

# An image's architecture as OCI platforms name it → the specification's name, and what the same processor also runs
PLATFORMS: dict[str, tuple[str, tuple[str, ...]]] = {
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
    host = os.uname()
    native = _MACHINES.get(host.machine, host.machine)
    if wanted:
        from hutch.engine.seccomp_file import read_profile

        return read_profile(wanted, capabilities, architecture=native, kernel=host.release)
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
    if architecture not in PLATFORMS:
        raise InvalidArgument(f"seccomp: no default profile for architecture {architecture[:40]!r}")
    own, others = PLATFORMS[architecture]
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
