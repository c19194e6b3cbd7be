"""`RunOptions`: what the user asked for, normalised and checked against itself; no image or host is looked at yet."""

from __future__ import annotations

from hutch.engine.healthchecks import HealthOptions
from hutch.engine.mountspec import DeviceRequest, MountRequest, parse_volumes_from
from hutch.engine.record import Record
from hutch.engine.values import has_control, only_digits, parse_bytes, parse_int
from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROFILES = ("default", "compat", "strict")
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LABEL_CHARS = _NAME_CHARS - frozenset("_.")
RLIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_SYSCTL_IPC = (
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)
_VALUE_CHARS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.,:/- \t")
MEMORY_MINIMUM = 6 << 20


class Ulimit(Record):
    """One resource limit; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class SecurityOptions(Record):
    """--security-opt, all occurrences together.

    Attributes:
        profile: default, compat or strict.
        seccomp: a profile file's path, ``unconfined``, or empty for the default profile.
        apparmor: a profile's name, ``unconfined`` or empty.
        no_new_privileges: what was said, None when nothing was.
        unmask: systempaths=unconfined, no masked and no read-only paths.
    """

    profile: str = "default"
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    unmask: bool = False


class RestartPolicy(Record):
    """When a container that has ended is started again.

    Attributes:
        name: no, always, unless-stopped or on-failure.
        retries: of on-failure, 0 for any number.
    """

    name: str = "no"
    retries: int = 0


class ThrottleRequest(Record):
    """A rate for one block device, in bytes or operations a second."""

    path: str
    rate: int


class RunOptions(Record):
    """Everything `hutch run` can be told, in Docker's words; sizes are bytes, 0 or None is "not given".

    Attributes:
        image: reference of an image, ``@host``, or empty when `rootfs` is given.
        rootfs: a directory to run in as it is; ``DIR:O`` puts a throw-away overlay over it.
        memory_swap: memory plus swap; -1 unlimited.
        userns: empty (the default for the caller), host, auto or keep-id.
        systemd: auto, always or false: whether it is given what an init needs.
        stop_timeout: seconds between the stop signal and SIGKILL, -1 for the default.
    """

    image: str = ""
    args: tuple[str, ...] = ()
    rootfs: str = ""
    # process
    interactive: bool = False
    tty: bool = False
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    entrypoint: str | None = None
    init: bool = False
    systemd: str = "auto"
    stop_signal: str = ""
    stop_timeout: int = -1
    restart: RestartPolicy = RestartPolicy()
    health: HealthOptions = HealthOptions()
    # container
    rm: bool = False
    name: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cidfile: str = ""
    platform: str = ""
    pull: str = "missing"
    # storage
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 0
    devices: tuple[DeviceRequest, ...] = ()
    # security
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security: SecurityOptions = SecurityOptions()
    # namespaces
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: str = ""
    cgroupns: str = ""
    network: str = "none"
    # names
    add_host: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_option: tuple[str, ...] = ()
    # limits
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int = -1
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[ThrottleRequest, ...] = ()
    device_read_bps: tuple[ThrottleRequest, ...] = ()
    device_write_bps: tuple[ThrottleRequest, ...] = ()
    device_read_iops: tuple[ThrottleRequest, ...] = ()
    device_write_iops: tuple[ThrottleRequest, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    cgroup_parent: str = ""
    # output
    log_driver: str = ""
    log_options: tuple[tuple[str, str], ...] = ()

    def checked(self) -> RunOptions:
        """These options, once the rules between them hold.

        Raises:
            InvalidArgument: two that exclude each other, or a value outside its range.
        """
        _check_memory(self)
        _check_cpu(self)
        _check_namespaces(self)
        _check_mounts(self.mounts)
        for text in self.volumes_from:
            parse_volumes_from(text)
        if self.log_driver or self.log_options:
            from hutch.engine.logs.drivers import checked_options

            checked_options(self.log_driver, dict(self.log_options))
        if self.workdir and not self.workdir.startswith("/"):
            raise InvalidArgument(f"the working directory '{self.workdir}' is invalid, it needs to be an absolute path")
        for what, text in (("working directory", self.workdir), ("user", self.user), ("image", self.image)):
            if has_control(text):
                raise InvalidArgument(f"invalid {what}: {text[:64]!r} has control characters")
        if self.blkio_weight and not 10 <= self.blkio_weight <= 1000:
            raise InvalidArgument("range of blkio weight is from 10 to 1000")
        if not -1000 <= self.oom_score_adj <= 1000:
            raise InvalidArgument(f"invalid value {self.oom_score_adj}, range for oom score adj is [-1000, 1000]")
        if self.pull not in ("always", "missing", "never"):
            raise InvalidArgument(f'invalid pull option: "{self.pull}": must be one of "always", "missing" or "never"')
        if self.shm_size < 0:
            raise InvalidArgument("SHM size can not be less than 0")
        if self.rootfs and self.platform:
            raise InvalidArgument("conflicting options: --platform and --rootfs")
        self.health.check()
        if self.rm and self.restart.name != "no":
            raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
        if self.init and self.systemd == "always":
            raise InvalidArgument("conflicting options: --init and --systemd=always")
        if self.privileged and self.security.profile == "strict":
            raise InvalidArgument("conflicting options: --privileged and --security-opt profile=strict")
        return self


def _check_memory(given: RunOptions) -> None:
    limit, swap = given.memory, given.memory_swap
    if limit and limit < MEMORY_MINIMUM:
        raise InvalidArgument("minimum memory limit allowed is 6MB")
    if swap > 0 and not limit:
        raise InvalidArgument("you should always set the memory limit when using memory-swap, see usage")
    if swap > 0 and swap < limit:
        raise InvalidArgument("minimum memory-swap limit should be larger than memory limit, see usage")
    if limit and given.memory_reservation > limit:
        raise InvalidArgument("minimum memory limit can not be less than memory reservation limit, see usage")
    if not -1 <= given.memory_swappiness <= 100:
        raise InvalidArgument(f"invalid value: {given.memory_swappiness}: valid memory swappiness range is 0-100")


def _check_cpu(given: RunOptions) -> None:
    if given.nano_cpus and (given.cpu_period or given.cpu_quota):
        which = "CPU Period" if given.cpu_period else "CPU Quota"
        raise InvalidArgument(f"conflicting options: Nano CPUs and {which} cannot both be set")
    if given.cpu_period and not 1000 <= given.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if given.cpu_quota > 0 and given.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if given.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({given.cpu_shares}): value must be a positive integer")


_MODES: dict[str, tuple[str, tuple[str, ...], bool]] = {
    # field: what Docker's message calls it, the words allowed, whether container:NAME is
    "pid": ("--pid: invalid PID mode", ("", "host", "private"), True),
    "ipc": ("--ipc: invalid IPC mode", ("", "host", "private", "shareable", "none"), True),
    "uts": ("--uts: invalid UTS mode", ("", "host", "private"), False),
    "userns": ("--userns: invalid USER mode", ("", "host", "auto", "keep-id"), False),
    "cgroupns": ("--cgroupns: invalid CGROUP mode", ("", "host", "private"), False),
}


def _check_namespaces(given: RunOptions) -> None:
    for field, (message, words, joins) in _MODES.items():
        mode: str = getattr(given, field)
        if mode not in words and not (joins and mode.startswith("container:") and len(mode) > 10):
            raise InvalidArgument(f"{message}: '{mode[:64]}'")
    if given.network not in ("none", "host") and not given.network.startswith("container:"):
        raise NotSupported(
            f"network '{given.network[:64]}' is not supported",
            hint="this version has --network none (the default), host and container:NAME",
        )
    if given.network == "host" or given.network.startswith("container:"):
        shared = "host" if given.network == "host" else "container"
        if shared == "container" and (given.hostname or given.domainname):
            raise InvalidArgument("conflicting options: hostname and the network mode")
        if shared == "container" and (given.dns or given.add_host):
            raise InvalidArgument("conflicting options: dns or custom host-to-IP mapping and the network mode")
        for name, _ in given.sysctls:
            if name.startswith("net."):
                raise InvalidArgument(f"sysctl '{name}' not allowed in {shared} network namespace")
    if given.uts == "host" and (given.hostname or given.domainname):
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if given.ipc == "host" and any(name in _SYSCTL_IPC or name.startswith("fs.mqueue.") for name, _ in given.sysctls):
        raise InvalidArgument("sysctls of the IPC namespace are not allowed with --ipc=host")
    if given.privileged and given.userns in ("auto", "keep-id"):
        raise InvalidArgument("privileged mode is incompatible with user namespaces", hint="add --userns=host")
    _check_hostname("hostname", given.hostname, 64)
    _check_hostname("domainname", given.domainname, 64)


def _check_hostname(what: str, name: str, limit: int) -> None:
    if len(name.encode("utf-8", "surrogateescape")) > limit or (name and not _NAME_CHARS.issuperset(name)):
        raise InvalidArgument(f"invalid {what} format: {name[:64]!r}")


def _check_mounts(mounts: tuple[MountRequest, ...]) -> None:
    targets = set()
    for mount in mounts:
        if mount.target in targets:
            raise InvalidArgument(f"duplicate mount point: {mount.target}")
        targets.add(mount.target)


def parse_restart(text: str) -> RestartPolicy:
    """Read ``no``, ``always``, ``unless-stopped`` or ``on-failure[:n]``.

    Raises:
        InvalidArgument: anything else.
    """
    name, colon, count = text.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name[:64]}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if colon and name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if colon and not only_digits(count):
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    return RestartPolicy(name=name or "no", retries=parse_int(count, low=0, high=(1 << 31) - 1) if colon else 0)


def check_container_name(name: str) -> str:
    """Check a container's name against Docker's grammar, bounded.

    Raises:
        InvalidArgument: empty, longer than 128, or with a character outside ``[a-zA-Z0-9][a-zA-Z0-9_.-]``.
    """
    if not (1 <= len(name) <= 128) or name[0] in "_.-" or not _NAME_CHARS.issuperset(name):
        raise InvalidArgument(
            f"invalid container name ({name[:64]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128 of them"
        )
    return name


def parse_ulimit(text: str) -> Ulimit:
    """Read ``NAME=SOFT[:HARD]``; -1 is unlimited."""
    name, equals, numbers = text.partition("=")
    if not equals or not numbers:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if name not in RLIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = numbers.partition(":")
    soft = parse_int(soft_text, low=-1)
    hard = parse_int(hard_text, low=-1) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft_text} > {hard}")
    return Ulimit(name=name, soft=soft, hard=hard)


def parse_sysctl(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE`` of a sysctl that a namespace of the container has for itself (CVE-2022-0811)."""
    name, equals, value = text.partition("=")
    name = name.replace("/", ".")
    allowed = name in _SYSCTL_IPC or name.startswith(("net.", "fs.mqueue."))
    if not equals or not allowed or not _NAME_CHARS.issuperset(name) or ".." in name or name.endswith("."):
        raise InvalidArgument(f"sysctl '{text[:64]}' is not allowed")
    if not _VALUE_CHARS.issuperset(value) or not value.strip():
        raise InvalidArgument(f"sysctl '{name}': invalid value {value[:64]!r}")
    return name, value


