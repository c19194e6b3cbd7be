"""Keyword arguments mean what the flags of the command line mean."""

from __future__ import annotations

import pytest

from hutch.cli.flags import parse
from hutch.cli.run import COMMAND
from hutch.cli.run_flags import run_options as by_flags
from hutch.errors import InvalidArgument, NotSupported
from hutch.library.keywords import CreateKeywords
from hutch.library.options import _KEYWORDS, limits, run_options

SAME = [
    ({}, []),
    ({"environment": {"A": "1", "B": None}}, ["-e", "A=1", "-e", "B"]),
    ({"environment": ["A=1"]}, ["-e", "A=1"]),
    ({"volumes": {"/src": {"bind": "/dst", "mode": "ro"}, "v": {"bind": "/v"}}},
     ["-v", "/src:/dst:ro", "-v", "v:/v:rw"]),
    ({"volumes": ["/src:/dst", "/anonymous"]}, ["-v", "/src:/dst", "-v", "/anonymous"]),
    ({"mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]},
     ["--mount", "type=bind,target=/b,source=/a,readonly"]),
    ({"mounts": ["type=tmpfs,target=/t"], "tmpfs": {"/x": "size=1m", "/y": ""}},
     ["--mount", "type=tmpfs,target=/t", "--tmpfs", "/x:size=1m", "--tmpfs", "/y"]),
    ({"mem_limit": "1g", "memswap_limit": -1, "mem_reservation": 1 << 20, "shm_size": "2m"},
     ["-m", "1g", "--memory-swap", "-1", "--memory-reservation", "1048576", "--shm-size", "2m"]),
    ({"memory": 64 << 20}, ["-m", "64m"]),
    ({"cpus": 1.5}, ["--cpus", "1.5"]),
    ({"nano_cpus": 1_500_000_000}, ["--cpus", "1.5"]),
    ({"cpu_shares": 512, "cpu_period": 100_000, "cpu_quota": 50_000, "cpuset_cpus": "0"},
     ["-c", "512", "--cpu-period", "100000", "--cpu-quota", "50000", "--cpuset-cpus", "0"]),
    ({"labels": {"a": "b"}}, ["-l", "a=b"]),
    ({"labels": ["a"]}, ["-l", "a"]),
    ({"ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}, "nproc=5"]},
     ["--ulimit", "nofile=1:2", "--ulimit", "nproc=5"]),
    ({"sysctls": {"net.core.somaxconn": 10}}, ["--sysctl", "net.core.somaxconn=10"]),
    ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}}, ["--restart", "on-failure:3"]),
    ({"restart_policy": "always"}, ["--restart", "always"]),
    ({"healthcheck": {"test": "true", "interval": 10**9, "start_period": 10**9, "retries": 2}},
     ["--health-cmd", "true", "--health-interval", "1s", "--health-start-period", "1s", "--health-retries", "2"]),
    ({"healthcheck": {"Test": ["CMD", "test", "-f", "/a b"]}}, ["--health-cmd", "test -f '/a b'"]),
    ({"healthcheck": {"test": ["NONE"]}}, ["--no-healthcheck"]),
    ({"log_config": {"type": "local", "config": {"max-size": "1m"}}},
     ["--log-driver", "local", "--log-opt", "max-size=1m"]),
    ({"extra_hosts": {"h": "1.2.3.4"}, "dns": ["1.1.1.1"], "dns_search": ["example.org"], "dns_opt": ["ndots:2"]},
     ["--add-host", "h:1.2.3.4", "--dns", "1.1.1.1", "--dns-search", "example.org", "--dns-option", "ndots:2"]),
    ({"device_read_bps": [{"Path": "/dev/sda", "Rate": 1024}], "devices": ["/dev/fuse"]},
     ["--device-read-bps", "/dev/sda:1k", "--device", "/dev/fuse"]),
    ({"cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "group_add": [5]},
     ["--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--group-add", "5"]),
    ({"network_mode": "host", "pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "userns_mode": "host"},
     ["--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "--userns", "host"]),
    ({"remove": True, "tty": True, "stdin_open": True, "init": True, "read_only": True, "privileged": True},
     ["--rm", "-t", "-i", "--init", "--read-only", "--privileged"]),
    ({"user": 7, "working_dir": "/w", "hostname": "h", "name": "n", "stop_signal": "INT", "stop_timeout": 3},
     ["-u", "7", "-w", "/w", "-h", "h", "--name", "n", "--stop-signal", "INT", "--stop-timeout", "3"]),
    ({"pull": "never", "platform": "linux/arm64", "pids_limit": 5, "ports": {}},
     ["--pull", "never", "--platform", "linux/arm64", "--pids-limit", "5"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "flags"), SAME, ids=[" ".join(flags)[:40] or "nothing" for _, flags in SAME])
def test_arguments_are_flags(given, flags):
    values, arguments = parse(COMMAND.flags, [*flags, "image", "sh", "-c", "a b"], interspersed=False)
    assert run_options("image", ["sh", "-c", "a b"], given) == by_flags(values, arguments)


def test_commands_are_split_as_a_shell_does():
    assert run_options("image", "sh -c 'a b'", {}).args == ("sh", "-c", "a b")
    assert run_options("image", None, {}).args == ()
    found = run_options("image", "x", {"entrypoint": "sh -c"})
    assert (found.entrypoint, found.args) == ("sh", ("-c", "x"))
    assert run_options("image", "x", {"entrypoint": []}).entrypoint == ""


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"nothing": 1}, TypeError, "unexpected keyword argument 'nothing'"),
        ({"cap_add": "ALL"}, TypeError, "cap_add: 'ALL' is not what it takes"),
        ({"hostname": 5}, TypeError, "hostname: 5 is not"),
        ({"volumes": {"/a": "/b"}}, TypeError, "volumes: "),
        ({"healthcheck": {"tset": "x"}}, TypeError, "no 'tset'"),
        ({"mem_limit": "x"}, InvalidArgument, "mem_limit: invalid size"),
        ({"links": {"a": "b"}}, NotSupported, "links: not supported"),
        ({"network_mode": "bridge"}, NotSupported, "network 'bridge'"),
        ({"remove": True, "restart_policy": "always"}, InvalidArgument, "conflicting options"),
    ],
)
def test_what_is_wrong_is_named(given, error, message):
    with pytest.raises(error, match=message):
        run_options("image", "x", given)


def test_type_checkers_know_the_same_keywords():
    refused = {"links", "mac_address", "runtime", "storage_opt", "volume_driver"}
    assert set(_KEYWORDS) - refused == set(CreateKeywords.__annotations__)


def test_only_limits_are_updated():
    assert limits({"mem_limit": "1m", "cpus": 1}) == {"memory": 1 << 20, "nano_cpus": 10**9}
    with pytest.raises(TypeError, match="unexpected keyword argument 'image'"):
        limits({"image": "x"})
