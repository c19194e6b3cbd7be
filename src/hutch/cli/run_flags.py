"""The flags of `hutch run` and `hutch create`, and what the user gave of them as `RunOptions`."""

from __future__ import annotations

from hutch.cli.flags import Flag
from hutch.engine import inits, mountspec, options, values
from hutch.engine.durations import parse_duration
from hutch.engine.healthchecks import HealthOptions
from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _label(text: str) -> tuple[str, str]:
    return values.parse_key_value(text, "label")


def _annotation(text: str) -> tuple[str, str]:
    return values.parse_key_value(text, "annotation")


def _volumes_from(text: str) -> str:
    mountspec.parse_volumes_from(text)
    return text


def _log_option(text: str) -> tuple[str, str]:
    return values.parse_key_value(text, "log option")


def _int(low: int, high: int) -> Callable[[str], int]:
    return lambda text: values.parse_int(text, low=low, high=high)


def _later(name: str, hint: str, kind: str = "string", short: str = "") -> Flag:
    """A flag of Docker's that this version does not have: known, so that the refusal can say what to do instead."""

    def refuse(_text: str) -> None:
        raise NotSupported("not supported in this version", hint=hint)

    return Flag(
        name, kind, "not supported in this version", short=short, parse=refuse, bare="true" if not kind else None
    )


_INT32 = _int(-(1 << 31), (1 << 31) - 1)
_INT64 = values.parse_int
_NETWORK = "this version has --network none, host and container:NAME"

