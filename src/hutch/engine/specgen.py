"""Image settings + RunOptions + host facts → config.json. Pure: the same input gives the same spec.

What it does *not* decide: where anything lies (`Places`), who the user is (`hutch.engine.users`), what storage there is
(`hutch.engine.mounts.Attached`). Nothing of an image but `ImageSettings` comes in here, and of those labels never reach
the spec: a label cannot become an annotation that some runtime obeys (CVE-2026-53488, CVE-2026-94603).
"""

from __future__ import annotations

from hutch.engine import limits, mounts, security
from hutch.engine.mountspec import clean_target
from hutch.engine.record import Record
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.host import HostFacts
    from hutch.engine.image_settings import ImageSettings
    from hutch.engine.options import RunOptions
    from hutch.engine.users import ContainerUser
    from hutch.spec.runtime import (
        Linux,
        LinuxDevice,
        LinuxIDMapping,
        LinuxNamespace,
        LinuxSeccomp,
        Process,
        Spec,
    )

OCI_VERSION = "1.2.0"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/dev/init"
_UMASK = 0o022


class Places(Record):
    """Where this container's things are, and which of other containers' namespaces it joins.

    Attributes:
        rootfs: the directory that becomes `root.path`.
        cgroup: cgroupsPath, empty when the caller cannot make cgroups.
        joined: namespace kind → path, for --pid and --network container:NAME.
    """

    container_id: str
    rootfs: str
    hostname: str
    cgroup: str = ""
    joined: tuple[tuple[str, str], ...] = ()


class Resolved(Record):
    """What was looked up for this container: the host, its user, storage, devices, id mappings and system call filter.

    Attributes:
        env: NAME → value or None (unset), the user's.
        seccomp: None is no filter.
        apparmor: name of a profile, empty for none.
        idmapped_root: whether the root's layers carry host ids that the runtime has to map.
    """

    facts: HostFacts
    user: ContainerUser
    mounts: mounts.MountFacts = mounts.MountFacts()
    devices: tuple[LinuxDevice, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    uid_mappings: tuple[LinuxIDMapping, ...] = ()
    gid_mappings: tuple[LinuxIDMapping, ...] = ()
    seccomp: LinuxSeccomp | None = None
    apparmor: str = ""
    console: tuple[int, int] | None = None


def command(options: RunOptions, image: ImageSettings) -> list[str]:
    """The program and its arguments, by Docker's rules for ENTRYPOINT, CMD, --entrypoint and the command line.

    Raises:
        InvalidArgument: nothing says what to run.
    """
    if options.entrypoint is None:
        found = [*image.entrypoint, *(options.args or image.cmd)]
    else:
        found = [*([options.entrypoint] if options.entrypoint else []), *options.args]
    if not found:
        raise InvalidArgument("no command specified", hint="give one after the image's name")
    return found


def environment(options: RunOptions, image: ImageSettings, resolved: Resolved, hostname: str) -> list[str]:
    """The process's environment: defaults, the image's, the user's, in Docker's order. Nothing of the caller's own."""
    found: dict[str, str] = {}
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if options.tty else [])]
    for entry in (*defaults, *image.env):
        name, _, value = entry.partition("=")
        if name:
            found[name] = value
    for name, given in resolved.env:
        if given is None:
            found.pop(name, None)
        else:
            found[name] = given
    found.setdefault("HOME", resolved.user.home)
    return [f"{name}={value}" for name, value in found.items()]


def make_spec(
    options: RunOptions, image: ImageSettings, resolved: Resolved, places: Places, warnings: list[str]
) -> Spec:
    """Put the container's config.json together.

    Args:
        options: checked (`RunOptions.checked`).
        image: the image's settings, untrusted; empty for a plain root file system.
        resolved: what was looked up.
        places: where things are.
        warnings: what the user should be told is appended.

    Raises:
        InvalidArgument, NotSupported: something asked for is wrong or cannot be had here.

    OCI runtime-spec config.md, config-linux.md.
    """
    process_label, mount_label = _labels(options, resolved.facts, places.container_id)
    spec: Spec = {
        "ociVersion": OCI_VERSION,
        "process": _process(options, image, resolved, places, warnings),
        "root": {"path": places.rootfs, "readonly": security.read_only_root(options)},
        "mounts": mounts.mount_list(options, resolved.mounts),
        "linux": _linux(options, resolved, places),
    }
    if process_label:
        spec["process"]["selinuxLabel"] = process_label
        spec["linux"]["mountLabel"] = mount_label
    if options.uts != "host":
        spec["hostname"] = places.hostname
        if options.domainname:
            spec["domainname"] = options.domainname
    if options.annotations:
        spec["annotations"] = dict(options.annotations)
    return spec


