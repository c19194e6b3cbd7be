"""System containers: what an init finds in its container, so that it boots there as it would on a machine.

An init wants empty /run and /tmp, a cgroup that is its own to divide, to know that it is in a container, a machine-id,
and a signal by which it shuts down. The interface is systemd's (CONTAINER_INTERFACE), which other inits put up with.
"""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.host import HostFacts
    from hutch.engine.options import RunOptions
    from hutch.engine.rootview import LayersView
    from hutch.spec.runtime import Mount

MODES = ("auto", "always", "false")
MACHINE_ID = "machine-id"
NAMES = frozenset(("systemd", "init", "openrc-init", "busybox"))
"""What a program must be called for its command to be looked at."""

_PATHS = tuple(f"{folder}/init" for folder in ("/sbin", "/usr/sbin", "/usr/local/sbin", "/bin", "/usr/bin"))
_TMPFS = (("/run", "755"), ("/run/lock", "1777"), ("/tmp", "1777"), ("/var/log/journal", "2755"))
_MASK = ["bind", "ro", "nosuid", "noexec", "rprivate"]
_CGROUP = ("nosuid", "noexec", "nodev", "relatime")


class InitSystem(Record):
    """An init, as far as the ways to treat it differ.

    Attributes:
        stop_signal: on which it shuts down.
        reboots: whether it ends by reboot(2), which in a pid namespace ends just that.
        masked: units that have nothing to do here and would fail.
    """

    stop_signal: str = "RTMIN+3"
    reboots: bool = False
    masked: tuple[str, ...] = ()


# A machine-id that is a mount it takes for one that waits to be written to disk, and unmounts it.
_SYSTEMD = InitSystem(masked=("systemd-machine-id-commit.service",))
_BUSYBOX = InitSystem(stop_signal="USR2", reboots=True)
_OPENRC = InitSystem(stop_signal="TERM", reboots=True)


def parse_mode(text: str) -> str:
    """Read the value of --systemd; ``true`` is another word for auto, as podman has it.

    Raises:
        InvalidArgument: it is none of `MODES`.
    """
    mode = "auto" if text == "true" else text
    if mode not in MODES:
        raise InvalidArgument(f'invalid --systemd value {text[:64]!r}: must be one of "auto", "always" or "false"')
    return mode


def is_candidate(args: list[str]) -> bool:
    """Whether a command is an init's, by its words alone."""
    program = args[0].rpartition("/")[2]
    if program == "busybox":
        return args[1:2] == ["init"]
    return program in NAMES and (program != "init" or args[0] in ("init", *_PATHS))


def init_system(args: list[str], view: LayersView) -> InitSystem:
    """Which init a command is: by its name, or by what its name is a link to in the image.

    Args:
        args: of the container's process.
        view: of the root file system; untrusted.
    """
    program = args[0].rpartition("/")[2]
    if program == "init":
        program = next(filter(None, map(view.name_of, _PATHS if args[0] == "init" else args[:1])), "")
    return {"busybox": _BUSYBOX, "openrc-init": _OPENRC}.get(program, _SYSTEMD)


def machine_id(container_id: str) -> str:
    """The text of /etc/machine-id: the container's id, cut to the length of one."""
    return f"{container_id[:32]}\n"


def environment(container_id: str) -> tuple[tuple[str, str], ...]:
    """What tells the init where it is."""
    return (("container", "hutch"), ("container_uuid", container_id[:32]))


def may_reboot(options: RunOptions, facts: HostFacts, *, userns: bool) -> bool:
    """Whether reboot(2) can be left to the container.

    In a pid namespace the call ends that namespace's init. The capability is only given along with private ids: to the
    host's own it would also mean kexec_load(2).
    """
    refused = {text.upper().removeprefix("CAP_") for text in options.cap_drop} & {"ALL", "SYS_BOOT"}
    private = userns and options.pid in ("", "private") and options.security.profile != "strict"
    return private and not refused and "CAP_SYS_BOOT" in facts.permitted


def mounts(init: InitSystem, facts: HostFacts) -> list[Mount]:
    """File systems in memory, masked units there, and the container's own cgroup to write to."""
    found: list[Mount] = [
        {
            "destination": path,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "strictatime", f"mode={mode}"],
        }
        for path, mode in _TMPFS
    ]
    found += [
        {"destination": f"/run/systemd/system/{unit}", "type": "bind", "source": "/dev/null", "options": _MASK}
        for unit in init.masked
    ]
    if facts.cgroup2:
        return [*found, _cgroup("/sys/fs/cgroup", "cgroup")]
    from hutch.runtime.cgroups.hierarchy import find

    here = find()
    if named := here.v1.get("name=systemd"):
        found.append(_cgroup(named.path, "cgroup", "none", "name=systemd"))
    if here.unified:
        found.append(_cgroup(here.unified.path, "cgroup2"))
    return found


def _cgroup(path: str, fstype: str, *data: str) -> Mount:
    return {"destination": path, "type": fstype, "source": fstype, "options": [*_CGROUP, *data]}
