"""Keyword arguments as `RunOptions`, by the same grammars as the command line's flags."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hutch.engine import inits, mountspec, options, values
from hutch.engine.healthchecks import HealthOptions
from hutch.engine.options import RunOptions
from hutch.errors import InvalidArgument, NotSupported
from hutch.library.keywords import Table, Words

Fields = dict[str, Any]
Reader = Callable[[Any], Fields]


def run_options(image: str, command: Words | None, given: Mapping[str, Any]) -> RunOptions:
    """What the caller says, as one checked value.

    Args:
        image: reference of an image, ``@host``, or empty with ``rootfs``.
        command: words, or one string that is split as a shell would.
        given: the keyword arguments; None is as good as not given.

    Raises:
        TypeError: one that there is not, or of a wrong type.
        InvalidArgument, NotSupported: see `RunOptions.checked`.
    """
    fields: Fields = {"image": image, "args": words(command)}
    _read(given, _KEYWORDS, fields)
    if "entrypoint_args" in fields:
        fields["args"] = (*fields.pop("entrypoint_args"), *fields["args"])
    return RunOptions(**fields).checked()


def limits(given: Mapping[str, Any]) -> Fields:
    """The fields of `RunOptions` that a container's update changes; raises as `run_options` does."""
    fields: Fields = {}
    _read(given, {name: _KEYWORDS[name] for name in _UPDATABLE}, fields)
    return fields


def _read(given: Mapping[str, Any], readers: Mapping[str, Reader], fields: Fields) -> None:
    for name, value in given.items():
        reader = readers.get(name)
        if reader is None:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
        if value is None:
            continue
        try:
            found = reader(value)
        except (InvalidArgument, NotSupported) as error:
            raise type(error)(f"{name}: {error}", hint=error.hint) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TypeError(f"{name}: {value!r} is not what it takes: {error}") from None
        for field, part in found.items():
            fields[field] = (*fields.get(field, ()), *part) if field in _ADDED else part


def words(command: Words | None) -> tuple[str, ...]:
    """A command's words."""
    if command is None:
        return ()
    if isinstance(command, str):
        return tuple(shlex.split(command))
    found = tuple(command)
    if not all(isinstance(word, str) for word in found):
        raise TypeError(f"command: {command!r} has words that are no strings")
    return found


def environment(given: Table | None) -> tuple[str, ...]:
    """Variables as -e has them; one whose value is None takes the caller's."""
    return tuple(values.parse_env(text) for text in _pairs(given or ()))


_ADDED = ("mounts",)


def _pairs(given: Table, separator: str = "=") -> list[str]:
    if isinstance(given, Mapping):
        return [key if value is None else f"{key}{separator}{value}" for key, value in given.items()]
    return _list(given)


def _list(given: Sequence[Any]) -> list[str]:
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, set, frozenset)):
        raise TypeError("a list is wanted")
    return [str(one) for one in given]


def _text(field: str) -> Reader:
    def read(value: Any) -> Fields:
        if not isinstance(value, str):
            raise TypeError("a string is wanted")
        return {field: value}

    return read


def _flag(field: str) -> Reader:
    return lambda value: {field: bool(value)}


def _number(field: str) -> Reader:
    return lambda value: {field: values.parse_int(str(int(value)))}


def _strings(field: str) -> Reader:
    return lambda value: {field: tuple(_list(value))}


def _each(field: str, parse: Callable[[str], Any]) -> Reader:
    return lambda value: {field: tuple(parse(text) for text in _list(value))}


def _size(field: str, parse: Callable[[str], int] = values.parse_bytes) -> Reader:
    return lambda value: {field: parse(str(value))}


def _table(field: str, what: str) -> Reader:
    def read(value: Table) -> Fields:
        return {field: tuple(dict(values.parse_key_value(text, what) for text in _pairs(value)).items())}

    return read


def _devices(field: str, parse: Callable[[str], Any], key: str) -> Reader:
    """Of docker-py's ``{"Path": …, "Rate": …}``, or of the command line's text."""

    def read(value: Sequence[Any]) -> Fields:
        texts = [one if isinstance(one, str) else f"{one['Path']}:{one[key]}" for one in value]
        return {field: tuple(map(parse, texts))}

    return read