def parse_device_rule(text: str) -> str:
    """Check ``TYPE MAJOR:MINOR ACCESS`` of --device-cgroup-rule."""
    words = text.split(" ")
    if len(words) == 3:
        major, colon, minor = words[1].partition(":")
        numbers = all(number == "*" or (only_digits(number) and len(number) < 9) for number in (major, minor))
        access = words[2]
        if words[0] in ("a", "b", "c") and colon and numbers and 0 < len(access) <= 3 and set(access) <= set("rwm"):
            return text
    raise InvalidArgument(f"invalid device cgroup format '{text[:64]}'")


def _split_device(text: str, form: str) -> tuple[str, str]:
    path, colon, number = text.rpartition(":")
    if not colon or not path:
        raise InvalidArgument(f"bad format: {text}")
    if not path.startswith("/dev/") or ".." in path.split("/") or has_control(path):
        raise InvalidArgument(f"bad format for device path: {text}{form}")
    return path, number


def parse_bps(text: str) -> ThrottleRequest:
    """Read ``DEVICE:RATE`` in bytes a second, with a size's suffix."""
    path, number = _split_device(text, "")
    try:
        return ThrottleRequest(path=path, rate=parse_bytes(number))
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def parse_iops(text: str) -> ThrottleRequest:
    """Read ``DEVICE:RATE`` in operations a second."""
    path, number = _split_device(text, "")
    try:
        return ThrottleRequest(path=path, rate=parse_int(number, low=0))
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        ) from None