def _process(
    options: RunOptions, image: ImageSettings, resolved: Resolved, places: Places, warnings: list[str]
) -> Process:
    user = resolved.user
    args = command(options, image)
    if options.init:
        args = [INIT_PATH, "--", *args]
    granted = security.capabilities(options, resolved.facts.permitted)
    process: Process = {
        "terminal": options.tty,
        "user": {"uid": user.uid, "gid": user.gid, "umask": _UMASK, "additionalGids": list(user.groups)},
        "args": args,
        "env": environment(options, image, resolved, places.hostname),
        "cwd": working_directory(options, image),
        "capabilities": {
            "bounding": granted,
            "effective": granted if user.uid == 0 else [],
            "permitted": granted if user.uid == 0 else [],
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": security.no_new_privileges(options, user.uid),
    }
    if found := limits.rlimits(options, resolved.facts, warnings):
        process["rlimits"] = found
    if options.oom_score_adj:
        process["oomScoreAdj"] = options.oom_score_adj
    if resolved.apparmor:
        process["apparmorProfile"] = resolved.apparmor
    if options.tty and resolved.console:
        process["consoleSize"] = {"height": resolved.console[0], "width": resolved.console[1]}
    return process


def working_directory(options: RunOptions, image: ImageSettings) -> str:
    """The working directory, normalised as text; the runtime makes a missing one inside the root, by descriptor."""
    wanted = options.workdir or image.workdir or "/"
    return "/" if not wanted.strip("/.") else clean_target("/" + wanted.lstrip("/"))


def _labels(options: RunOptions, facts: HostFacts, container_id: str) -> tuple[str, str]:
    """SELinux labels of the processes and of the file systems; empty for none, which is the default."""
    if not options.security.labels:
        return "", ""
    from hutch.engine.selinux import labels

    return labels(options.security.labels, container_id, facts.selinux_contexts)


def _linux(options: RunOptions, resolved: Resolved, places: Places) -> Linux:
    devices = list(resolved.devices)
    linux: Linux = {
        "namespaces": namespaces(options, resolved, places),
        "maskedPaths": security.masked_paths(options, thermal=resolved.facts.thermal),
        "readonlyPaths": security.readonly_paths(options),
        "resources": limits.resources(options, resolved.facts, devices),
        "rootfsPropagation": "private" if not _shares_mounts(options) else "shared",
    }
    if places.cgroup:
        linux["cgroupsPath"] = places.cgroup
    if devices:
        linux["devices"] = devices
    if resolved.uid_mappings:
        linux["uidMappings"] = list(resolved.uid_mappings)
        linux["gidMappings"] = list(resolved.gid_mappings)
    if sysctl := sysctls(options, resolved):
        linux["sysctl"] = sysctl
    if resolved.seccomp is not None:
        linux["seccomp"] = resolved.seccomp
    return linux


def _shares_mounts(options: RunOptions) -> bool:
    return any(mount.propagation.endswith("shared") for mount in options.mounts)


def namespaces(options: RunOptions, resolved: Resolved, places: Places) -> list[LinuxNamespace]:
    """The namespaces to make, and the ones to join."""
    joined = dict(places.joined)
    wanted = {
        "mount": True,
        "pid": options.pid != "host",
        "ipc": options.ipc != "host",
        "uts": options.uts != "host",
        "network": options.network != "host",
        "cgroup": options.cgroupns == "private"
        or (not options.cgroupns and not (options.security.profile == "compat" and not resolved.facts.cgroup2)),
        "user": bool(resolved.uid_mappings),
    }
    found: list[Any] = []
    for kind, on in wanted.items():
        if kind in joined:
            found.append({"type": kind, "path": joined[kind]})
        elif on:
            found.append({"type": kind})
    return found


def sysctls(options: RunOptions, resolved: Resolved) -> dict[str, str]:
    """The kernel settings of the container's own namespaces: unprivileged ping and low ports, then --sysctl."""
    found: dict[str, str] = {}
    if options.network == "none":
        last = resolved.gid_mappings[-1] if resolved.gid_mappings else None
        highest = min(last["containerID"] + last["size"] - 1, (1 << 31) - 1) if last else (1 << 31) - 1
        found["net.ipv4.ping_group_range"] = f"0 {highest}" if highest else "0 0"
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
    found.update(options.sysctls)
    return found