def _refused(hint: str) -> Reader:
    def read(value: Any) -> Fields:
        if value in ((), [], {}, False, ""):
            return {}
        raise NotSupported("not supported in this version", hint=hint)

    return read


def _entrypoint(value: Words) -> Fields:
    found = words(value)
    return {"entrypoint": found[0] if found else "", "entrypoint_args": found[1:]}


def _healthcheck(value: Mapping[str, Any]) -> Fields:
    given = {key.lower(): found for key, found in value.items()}
    test = given.pop("test", "")
    command, none = "", False
    if isinstance(test, str):
        command = test
    elif test and test[0] == "NONE":
        none = True
    elif test:
        command = test[1] if test[0] == "CMD-SHELL" else shlex.join(test[1:] if test[0] == "CMD" else test)
    numbers = {name: int(given.pop(name.replace("_", ""), 0) or given.pop(name, 0)) for name in _HEALTH}
    if given:
        raise TypeError(f"no {next(iter(given))!r} in a health check")
    return {"health": HealthOptions(command=command, none=none, **numbers)}


_HEALTH = ("interval", "timeout", "start_period", "start_interval", "retries")


def _log_config(value: Mapping[str, Any]) -> Fields:
    found = {key.lower(): part for key, part in dict(value).items()}
    driver, config = found.pop("type", ""), found.pop("config", None) or {}
    if found:
        raise TypeError(f"no {next(iter(found))!r} in a log configuration")
    return {"log_driver": str(driver), "log_options": tuple((str(key), str(text)) for key, text in config.items())}


def _restart(value: Mapping[str, Any] | str) -> Fields:
    if isinstance(value, str):
        return {"restart": options.parse_restart(value)}
    count = int(value.get("MaximumRetryCount") or 0)
    return {"restart": options.parse_restart(f"{value.get('Name', '')}:{count}" if count else value.get("Name", ""))}


def _ulimits(value: Sequence[Any]) -> Fields:
    found = []
    for one in value:
        if isinstance(one, str):
            found.append(options.parse_ulimit(one))
            continue
        given = {key.lower(): part for key, part in dict(one).items()}
        soft = given.get("soft", given.get("hard"))
        found.append(options.parse_ulimit(f"{given['name']}={soft}:{given.get('hard', soft)}"))
    return {"ulimits": tuple(found)}


def _volumes(value: Any) -> Fields:
    if isinstance(value, Mapping):
        texts = [f"{source}:{part['bind']}:{part.get('mode', 'rw')}" for source, part in value.items()]
    else:
        texts = _list(value)
    return {"mounts": tuple(map(mountspec.parse_volume, texts))}


def _mounts(value: Sequence[Any]) -> Fields:
    return {"mounts": tuple(mountspec.parse_mount(one if isinstance(one, str) else _mount(one)) for one in value)}


def _mount(given: Mapping[str, Any]) -> str:
    """Docker's ``Mount`` object as --mount has it."""
    found = {key.lower(): part for key, part in given.items()}
    fields = [f"type={found.pop('type', 'volume')}", f"target={found.pop('target')}"]
    if source := found.pop("source", None):
        fields.append(f"source={source}")
    if found.pop("readonly", False):
        fields.append("readonly")
    if found:
        raise TypeError(f"no {next(iter(found))!r} in a mount; the text of --mount has them all")
    return ",".join(f'"{field}"' if "," in field else field for field in fields)


def _tmpfs(value: Any) -> Fields:
    return {"mounts": tuple(mountspec.parse_tmpfs(text.removesuffix(":")) for text in _pairs(value, ":"))}


def _network(value: str) -> Fields:
    return {"network": str(value)}