def parse_weight_device(text: str) -> ThrottleRequest:
    """Read ``DEVICE:WEIGHT``, 10 to 1000."""
    path, number = _split_device(text, "")
    if not only_digits(number) or not 10 <= int(number[:6]) <= 1000:
        raise InvalidArgument(f"invalid weight for device: {text}")
    return ThrottleRequest(path=path, rate=int(number))


def parse_add_host(text: str) -> tuple[str, str]:
    """Read ``HOST:IP`` or ``HOST=IP``."""
    cut = min((text.find(char) for char in "=:" if char in text), default=-1)
    name, address = text[: max(cut, 0)], text[cut + 1 :]
    if cut < 1 or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address == "host-gateway":
        raise NotSupported("add-host: host-gateway needs a bridge network", hint="give the address itself")
    if not _NAME_CHARS.issuperset(name):
        raise InvalidArgument(f"invalid host name in add-host: {name[:64]!r}")
    if address[0] == "[":
        address = address.removeprefix("[").removesuffix("]")
    return name, check_address(address, "add-host")


def check_address(text: str, what: str = "") -> str:
    """Check an IPv4 or IPv6 address.

    Raises:
        InvalidArgument: it is not one.
    """
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        if what:
            raise InvalidArgument(f'invalid IP address in {what}: "{text[:64]}"') from None
        raise InvalidArgument(f"IP address is not correctly formatted: {text[:64]}") from None
    return text


