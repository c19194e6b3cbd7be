"""config.json: what is refused, and where the message says the fault is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from hutch.errors import InvalidConfig
from hutch.runtime import config

MINIMAL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one value set, at a dotted path."""
    spec = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    holder: Any = spec
    for name in parents:
        holder = holder.setdefault(name, {})
    holder[last] = value
    return spec


def test_the_minimal_configuration_and_unknown_properties_pass() -> None:
    config.check(MINIMAL)
    config.check(with_value("process.futureProperty", {"deep": [1, None, True]}))
    config.check(with_value("annotations", {"a.b/c": "d"}))


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.0+build"])
def test_versions_of_the_specification(version: str) -> None:
    config.check(with_value("ociVersion", version))


@pytest.mark.parametrize("version", ["", "1", "1.0", "2.0.0", "0.9.0", "a.b.c", "1.0.0.0", "１.0.0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(InvalidConfig, match="ociVersion"):
        config.check(with_value("ociVersion", version))


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("root", {}, "root: required"),
        ("root.path", 7, "root.path: must be a string"),
        ("process.args", [], "process.args: must not be empty"),
        ("process.args", ["a", "b\0c"], r"process.args\[1\]: 'b\\x00c': holds a NUL byte"),
        ("process.cwd", "tmp", "process.cwd: 'tmp': must be an absolute path"),
        ("process.env", ["A=1", "=x"], r"process.env\[1\]"),
        ("process.env", ["A\nB=1"], r"process.env\[0\]"),
        ("process.user.uid", -1, "process.user.uid: -1: out of range"),
        ("process.user.uid", 2**32 - 1, "process.user.uid: 4294967295: out of range"),
        ("process.user.uid", 1.5, "process.user.uid: must be an integer"),
        ("process.user.uid", True, "process.user.uid: must be an integer"),
        ("process.user.additionalGids", [1, "x"], r"process.user.additionalGids\[1\]: must be an integer"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001: out of range"),
        ("process.terminal", "yes", "process.terminal: must be true or false"),
        ("process.rlimits", [{"type": "RLIMIT_X", "soft": 0, "hard": 0}], r"process.rlimits\[0\].type"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "above the hard limit"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, r"process.rlimits\[1\].type: .*twice"),
        ("process.scheduler", {"policy": "SCHED_X"}, "process.scheduler.policy: 'SCHED_X': not one of"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
        ("process.execCPUAffinity", {"initial": "3-1"}, "process.execCPUAffinity.initial"),
        ("process.apparmorProfile", "a\nb", "process.apparmorProfile: .*line break"),
        ("mounts", [{"type": "tmpfs"}], r"mounts\[0\].destination: required"),
        ("mounts", [{"destination": "/a\nb"}], r"mounts\[0\].destination: .*line break"),
        ("mounts", [{"destination": "/a", "uidMappings": []}, 7], r"mounts\[1\]: must be an object"),
        ("hooks.prestart", [{"path": "bin/x"}], r"hooks.prestart\[0\].path: 'bin/x': must be an absolute path"),
        ("hooks.poststop", [{"path": "/x", "timeout": 0}], r"hooks.poststop\[0\].timeout: 0: out of range"),
        ("hostname", "x", "hostname: needs a uts namespace"),
        ("linux.namespaces", [{"type": "pid"}], "a mount namespace is required"),
        ("linux.namespaces", [{"type": "mount"}] * 2, r"linux.namespaces\[1\].type: mount: given twice"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "needs linux.uidMappings"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "x"}], r"linux.namespaces\[1\].path"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "needs a user namespace"),
        ("linux.maskedPaths", ["proc"], r"linux.maskedPaths\[0\]: 'proc': must be an absolute path"),
        ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation"),
        ("linux.sysctl", {"kernel.core_pattern": "|/x"}, "not in a separate kernel namespace"),
        ("linux.sysctl", {"net.ipv4.x": "1"}, "not allowed in the host's network namespace"),
        ("linux.sysctl", {"net/../kernel/x": "1"}, "not the name of a sysctl"),
        ("linux.devices", [{"type": "c", "path": "/dev/x", "major": 1}], r"linux.devices\[0\].minor: required"),
        ("linux.devices", [{"type": "x", "path": "/dev/x"}], r"linux.devices\[0\].type"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "needs a new time namespace"),
        ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags"),
        ("linux.netDevices", {"a/b": {}}, "not the name of a network device"),
        ("linux.memoryPolicy", {"nodes": "0"}, "linux.memoryPolicy.mode: required"),
        ("linux.memoryPolicy", {"mode": "MPOL_SOME"}, "linux.memoryPolicy.mode: 'MPOL_SOME': not one of MPOL_DEFAULT"),
        (
            "linux.memoryPolicy",
            {"mode": "MPOL_BIND", "nodes": "0-x"},
            "linux.memoryPolicy.nodes: .* not a list of nodes",
        ),
        ("linux.memoryPolicy", {"mode": "MPOL_BIND", "flags": ["X"]}, r"linux.memoryPolicy.flags\[0\]: 'X'"),
    ],
)
def test_what_is_wrong_is_refused_by_place(path: str, value: Any, place: str) -> None:
    with pytest.raises(InvalidConfig, match=place):
        config.check(with_value(path, value))


def test_b07_texts_and_depth_are_bounded() -> None:
    with pytest.raises(InvalidConfig, match="more than 131072 bytes"):
        config.check(with_value("process.env", ["A=" + "x" * (1 << 20)]))
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidConfig, match="nested more than 64 deep"):
        config.check(with_value("whatever", deep))
    with pytest.raises(InvalidConfig, match="holds a NUL byte"):
        config.check(with_value("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "/a\0b"}]))


def test_b07_a_configuration_of_many_megabytes_is_not_read(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(with_value("annotations", {"a": "x" * (17 << 20)})))
    with pytest.raises(InvalidConfig, match="more than 16777216 bytes"):
        config.load(str(tmp_path))


def test_a_repeated_key_is_refused(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.0", "ociVersion": "1.0.0"}')
    with pytest.raises(InvalidConfig, match="repeated key"):
        config.load(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "name"),
    [("net.ipv4.ip_forward", "net.ipv4.ip_forward"), ("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x")],
)
def test_sysctl_names_have_either_separator(key: str, name: str) -> None:
    assert config.sysctl_name(key) == name


def test_cpu_lists() -> None:
    assert config.parse_numbers("0-2,7, 9", "x", "CPUs") == {0, 1, 2, 7, 9}
    for bad in ("", "1-", "a", "1-99999", "2-1", "-1"):
        with pytest.raises(InvalidConfig):
            config.parse_numbers(bad, "x", "CPUs")