_NETWORKS = "this version has network_mode none, host and container:NAME"
_KEYWORDS: dict[str, Reader] = {
    "annotations": _table("annotations", "annotation"),
    "auto_remove": _flag("rm"),
    "blkio_weight": _number("blkio_weight"),
    "blkio_weight_device": _devices("blkio_weight_device", options.parse_weight_device, "Weight"),
    "cap_add": _strings("cap_add"),
    "cap_drop": _strings("cap_drop"),
    "cgroup_parent": _text("cgroup_parent"),
    "cgroupns": _text("cgroupns"),
    "cpu_period": _number("cpu_period"),
    "cpu_quota": _number("cpu_quota"),
    "cpu_shares": _number("cpu_shares"),
    "cpus": _size("nano_cpus", values.parse_nano_cpus),
    "cpuset_cpus": _size("cpuset_cpus", values.parse_cpuset),  # type: ignore[arg-type]
    "cpuset_mems": _size("cpuset_mems", values.parse_cpuset),  # type: ignore[arg-type]
    "device_cgroup_rules": _each("device_cgroup_rules", options.parse_device_rule),
    "device_read_bps": _devices("device_read_bps", options.parse_bps, "Rate"),
    "device_read_iops": _devices("device_read_iops", options.parse_iops, "Rate"),
    "device_write_bps": _devices("device_write_bps", options.parse_bps, "Rate"),
    "device_write_iops": _devices("device_write_iops", options.parse_iops, "Rate"),
    "devices": _each("devices", mountspec.parse_device),
    "dns": _each("dns", options.check_address),
    "dns_opt": _each("dns_option", options.parse_dns_option),
    "dns_search": _each("dns_search", options.parse_dns_search),
    "domainname": _text("domainname"),
    "entrypoint": _entrypoint,
    "environment": lambda value: {"env": environment(value)},
    "extra_hosts": lambda value: {"add_host": tuple(map(options.parse_add_host, _pairs(value, ":")))},
    "group_add": _strings("group_add"),
    "healthcheck": _healthcheck,
    "hostname": _text("hostname"),
    "init": _flag("init"),
    "ipc_mode": _text("ipc"),
    "labels": lambda value: _table("labels", "label")(_labels(value)),
    "links": _refused(_NETWORKS),
    "log_config": _log_config,
    "mac_address": _refused(_NETWORKS),
    "mem_limit": _size("memory"),
    "mem_reservation": _size("memory_reservation"),
    "mem_swappiness": _number("memory_swappiness"),
    "memory": _size("memory"),
    "memswap_limit": _size("memory_swap", values.parse_swap),
    "mounts": _mounts,
    "name": lambda value: {"name": options.check_container_name(value)},
    "nano_cpus": _number("nano_cpus"),
    "network": _network,
    "network_disabled": lambda value: {"network": "none"} if value else {},
    "network_mode": _network,
    "oom_kill_disable": _flag("oom_kill_disable"),
    "oom_score_adj": _number("oom_score_adj"),
    "pid_mode": _text("pid"),
    "pids_limit": _number("pids_limit"),
    "platform": _text("platform"),
    "ports": _refused(f"{_NETWORKS}; with host, ports need no publishing"),
    "privileged": _flag("privileged"),
    "publish_all_ports": _refused(_NETWORKS),
    "pull": _text("pull"),
    "read_only": _flag("read_only"),
    "remove": _flag("rm"),
    "restart_policy": _restart,
    "rootfs": _text("rootfs"),
    "runtime": _refused("hutch has its own"),
    "security_opt": lambda value: {"security": options.parse_security(tuple(_list(value)))},
    "shm_size": _size("shm_size"),
    "stdin_open": _flag("interactive"),
    "stop_signal": lambda value: {"stop_signal": str(value)} if values.parse_signal(str(value)) else {},
    "stop_timeout": _number("stop_timeout"),
    "storage_opt": _refused("sizes of root file systems cannot be limited yet"),
    "sysctls": lambda value: {"sysctls": tuple(options.parse_sysctl(text) for text in _pairs(value))},
    "systemd": lambda value: {"systemd": inits.parse_mode(str(value).lower())},
    "tmpfs": _tmpfs,
    "tty": _flag("tty"),
    "ulimits": _ulimits,
    "user": lambda value: {"user": str(value)},
    "userns_mode": _text("userns"),
    "uts_mode": _text("uts"),
    "volume_driver": _refused("volumes are local"),
    "volumes": _volumes,
    "volumes_from": _strings("volumes_from"),
    "working_dir": _text("workdir"),
}


_UPDATABLE = (
    "blkio_weight", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset_cpus", "cpuset_mems", "mem_limit",
    "mem_reservation", "memory", "memswap_limit", "nano_cpus", "pids_limit", "restart_policy",
)  # fmt: skip


def _labels(given: Table) -> Table:
    """docker-py's list of labels is one of keys without values."""
    return given if isinstance(given, Mapping) else {text.partition("=")[0]: text.partition("=")[2] for text in given}
