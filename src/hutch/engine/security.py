"""What a container may do by default, and how flags change it: capabilities, masked paths, no_new_privs, profiles.

Three named profiles (``--security-opt profile=NAME``): **default** is podman's 11 capabilities, a longer list of hidden
paths and no_new_privs for users other than root; **compat** is Docker's posture, capability for capability;
**strict** has no capabilities, no_new_privs and a read-only root. docs/security.md has the table.
"""

from __future__ import annotations

from hutch.errors import InvalidArgument, NotSupported
from hutch.linux.caps import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.options import RunOptions

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_NET_BIND_SERVICE CAP_SETFCAP CAP_SETGID CAP_SETPCAP "
    "CAP_SETUID CAP_SYS_CHROOT".split()
)
COMPAT_CAPABILITIES = (*DEFAULT_CAPABILITIES, "CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW")

MASKED_PATHS = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kallsyms /proc/kcore /proc/keys /proc/kpagecgroup /proc/kpagecount "
    "/proc/kpageflags /proc/latency_stats /proc/pagetypeinfo /proc/sched_debug /proc/scsi /proc/slabinfo "
    "/proc/timer_list /proc/timer_stats /proc/vmallocinfo /sys/devices/virtual/powercap /sys/firmware /sys/fs/bpf "
    "/sys/fs/pstore /sys/fs/selinux /sys/kernel/debug /sys/kernel/security /sys/kernel/tracing".split()
)
COMPAT_MASKED_PATHS = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi "
    "/proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware".split()
)
READONLY_PATHS = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()


def _name(text: str) -> str:
    name = text.upper()
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NAMES:
        raise InvalidArgument(f"invalid capability: {text[:64]}", hint="see capabilities(7) for their names")
    return name


def capabilities(options: RunOptions, permitted: frozenset[str]) -> list[str]:
    """The capability names the container's root gets, sorted.

    Args:
        options: cap_add, cap_drop, privileged and the profile.
        permitted: what the caller can give (its bounding set, or everything inside a user namespace of its own).

    Raises:
        InvalidArgument: an unknown name.
        NotSupported: one that was asked for by name and that the caller does not have.
    """
    if options.privileged:
        kept = set(permitted)
    else:
        base = {"default": DEFAULT_CAPABILITIES, "compat": COMPAT_CAPABILITIES, "strict": ()}[options.security.profile]
        kept = set(base) & permitted
    drops = [text.upper() for text in options.cap_drop]
    adds = [text.upper() for text in options.cap_add]
    if "ALL" in drops:
        kept = set()
    if "ALL" in adds:
        kept = set(permitted)
    kept -= {_name(text) for text in drops if text != "ALL"}
    wanted = {_name(text) for text in adds if text != "ALL"}
    missing = sorted(wanted - permitted)
    if missing:
        raise NotSupported(f"capability {missing[0]}: this system does not let the caller have it")
    return sorted(kept | wanted)


def no_new_privileges(options: RunOptions, uid: int) -> bool:
    """Whether the process and its children can never gain privileges by executing a file.

    On for a user other than root, where set-user-id programs are the only way up; off for root, since su and sudo in
    root's images keep working that way; what --security-opt no-new-privileges says comes first.
    """
    said = options.security.no_new_privileges
    if said is not None:
        return said
    if options.security.profile == "strict":
        return True
    return options.security.profile == "default" and uid != 0 and not options.privileged


def masked_paths(options: RunOptions, *, thermal: tuple[str, ...] = ()) -> list[str]:
    """Paths that read as empty: `thermal` names the processors' throttle counters of this machine."""
    if options.privileged or options.security.unmask:
        return []
    base = COMPAT_MASKED_PATHS if options.security.profile == "compat" else MASKED_PATHS
    return [*base, *thermal]


def readonly_paths(options: RunOptions) -> list[str]:
    """Paths that cannot be written to."""
    return [] if options.privileged or options.security.unmask else list(READONLY_PATHS)


def read_only_root(options: RunOptions) -> bool:
    """Whether the root file system is mounted read-only."""
    return options.read_only or options.security.profile == "strict"