def parse_dns_search(text: str) -> str:
    """Check one search domain, by Docker's rule; ``.`` alone stands for none."""
    if text == ".":
        return text
    labels = text.removesuffix(".").split(".")
    good = 0 < len(text) < 255 and _LABEL_CHARS.issuperset(text.replace(".", ""))
    if not good or text.replace(".", "").replace("-", "").isdigit() or not all(map(_is_label, labels)):
        raise InvalidArgument(f"{text[:64]!r} is not a valid domain")
    return text


def _is_label(text: str) -> bool:
    return bool(text) and text[0] != "-" and text[-1] != "-"


def parse_dns_option(text: str) -> str:
    """Check one resolv.conf option."""
    if not text or not _NAME_CHARS.issuperset(text.replace(":", "")):
        raise InvalidArgument(f"invalid DNS option: {text[:64]!r}")
    return text


def parse_security(options: tuple[str, ...]) -> SecurityOptions:
    """Read all --security-opt values; the last of a kind counts, as in Docker."""
    given: dict[str, Any] = {}
    labels: list[str] = []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals and ":" in option:  # the older spelling, label:disable
            key, equals, value = option.partition(":")
        if key == "no-new-privileges" and (not equals or value in ("true", "false")):
            given["no_new_privileges"] = value != "false"
        elif key == "systempaths" and value == "unconfined":
            given["unmask"] = True
        elif key in ("seccomp", "apparmor") and value:
            given[key] = "" if (key, value) == ("seccomp", "builtin") else value
        elif key == "label" and value:
            labels.append(value)
        elif key == "profile" and value:
            if value not in PROFILES:
                raise InvalidArgument(f'invalid --security-opt: "{option}": profiles are {", ".join(PROFILES)}')
            given["profile"] = value
        else:
            raise InvalidArgument(f'invalid --security-opt: "{option}"')
        if has_control(value):
            raise InvalidArgument(f"invalid --security-opt: {option[:64]!r} has control characters")
    return SecurityOptions(labels=tuple(labels), **given)