RUN_FLAGS = (
    Flag("add-host", "host:ip...", "add a line to /etc/hosts", parse=options.parse_add_host),
    Flag("annotation", "key=value...", "add an annotation for the OCI runtime", parse=_annotation),
    Flag("blkio-weight", "weight", "block I/O weight, 10 to 1000", parse=_int(0, 65535), default=0),
    Flag("blkio-weight-device", "dev:weight...", "block I/O weight of a device", parse=options.parse_weight_device),
    Flag("cap-add", "cap...", "add a capability, or ALL"),
    Flag("cap-drop", "cap...", "drop a capability, or ALL"),
    Flag("cgroup-parent", "path", "make the container's cgroup below this one", default=""),
    Flag("cgroupns", "mode", "cgroup namespace: private or host", default=""),
    Flag("cidfile", "file", "write the container's id to a file", default=""),
    Flag("cpu-period", "us", "length of a CPU period in microseconds", parse=_INT64, default=0),
    Flag("cpu-quota", "us", "CPU time in a period in microseconds", parse=_INT64, default=0),
    Flag("cpu-shares", "n", "CPU weight relative to others (1024 is normal)", short="c", parse=_INT64, default=0),
    Flag("cpus", "number", "how many CPUs' worth of time, such as 1.5", parse=values.parse_nano_cpus, default=0),
    Flag("cpuset-cpus", "list", "CPUs to run on, such as 0-3,8", parse=values.parse_cpuset, default=""),
    Flag("cpuset-mems", "list", "NUMA nodes to use", parse=values.parse_cpuset, default=""),
    Flag("device", "src[:dst][:rwm]...", "give a device of the host", parse=mountspec.parse_device),
    Flag("device-cgroup-rule", "rule...", "allow devices, such as 'c 10:200 rwm'", parse=options.parse_device_rule),
    Flag("device-read-bps", "dev:rate...", "limit bytes read a second", parse=options.parse_bps),
    Flag("device-read-iops", "dev:rate...", "limit reads a second", parse=options.parse_iops),
    Flag("device-write-bps", "dev:rate...", "limit bytes written a second", parse=options.parse_bps),
    Flag("device-write-iops", "dev:rate...", "limit writes a second", parse=options.parse_iops),
    Flag("dns", "ip...", "a name server for /etc/resolv.conf", parse=options.check_address),
    Flag("dns-option", "option...", "an option for /etc/resolv.conf", parse=options.parse_dns_option),
    Flag("dns-search", "domain...", "a search domain for /etc/resolv.conf", parse=options.parse_dns_search),
    Flag("domainname", "name", "the NIS domain name", default=""),
    Flag("entrypoint", "program", "replace the image's entry point"),
    Flag(
        "env",
        "name[=value]...",
        "set a variable; a name alone takes its value from here",
        short="e",
        parse=values.parse_env,
    ),
    Flag("env-file", "file...", "set the variables that a file lists"),
    Flag("group-add", "group...", "add a supplementary group"),
    Flag("health-cmd", "command", "command that says whether the container is well", default=""),
    Flag("health-interval", "duration", "time between checks (default 30s)", parse=parse_duration, default=0),
    Flag("health-retries", "n", "failures in a row that mean unhealthy (default 3)", parse=_INT32, default=0),
    Flag("health-start-interval", "duration", "time between checks at first", parse=parse_duration, default=0),
    Flag("health-start-period", "duration", "time in which failures do not count", parse=parse_duration, default=0),
    Flag("health-timeout", "duration", "time a check may take (default 30s)", parse=parse_duration, default=0),
    Flag("hostname", "name", "host name of the container", short="h", default=""),
    Flag("init", "", "run an init as process 1 that forwards signals and reaps"),
    Flag("interactive", "", "keep standard input open", short="i"),
    Flag("ipc", "mode", "IPC namespace: private, shareable, host or none", default=""),
    Flag("label", "key[=value]...", "put a label on the container", short="l", parse=_label),
    Flag("label-file", "file...", "put on the labels that a file lists"),
    Flag("log-driver", "driver", "json-file (the default), local, journald, syslog or none", default=""),
    Flag("log-opt", "name=value...", "an option of the log driver", parse=_log_option),
    Flag("memory", "bytes", "memory limit", short="m", parse=values.parse_bytes, default=0),
    Flag(
        "memory-reservation", "bytes", "memory to fall back to when it is scarce", parse=values.parse_bytes, default=0
    ),
    Flag("memory-swap", "bytes", "limit of memory plus swap, -1 for none", parse=values.parse_swap, default=0),
    Flag("memory-swappiness", "n", "0 to 100 (cgroup v1)", parse=_INT64, default=-1),
    Flag("mount", "key=value,......", "attach a bind, volume, tmpfs or image", parse=mountspec.parse_mount),
    Flag("name", "name", "name of the container", default=""),
    Flag("network", "mode", "none (the default), host or container:NAME", default="none"),
    Flag("net", "mode", "same as --network"),
    Flag("no-healthcheck", "", "run no health check, whatever the image says"),
    Flag("oom-kill-disable", "", "do not kill at the memory limit (cgroup v1)"),
    Flag("oom-score-adj", "n", "preference of the OOM killer, -1000 to 1000", parse=_INT32, default=0),
    Flag("pid", "mode", "PID namespace: private, host or container:NAME", default=""),
    Flag("pids-limit", "n", "most processes and threads (default 4096, -1 for no limit)", parse=_INT64),
    Flag("platform", "os/arch", "platform of the image", default=""),
    Flag("privileged", "", "give every privilege the caller has"),
    Flag("pull", "policy", "always, missing (the default) or never", default="missing"),
    Flag("quiet", "", "print nothing while pulling", short="q"),
    Flag("read-only", "", "mount the root file system read-only"),
    Flag("restart", "policy", "no, on-failure[:n], always or unless-stopped", parse=options.parse_restart),
    Flag("rm", "", "remove the container when it ends"),
    Flag("rootfs", "dir[:O]", "run in a directory instead of an image; :O on a throw-away overlay", default=""),
    Flag("security-opt", "option...", "seccomp= apparmor= label= no-new-privileges systempaths= profile="),
    Flag("shm-size", "bytes", "size of /dev/shm (default 64m)", parse=values.parse_bytes, default=0),
    Flag("stop-signal", "signal", "signal that asks the container to stop", default=""),
    Flag("stop-timeout", "seconds", "time to stop in, before it is killed (default 10)", parse=_INT32, default=-1),
    Flag("sysctl", "name=value...", "set a kernel parameter of the container's own", parse=options.parse_sysctl),
    Flag(
        "systemd",
        "mode",
        "give what an init needs: auto (when one is started), always or false",
        parse=inits.parse_mode,
        default="auto",
    ),
    Flag("tmpfs", "dir[:options]...", "mount a tmpfs", parse=mountspec.parse_tmpfs),
    Flag("tty", "", "give the container a terminal", short="t"),
    Flag("ulimit", "name=soft[:hard]...", "set a resource limit of the process", parse=options.parse_ulimit),
    Flag("user", "user[:group]", "names or ids", short="u", default=""),
    Flag("userns", "mode", "user namespace: host, auto or keep-id", default=""),
    Flag("uts", "mode", "UTS namespace: private or host", default=""),
    Flag("volume", "[src:]dst[:options]...", "attach a directory or a volume", short="v", parse=mountspec.parse_volume),
    Flag("volumes-from", "container[:ro]...", "attach what another container has attached", parse=_volumes_from),
    Flag("workdir", "dir", "working directory", short="w", default=""),
    _later("cpu-rt-period", "real-time scheduling groups are not supported"),
    _later("cpu-rt-runtime", "real-time scheduling groups are not supported"),
    _later("expose", _NETWORK),
    _later("gpus", "give the device nodes with --device"),
    _later("ip", _NETWORK),
    _later("ip6", _NETWORK),
    _later("kernel-memory", "the kernel has no such limit any more; use --memory"),
    _later("link", _NETWORK),
    _later("mac-address", _NETWORK),
    _later("network-alias", _NETWORK),
    _later("publish", f"{_NETWORK}; with host, ports need no publishing", short="p"),
    _later("publish-all", _NETWORK, kind="", short="P"),
    _later("runtime", "hutch has its own"),
    _later("storage-opt", "sizes of root file systems cannot be limited yet"),
    _later("volume-driver", "volumes are local"),
)

