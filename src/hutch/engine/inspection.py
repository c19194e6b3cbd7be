"""A container in the shape of Docker's ``ContainerInspect`` (Engine API, /containers/{id}/json): record and
config.json → dict, pure.

What Docker has and hutch has not is there with the value that means "none", so that programs written for Docker find
every field they know.
"""

from __future__ import annotations

from hutch.engine.accounts import bill
from hutch.engine.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.engine.mountspec import MountRequest

NEVER = "0001-01-01T00:00:00Z"
_ENDPOINT = {
    "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None, "GwPriority": 0,
    "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
    "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
}  # fmt: skip
_SHM_SIZE = 64 << 20
_INIT = "/dev/init"


class Facts(Record):
    """What else is known of a container.

    Attributes:
        status: as `lifecycle.status_of` found it.
        path: its directory.
        driver: the snapshotter's name.
        log_path: its log file, empty for none.
        spec: its config.json; empty if that is damaged.
        root_mounts: what makes its root.
        mounts: what is attached to it.
        volume_paths: name → host path, of its volumes.
        execs: ids of what runs in it besides.
        image: ``Config`` of its image, in Docker's words; empty if that has gone.
        usage: what it has taken, with the current run.
        size: (bytes written, bytes in all) if asked for.
    """

    status: str
    path: str
    driver: str = ""
    log_path: str = ""
    spec: dict[str, Any]
    root_mounts: tuple[dict[str, Any], ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    volume_paths: dict[str, str]
    execs: tuple[str, ...] = ()
    image: dict[str, Any]
    usage: dict[str, Any]
    size: tuple[int, int] | None = None


def inspection(record: ContainerRecord, facts: Facts) -> dict[str, Any]:
    """All of it."""
    process = facts.spec.get("process") or {}
    command = _without_init(record.command)
    document: dict[str, Any] = {
        "Id": record.id,
        "Created": record.created,
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(record, facts.status),
        "Image": record.image_id,
        "ResolvConfPath": f"{facts.path}/resolv.conf",
        "HostnamePath": f"{facts.path}/hostname",
        "HostsPath": f"{facts.path}/hosts",
        "LogPath": facts.log_path,
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": facts.driver,
        "Platform": "linux",
        "MountLabel": (facts.spec.get("linux") or {}).get("mountLabel", ""),
        "ProcessLabel": process.get("selinuxLabel", ""),
        "AppArmorProfile": process.get("apparmorProfile", ""),
        "ExecIDs": list(facts.execs) or None,
        "HostConfig": host_config(record, facts.spec),
        "GraphDriver": {"Data": _graph_driver(record, facts), "Name": facts.driver},
    }
    if facts.size is not None:
        document["SizeRw"], document["SizeRootFs"] = facts.size
    document["Mounts"] = _mounts(facts)
    document["Config"] = _config(record, facts, command)
    document["NetworkSettings"] = _network(record)
    document["Usage"] = bill(facts.usage or record.usage)
    return document


def _state(record: ContainerRecord, status: str) -> dict[str, Any]:
    runs = status in ("running", "paused", "restarting")
    state: dict[str, Any] = {
        "Status": status,
        "Running": runs,
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": record.oom_killed,
        "Dead": status == "dead",
        "Pid": record.pid if status in ("running", "paused") else 0,
        "ExitCode": 0 if status in ("running", "paused") else max(0, record.exit_code),
        "Error": record.error,
        "StartedAt": record.started or NEVER,
        "FinishedAt": record.finished or NEVER,
    }
    if record.health:
        state["Health"] = record.health
    return state


def host_config(record: ContainerRecord, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for of the host, in Docker's words."""
    given, linux = record.options, spec.get("linux") or {}
    mounts = given.get("mounts") or []
    security = given.get("security") or {}
    resources = linux.get("resources") or {}
    return {
        "Binds": [_bind(mount) for mount in mounts if _is_bind(mount)] or None,
        "ContainerIDFile": given.get("cidfile", ""),
        "LogConfig": {"Type": record.log_driver, "Config": record.log_options},
        "NetworkMode": given.get("network", "none"),
        "PortBindings": {port: bindings for port, bindings in record.ports.items() if bindings},
        "RestartPolicy": record.restart,
        "AutoRemove": record.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": given.get("volumes_from") or None,
        "ConsoleSize": [0, 0],
        "Annotations": dict(given.get("annotations") or ()),
        "CapAdd": given.get("cap_add") or None,
        "CapDrop": given.get("cap_drop") or None,
        "CgroupnsMode": given.get("cgroupns") or "private",
        "Dns": given.get("dns") or [],
        "DnsOptions": given.get("dns_option") or [],
        "DnsSearch": given.get("dns_search") or [],
        "ExtraHosts": [f"{name}:{address}" for name, address in given.get("add_host") or ()] or None,
        "GroupAdd": given.get("group_add") or None,
        "IpcMode": given.get("ipc") or "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": given.get("oom_score_adj", 0),
        "PidMode": given.get("pid", ""),
        "Privileged": given.get("privileged", False),
        "PublishAllPorts": given.get("publish_all", False),
        "ReadonlyRootfs": given.get("read_only", False),
        "SecurityOpt": _security(security) or None,
        **({"Tmpfs": tmpfs} if (tmpfs := _tmpfs(mounts)) else {}),
        "UTSMode": given.get("uts", ""),
        "UsernsMode": given.get("userns", ""),
        "ShmSize": given.get("shm_size") or _SHM_SIZE,
        "Sysctls": dict(given.get("sysctls") or ()),
        "Runtime": "hutch",
        "Isolation": "",
        "Init": given.get("init", False),
        "Mounts": [_mount(mount) for mount in mounts if not _is_bind(mount) and mount["kind"] != "tmpfs"],
        **_limits(given, resources),
        "MaskedPaths": linux.get("maskedPaths"),
        "ReadonlyPaths": linux.get("readonlyPaths"),
    }


def _limits(given: Mapping[str, Any], resources: Mapping[str, Any]) -> dict[str, Any]:
    swap = (resources.get("memory") or {}).get("swap")
    return {
        "CpuShares": given.get("cpu_shares", 0),
        "Memory": given.get("memory", 0),
        "NanoCpus": given.get("nano_cpus", 0),
        "CgroupParent": given.get("cgroup_parent", ""),
        "BlkioWeight": given.get("blkio_weight", 0),
        "BlkioWeightDevice": [
            {"Path": each["path"], "Weight": each["rate"]} for each in given.get("blkio_weight_device") or ()
        ],
        "BlkioDeviceReadBps": _rates(given, "device_read_bps"),
        "BlkioDeviceWriteBps": _rates(given, "device_write_bps"),
        "BlkioDeviceReadIOps": _rates(given, "device_read_iops"),
        "BlkioDeviceWriteIOps": _rates(given, "device_write_iops"),
        "CpuPeriod": given.get("cpu_period", 0),
        "CpuQuota": given.get("cpu_quota", 0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": given.get("cpuset_cpus", ""),
        "CpusetMems": given.get("cpuset_mems", ""),
        "Devices": [
            {"PathOnHost": each["source"], "PathInContainer": each["target"], "CgroupPermissions": each["access"]}
            for each in given.get("devices") or ()
        ],
        "DeviceCgroupRules": given.get("device_cgroup_rules") or None,
        "DeviceRequests": None,
        "MemoryReservation": given.get("memory_reservation", 0),
        "MemorySwap": given.get("memory_swap") or swap or 0,
        "MemorySwappiness": given["memory_swappiness"] if given.get("memory_swappiness", -1) >= 0 else None,
        "OomKillDisable": given.get("oom_kill_disable", False),
        "PidsLimit": (resources.get("pids") or {}).get("limit"),
        "Ulimits": [
            {"Name": each["name"], "Soft": each["soft"], "Hard": each["hard"]} for each in given.get("ulimits") or ()
        ],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _rates(given: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [{"Path": each["path"], "Rate": each["rate"]} for each in given.get(name) or ()]


def _is_bind(mount: Mapping[str, Any]) -> bool:
    """Whether -v gave it, or could have."""
    if mount["kind"] == "bind":
        return bool(mount.get("create_source"))
    extras = any(mount.get(name) for name in ("labels", "subpath", "volume_options"))
    return mount["kind"] == "volume" and bool(mount["source"]) and not extras


def _bind(mount: Mapping[str, Any]) -> str:
    words = [
        *(["ro"] if mount.get("read_only") else []),
        *([mount["relabel"]] if mount.get("relabel") else []),
        *([mount["propagation"]] if mount.get("propagation", "rprivate") != "rprivate" else []),
        *([] if mount.get("copy_up", True) else ["nocopy"]),
    ]
    return f"{mount['source']}:{mount['target']}" + (f":{','.join(words)}" if words else "")


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": mount["kind"], "Source": mount["source"], "Target": mount["target"]}
    if mount.get("read_only"):
        found["ReadOnly"] = True
    if mount["kind"] == "bind":
        found["BindOptions"] = {"Propagation": mount.get("propagation", "rprivate")}
    elif mount["kind"] == "volume":
        options: dict[str, Any] = {"NoCopy": not mount.get("copy_up", True)}
        if mount.get("labels"):
            options["Labels"] = dict(label.partition("=")[::2] for label in mount["labels"])
        if mount.get("subpath"):
            options["Subpath"] = mount["subpath"]
        if mount.get("volume_options"):
            options["DriverConfig"] = {"Name": "local", "Options": dict(mount["volume_options"])}
        found["VolumeOptions"] = options
    return found


def _tmpfs(mounts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        mount["target"]: ",".join(
            [*(["ro"] if mount.get("read_only") else []), *mount.get("options", ()), *mount.get("data", ())]
        )
        for mount in mounts
        if mount["kind"] == "tmpfs"
    }


def _security(given: Mapping[str, Any]) -> list[str]:
    words = [f"label={label}" for label in given.get("labels") or ()]
    words += [f"{name}={given[name]}" for name in ("seccomp", "apparmor") if given.get(name)]
    if given.get("no_new_privileges") is not None:
        words.append(f"no-new-privileges={'true' if given['no_new_privileges'] else 'false'}")
    if given.get("unmask"):
        words.append("systempaths=unconfined")
    if given.get("profile", "default") != "default":
        words.append(f"profile={given['profile']}")
    return words


def _graph_driver(record: ContainerRecord, facts: Facts) -> dict[str, str]:
    """Where its files are. Its root is mounted nowhere but in itself, so that is where they are seen merged."""
    data = {"LowerDir": "", "MergedDir": "", "UpperDir": "", "WorkDir": ""}
    for mount in facts.root_mounts[:1]:
        for option in mount.get("options") or ():
            name, _, value = option.partition("=")
            key = {"lowerdir": "LowerDir", "upperdir": "UpperDir", "workdir": "WorkDir"}.get(name)
            if key:
                data[key] = value
    if record.pid and facts.status in ("running", "paused"):
        data["MergedDir"] = f"/proc/{record.pid}/root"
    return data


def _mounts(facts: Facts) -> list[dict[str, Any]]:
    found = []
    for mount in facts.mounts:
        entry: dict[str, Any] = {"Type": mount.kind}
        if mount.kind == "volume":
            entry["Name"] = mount.source
        mode = ",".join([*(["ro"] if mount.read_only else []), *([mount.relabel] if mount.relabel else [])])
        entry |= {
            "Source": facts.volume_paths.get(mount.source, "") if mount.kind == "volume" else mount.source,
            "Destination": mount.target,
            **({"Driver": "local"} if mount.kind == "volume" else {}),
            "Mode": mode,
            "RW": not mount.read_only,
            "Propagation": mount.propagation if mount.kind == "bind" else "",
        }
        found.append(entry)
    return found


def _config(record: ContainerRecord, facts: Facts, command: list[str]) -> dict[str, Any]:
    given, image = record.options, facts.image
    entrypoint, cmd = _entrypoint(given, image, command)
    volumes: dict[str, Any] = {mount["target"]: {} for mount in given.get("mounts") or () if _is_anonymous(mount)}
    config: dict[str, Any] = {
        "Hostname": record.hostname,
        "Domainname": given.get("domainname", ""),
        "User": record.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        **({"ExposedPorts": ports} if (ports := image.get("ExposedPorts")) else {}),
        "Tty": record.tty,
        "OpenStdin": record.interactive,
        "StdinOnce": False,
        "Env": _environment(record, image),
        "Cmd": cmd,
        **({"Healthcheck": record.healthcheck} if record.healthcheck else {}),
        "Image": record.image,
        "Volumes": {**(image.get("Volumes") or {}), **volumes} or None,
        "WorkingDir": given.get("workdir") or image.get("WorkingDir", ""),
        "Entrypoint": entrypoint,
        "OnBuild": image.get("OnBuild"),
        "Labels": record.labels,
    }
    if record.stop_signal:
        config["StopSignal"] = record.stop_signal
    if record.stop_timeout >= 0:
        config["StopTimeout"] = record.stop_timeout
    if image.get("Shell"):
        config["Shell"] = image["Shell"]
    return config


def _is_anonymous(mount: Mapping[str, Any]) -> bool:
    return mount["kind"] == "volume" and not mount["source"]


def _without_init(command: Sequence[str]) -> list[str]:
    """The user's command, without the init of --init in front of it."""
    return list(command[2:]) if list(command[:2]) == [_INIT, "--"] else list(command)


def _entrypoint(
    given: Mapping[str, Any], image: Mapping[str, Any], command: list[str]
) -> tuple[list[str] | None, list[str] | None]:
    """Entry point and command, which are told apart as they were put together."""
    if given.get("entrypoint") is not None:
        words = [given["entrypoint"]] if given["entrypoint"] else []
    elif image.get("Entrypoint") and command[: len(image["Entrypoint"])] == list(image["Entrypoint"]):
        words = list(image["Entrypoint"])
    else:
        words = command[: len(command) - len(given["args"])] if given.get("args") else []
    return words or None, command[len(words) :] or None


def _environment(record: ContainerRecord, image: Mapping[str, Any]) -> list[str]:
    """Without what every container gets besides, unless somebody asked for it."""
    asked = {entry.partition("=")[0] for entry in (*(record.options.get("env") or ()), *(image.get("Env") or ()))}
    return [
        entry
        for entry in record.environment
        if (name := entry.partition("=")[0]) in asked or name not in ("HOSTNAME", "HOME", "TERM")
    ]


def _network(record: ContainerRecord) -> dict[str, Any]:
    mode = record.options.get("network", "none")
    networks = {name: {**_ENDPOINT, **found} for name, found in record.networks.items() if isinstance(found, dict)}
    if not networks and mode in ("none", "host"):
        networks = {mode: dict(_ENDPOINT)}
    first: Mapping[str, Any] = next(iter(networks.values()), _ENDPOINT)
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{record.pid}/ns/net" if record.pid else "",
        "Ports": record.ports,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{
            name: first[name]
            for name in (
                "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen",
                "IPv6Gateway", "MacAddress",
            )
        },
        "Networks": networks,
    }  # fmt: skip
