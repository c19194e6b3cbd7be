"""The OCI runtime specification's documents as TypedDicts: config.json, state, features (1.0 to 1.3, Linux).

There is one model and this is it: the parsed dict, with the specification's own field names. Nothing here checks
a document; `hutch.runtime.config` does. Properties the specification adds later are simply not named here.

Importing this module imports `typing`, which the runtime's start-up path cannot afford: modules of `hutch.linux`
and `hutch.runtime` name these types under ``TYPE_CHECKING = False`` only.

Every TypedDict is ``total=False``, with Required for what the JSON schemas require.
"""

from __future__ import annotations

from typing import Literal, Required, TypedDict

# --- process ----------------------------------------------------------------------------------------------------


class ConsoleSize(TypedDict, total=False):
    """Characters, as TIOCSWINSZ counts them."""

    height: Required[int]
    width: Required[int]


class User(TypedDict, total=False):
    """Who the process is, in the container's user namespace. OCI runtime-spec config.md#user."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class LinuxCapabilities(TypedDict, total=False):
    """Five sets of ``CAP_…`` names. OCI runtime-spec config.md#linux-process."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class POSIXRlimit(TypedDict, total=False):
    """One resource limit; `type` is an ``RLIMIT_…`` name."""

    type: Required[str]
    hard: Required[int]
    soft: Required[int]


class Scheduler(TypedDict, total=False):
    """What sched_setattr(2) is given; `runtime`, `deadline` and `period` are nanoseconds."""

    policy: Required[str]
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# `class` is a keyword of Python, hence the functional form.
LinuxIOPriority = TypedDict("LinuxIOPriority", {"class": Required[str], "priority": int}, total=False)