_SAME = (
    "interactive tty init name hostname domainname workdir user group_add entrypoint cidfile platform pull read_only "
    "shm_size cap_add cap_drop privileged pid ipc uts userns cgroupns add_host dns dns_search dns_option rootfs rm "
    "memory memory_swap memory_reservation memory_swappiness cpu_shares cpu_quota cpu_period cpuset_cpus cpuset_mems "
    "pids_limit blkio_weight blkio_weight_device device_read_bps device_write_bps device_read_iops device_write_iops "
    "oom_score_adj oom_kill_disable cgroup_parent volumes_from log_driver systemd"
).split()


def run_options(given: dict[str, Any], arguments: list[str]) -> options.RunOptions:
    """What the command line says, as one checked value.

    Args:
        given: the flags by key.
        arguments: the image (unless --rootfs) and the container's command.

    Raises:
        InvalidArgument, NotSupported: see `RunOptions.checked`.
    """
    fields = {name: given[name] for name in _SAME}
    if not given["rootfs"]:
        if not arguments:
            raise InvalidArgument(
                "'hutch run' requires at least 1 argument", hint="name an image, or @host, or give --rootfs"
            )
        fields["image"], arguments = arguments[0], arguments[1:]
    env = [line for path in given["env_file"] for line in values.read_key_values(path, "env file", values.parse_env)]
    labels = [
        _label(line) for path in given["label_file"] for line in values.read_key_values(path, "label file", _label)
    ]
    if given["stop_signal"]:
        values.parse_signal(given["stop_signal"])
    if given["name"]:
        options.check_container_name(given["name"])
    parsed = options.RunOptions(
        **fields,
        args=tuple(arguments),
        env=(*env, *given["env"]),
        labels=tuple(dict((*labels, *given["label"])).items()),
        annotations=tuple(dict(given["annotation"]).items()),
        stop_signal=given["stop_signal"],
        stop_timeout=max(-1, given["stop_timeout"]),
        restart=given["restart"] or options.RestartPolicy(),
        health=HealthOptions(
            command=given["health_cmd"],
            interval=given["health_interval"],
            timeout=given["health_timeout"],
            start_period=given["health_start_period"],
            start_interval=given["health_start_interval"],
            retries=given["health_retries"],
            none=given["no_healthcheck"],
        ),
        mounts=(*given["volume"], *given["mount"], *given["tmpfs"]),
        devices=given["device"],
        device_cgroup_rules=given["device_cgroup_rule"],
        security=options.parse_security(given["security_opt"]),
        network=given["net"] or given["network"],
        nano_cpus=given["cpus"],
        ulimits=given["ulimit"],
        sysctls=tuple(dict(given["sysctl"]).items()),
        log_options=tuple(dict(given["log_opt"]).items()),
    )
    return parsed.checked()
