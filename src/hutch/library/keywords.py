"""The keyword arguments of `containers.run` and `containers.create`, in docker-py's words, for type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Words = str | Sequence[str]
Table = Mapping[str, Any] | Sequence[str]


class CreateKeywords(TypedDict, total=False):
    """What a container can be made with. `hutch run --help` explains each; sizes are bytes or such as ``"64m"``."""

    annotations: Table
    auto_remove: bool
    blkio_weight: int
    blkio_weight_device: Sequence[Mapping[str, Any] | str]
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    cgroup_parent: str
    cgroupns: str
    cpu_period: int
    cpu_quota: int
    cpu_shares: int
    cpus: float | str
    cpuset_cpus: str
    cpuset_mems: str
    device_cgroup_rules: Sequence[str]
    device_read_bps: Sequence[Mapping[str, Any] | str]
    device_read_iops: Sequence[Mapping[str, Any] | str]
    device_write_bps: Sequence[Mapping[str, Any] | str]
    device_write_iops: Sequence[Mapping[str, Any] | str]
    devices: Sequence[str]
    dns: Sequence[str]
    dns_opt: Sequence[str]
    dns_search: Sequence[str]
    domainname: str
    entrypoint: Words
    environment: Table
    extra_hosts: Table
    group_add: Sequence[str | int]
    healthcheck: Mapping[str, Any]
    hostname: str
    init: bool
    ipc_mode: str
    labels: Table
    log_config: Mapping[str, Any]
    mem_limit: int | str
    mem_reservation: int | str
    mem_swappiness: int
    memory: int | str
    memswap_limit: int | str
    mounts: Sequence[Mapping[str, Any] | str]
    name: str
    nano_cpus: int
    network: str
    network_disabled: bool
    network_mode: str
    oom_kill_disable: bool
    oom_score_adj: int
    pid_mode: str
    pids_limit: int
    platform: str
    ports: Mapping[str, Any]
    privileged: bool
    publish_all_ports: bool
    pull: str
    read_only: bool
    remove: bool
    restart_policy: Mapping[str, Any] | str
    rootfs: str
    security_opt: Sequence[str]
    shm_size: int | str
    stdin_open: bool
    stop_signal: str
    stop_timeout: int
    sysctls: Mapping[str, Any]
    systemd: bool | str
    tmpfs: Mapping[str, str] | Sequence[str]
    tty: bool
    ulimits: Sequence[Mapping[str, Any] | str]
    user: str | int
    userns_mode: str
    uts_mode: str
    volumes: Mapping[str, Mapping[str, str]] | Sequence[str]
    volumes_from: Sequence[str]
    working_dir: str