class CPUAffinity(TypedDict, total=False):
    """CPU lists for a process started by exec: before and after it joins the container's cgroup."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """What is executed, as whom and how. OCI runtime-spec config.md#process."""

    terminal: bool
    consoleSize: ConsoleSize
    user: User
    args: list[str]
    commandLine: str
    env: list[str]
    cwd: Required[str]
    capabilities: LinuxCapabilities
    rlimits: list[POSIXRlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: int
    scheduler: Scheduler
    selinuxLabel: str
    ioPriority: LinuxIOPriority
    execCPUAffinity: CPUAffinity


# --- file system ------------------------------------------------------------------------------------------------


class Root(TypedDict, total=False):
    """The container's root file system; `path` is relative to the bundle unless absolute."""

    path: Required[str]
    readonly: bool


class LinuxIDMapping(TypedDict, total=False):
    """One line of uid_map or gid_map."""

    containerID: Required[int]
    hostID: Required[int]
    size: Required[int]


class Mount(TypedDict, total=False):
    """One mount, in order. OCI runtime-spec config.md#mounts."""

    destination: Required[str]
    type: str
    source: str
    options: list[str]
    uidMappings: list[LinuxIDMapping]
    gidMappings: list[LinuxIDMapping]


# --- hooks ------------------------------------------------------------------------------------------------------


class Hook(TypedDict, total=False):
    """A program of the host; `timeout` is seconds."""

    path: Required[str]
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """Programs to run at six points of a container's life. OCI runtime-spec config.md#posix-platform-hooks."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


# --- linux: namespaces, devices and the rest --------------------------------------------------------------------


class LinuxNamespace(TypedDict, total=False):
    """A namespace to create, or to join when `path` is given."""

    type: Required[Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]]
    path: str


class LinuxDevice(TypedDict, total=False):
    """A device node to make; `type` is one of c, b, u, p."""

    type: Required[str]
    path: Required[str]
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class LinuxNetDevice(TypedDict, total=False):
    """An interface of the host to move into the container; `name` is what it is called there."""

    name: str


class LinuxPersonality(TypedDict, total=False):
    """Execution domain, personality(2); the specification defines no flags yet."""

    domain: Required[Literal["LINUX", "LINUX32"]]
    flags: list[str]


class LinuxTimeOffset(TypedDict, total=False):
    """Offset of one clock of a time namespace."""

    secs: int
    nanosecs: int


class LinuxTimeOffsets(TypedDict, total=False):
    """The clocks a time namespace can shift."""

    boottime: LinuxTimeOffset
    monotonic: LinuxTimeOffset


class LinuxIntelRdt(TypedDict, total=False):
    """Resource control of Intel processors. OCI runtime-spec config-linux.md#intelrdt."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class LinuxMemoryPolicy(TypedDict, total=False):
    """NUMA policy, set_mempolicy(2). OCI runtime-spec config-linux.md#memory-policy."""

    mode: Required[str]
    nodes: str
    flags: list[str]


# --- linux: resources -------------------------------------------------------------------------------------------


class LinuxDeviceCgroup(TypedDict, total=False):
    """One rule of the device allow list; an absent or negative number stands for any."""

    allow: Required[bool]
    type: str
    major: int
    minor: int
    access: str


class LinuxMemory(TypedDict, total=False):
    """Bytes; -1 is no limit. `swap` is memory plus swap, whatever the cgroup version."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class LinuxCPU(TypedDict, total=False):
    """Times are microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class LinuxPids(TypedDict, total=False):
    """How many processes and threads; not above 0 is no limit."""

    limit: Required[int]


class LinuxWeightDevice(TypedDict, total=False):
    """I/O weight of one block device, 10 to 1000."""

    major: Required[int]
    minor: Required[int]
    weight: int
    leafWeight: int


class LinuxThrottleDevice(TypedDict, total=False):
    """Bytes or operations a second on one block device."""

    major: Required[int]
    minor: Required[int]
    rate: int


class LinuxBlockIO(TypedDict, total=False):
    """Block I/O weights and limits. OCI runtime-spec config-linux.md#block-io."""

    weight: int
    leafWeight: int
    weightDevice: list[LinuxWeightDevice]
    throttleReadBpsDevice: list[LinuxThrottleDevice]
    throttleWriteBpsDevice: list[LinuxThrottleDevice]
    throttleReadIOPSDevice: list[LinuxThrottleDevice]
    throttleWriteIOPSDevice: list[LinuxThrottleDevice]


class LinuxHugepageLimit(TypedDict, total=False):
    """`pageSize` as in ``2MB``; `limit` in bytes."""

    pageSize: Required[str]
    limit: Required[int]


class LinuxInterfacePriority(TypedDict, total=False):
    """Priority of what the container sends through one interface."""

    name: Required[str]
    priority: Required[int]


class LinuxNetwork(TypedDict, total=False):
    """net_cls and net_prio, which only cgroup v1 has."""

    classID: int
    priorities: list[LinuxInterfacePriority]


class LinuxRdma(TypedDict, total=False):
    """Limits for one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class LinuxResources(TypedDict, total=False):
    """What the container's cgroup is given. OCI runtime-spec config-linux.md#control-groups."""

    devices: list[LinuxDeviceCgroup]
    memory: LinuxMemory
    cpu: LinuxCPU
    pids: LinuxPids
    blockIO: LinuxBlockIO
    hugepageLimits: list[LinuxHugepageLimit]
    network: LinuxNetwork
    rdma: dict[str, LinuxRdma]
    unified: dict[str, str]


# --- linux: seccomp ---------------------------------------------------------------------------------------------


class LinuxSeccompArg(TypedDict, total=False):
    """One comparison of a system call's argument; for SCMP_CMP_MASKED_EQ `value` is the mask."""

    index: Required[int]
    value: Required[int]
    valueTwo: int
    op: Required[str]


class LinuxSyscall(TypedDict, total=False):
    """One rule; all of `args` must hold."""

    names: Required[list[str]]
    action: Required[str]
    errnoRet: int
    args: list[LinuxSeccompArg]


class LinuxSeccomp(TypedDict, total=False):
    """A system call filter. OCI runtime-spec config-linux.md#seccomp."""

    defaultAction: Required[str]
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[LinuxSyscall]


class Linux(TypedDict, total=False):
    """What only Linux has. OCI runtime-spec config-linux.md."""

    uidMappings: list[LinuxIDMapping]
    gidMappings: list[LinuxIDMapping]
    sysctl: dict[str, str]
    resources: LinuxResources
    cgroupsPath: str
    namespaces: list[LinuxNamespace]
    devices: list[LinuxDevice]
    netDevices: dict[str, LinuxNetDevice]
    seccomp: LinuxSeccomp
    rootfsPropagation: Literal["private", "shared", "slave", "unbindable"]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: LinuxIntelRdt
    memoryPolicy: LinuxMemoryPolicy
    personality: LinuxPersonality
    timeOffsets: LinuxTimeOffsets


class Spec(TypedDict, total=False):
    """config.json. OCI runtime-spec config.md."""

    ociVersion: Required[str]
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux


# --- state ------------------------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    """What hooks read on stdin and ``state`` prints. OCI runtime-spec runtime.md#state."""

    ociVersion: Required[str]
    id: Required[str]
    status: Required[str]
    pid: int
    bundle: Required[str]
    annotations: dict[str, str]


class ContainerProcessState(TypedDict, total=False):
    """What a seccomp listener is sent with its descriptor. OCI runtime-spec config-linux.md#containerprocessstate."""

    ociVersion: Required[str]
    fds: Required[list[str]]
    pid: Required[int]
    metadata: str
    state: Required[State]


# --- features ---------------------------------------------------------------------------------------------------


class CgroupFeatures(TypedDict, total=False):
    """Kinds of cgroup this runtime can manage."""

    v1: bool
    v2: bool
    systemd: bool
    systemdUser: bool
    rdma: bool


class SeccompFeatures(TypedDict, total=False):
    """What the seccomp compiler knows."""

    enabled: bool
    actions: list[str]
    operators: list[str]
    archs: list[str]
    knownFlags: list[str]
    supportedFlags: list[str]


class EnabledFeature(TypedDict, total=False):
    """A feature that is either compiled in or not, whatever the host has."""

    enabled: bool


class MountExtensions(TypedDict, total=False):
    """Mount features beyond options."""

    idmap: EnabledFeature


class LinuxFeatures(TypedDict, total=False):
    """What the runtime implements for Linux. OCI runtime-spec features-linux.md."""

    namespaces: list[str]
    capabilities: list[str]
    cgroup: CgroupFeatures
    seccomp: SeccompFeatures
    apparmor: EnabledFeature
    selinux: EnabledFeature
    intelRdt: EnabledFeature
    mountExtensions: MountExtensions
    netDevices: EnabledFeature


class Features(TypedDict, total=False):
    """What ``features`` prints. OCI runtime-spec features.md."""

    ociVersionMin: Required[str]
    ociVersionMax: Required[str]
    hooks: list[str]
    mountOptions: list[str]
    annotations: dict[str, str]
    potentiallyUnsafeConfigAnnotations: list[str]
    linux: LinuxFeatures
