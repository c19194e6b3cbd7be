"""From a configuration to the list of steps that make it so: pure, printed by a dry run, executed by create.

Three actors take part (see handshake.py): the parent on the host, its child, and init in the container. The order of
the lists is the order of execution; the parent's steps answer what the other two ask.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import process as kernel_process
from hutch.runtime import (
    console,
    credentials,
    devices,
    handshake,
    namespaces,
    network,
    rootfs,
    rootfs_cgroup,
    rootfs_layers,
    scheduling,
)
from hutch.runtime.cgroups import ownership
from hutch.runtime.hooks import run_hooks
from hutch.runtime.rootfs_mounts import Request, clone_step, mount_step
from hutch.runtime.spawn import join_v1
from hutch.runtime.steps import CHILD, INIT, PARENT, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Hook, Mount, Process, Spec

_ASKS = {"wait for ids and cgroup": handshake.PLACE, "wait for limits and hooks": handshake.HOST}


class Plan:
    """The steps of one creation.

    Attributes:
        child: in the host's pid namespace, into the container's namespaces.
        init: in the container, up to where only its program is left to be executed.
        answers: the parent's, by the message they answer.
        idmapped: key of a mount whose ids are mapped → the mount, for the parent to make user namespaces for.
        namespaces: what is joined and made.
    """

    __slots__ = ("answers", "child", "idmapped", "init", "namespaces")

    def __init__(self, spec: Spec) -> None:
        self.child: list[Step] = []
        self.init: list[Step] = []
        self.answers: dict[int, list[Step]] = {kind: [] for kind in handshake.ANSWERED}
        self.idmapped: dict[str, Mount] = {}
        self.namespaces = namespaces.Namespaces(spec)

    def steps(self) -> Iterator[tuple[str, Step]]:
        """All of them with their actors, in the order in which they run."""
        for actor, steps in ((CHILD, self.child), (INIT, self.init)):
            if actor == INIT:
                yield from ((PARENT, step) for step in self.answers[handshake.INIT])
            for step in steps:
                yield actor, step
                if step.title in _ASKS:
                    yield from ((PARENT, answer) for answer in self.answers[_ASKS[step.title]])


def make_plan(
    spec: Spec,
    *,
    bundle: str,
    container_id: str,
    privileged: bool,
    root_mounts: Sequence[Mount] = (),
    no_pivot: bool = False,
    no_new_keyring: bool = False,
) -> Plan:
    """Turn a checked configuration into steps.

    Args:
        spec: the configuration.
        bundle: absolute; relative sources of mounts start here.
        container_id: names the keyring.
        privileged: whether the caller has the host's capabilities.
        root_mounts: mounts that make the root file system; destinations below it.
        no_pivot: MS_MOVE and chroot instead of pivot_root.
        no_new_keyring: keep the caller's session keyring.

    Raises:
        InvalidConfig: no process, or a mount that cannot be.
        NotSupported: something this host or this version does not have.
    """
    process = spec.get("process")
    if not process:
        raise InvalidConfig("process: required")
    _refuse(spec, process)
    plan = Plan(spec)
    label = (spec.get("linux") or {}).get("mountLabel") or ""
    mounts = enumerate(spec.get("mounts") or [])
    requests = [Request(entry, f"mounts[{index}]", bundle, label) for index, entry in mounts]
    layers = rootfs_layers.Layers(root_mounts, bundle, label)
    _note_idmapped(plan, [*requests, *layers.requests], privileged=privileged)
    nodes_before, nodes = devices.steps(spec, bind=plan.namespaces.has("user"), early=privileged)
    masks_before, masks = rootfs.masks(spec)
    noted, moves, brought_up = network.devices(spec)

    plan.child += credentials.oom_score(process)
    plan.child.append(Step("forbid tracing", "prctl(PR_SET_DUMPABLE, 0)", _not_dumpable))
    plan.child.append(Step("join cgroups of v1", 'write("tasks", "0")', _join_v1, command="echo 0 > tasks"))
    plan.child += noted
    if privileged:
        binds = [entry for entry in requests if entry.options.bind and not entry.options.remount]
        plan.child += [*layers.prepare(), *map(clone_step, binds), *nodes_before]
    plan.child += _into_namespaces(plan, spec)

    if not no_new_keyring:
        plan.init.append(credentials.new_keyring(f"_ses.{container_id}"))
    if "network" in plan.namespaces.new:
        plan.init.append(network.loopback())
    plan.init += brought_up
    plan.init += [*namespaces.names(spec), rootfs.isolate(spec), *layers.attach(), *masks_before]
    for request in requests:
        if request.fstype in ("cgroup", "cgroup2") and not request.options.bind:
            plan.init.append(rootfs_cgroup.mount_step(request, namespaced=plan.namespaces.has("cgroup")))
        else:
            plan.init.append(mount_step(request))
    plan.init += nodes
    if process.get("terminal"):
        plan.init.append(_terminal(process))
    plan.init.append(Step("create working directory", f"mkdirat(rootfs:{process['cwd']})", _make_cwd))
    plan.init.append(Step("wait for limits and hooks", "recv(parent)", lambda setup: setup.talk.ask(handshake.HOST)))
    plan.init += _hooks(spec, "createContainer")
    plan.init += [rootfs.pivot(no_pivot=no_pivot), *rootfs.sysctls(spec), *rootfs.read_only_paths(spec), *masks]
    plan.init += [rootfs.finish_read_only(), *rootfs.finish_root(spec)]
    if persona := (spec.get("linux") or {}).get("personality"):
        plan.init.append(scheduling.personality(persona["domain"]))
    plan.init += scheduling.memory_policy(spec.get("linux") or {})
    plan.init += scheduling.scheduling(process)
    _answer(plan, spec, moves, requests)
    return plan


def _refuse(spec: Spec, process: Process) -> None:
    """What this host or this version does not have is said, never skipped."""
    linux = spec.get("linux") or {}
    if label := linux.get("mountLabel"):
        credentials.require_selinux(f"linux.mountLabel: {label}")
    credentials.exec_label(process)
    if linux.get("intelRdt"):
        lacks = "resctrl is not mounted on this host (/sys/fs/resctrl)"
        if os.path.isdir("/sys/fs/resctrl/info"):
            lacks = "hutch does not manage groups of resctrl"
        raise NotSupported(f"linux.intelRdt: {lacks}", hint="hutch-oci features says what it can do")


def _note_idmapped(plan: Plan, requests: list[Request], *, privileged: bool) -> None:
    for request in requests:
        if request.options.idmap or request.mount.get("uidMappings"):
            if not privileged:
                raise NotSupported(f"{request.title}: mapping ids of a mount needs the host's root")
            plan.idmapped[request.key] = request.mount


def _not_dumpable(_: Setup) -> None:
    """Before anything is joined: nobody inside may trace us or take our descriptors (CVE-2016-9962)."""
    kernel_process.set_dumpable(False)


def _into_namespaces(plan: Plan, spec: Spec) -> list[Step]:
    spaces = plan.namespaces
    linux = spec.get("linux") or {}
    new_user = "user" in spaces.new
    steps = namespaces.joins(spaces)
    if new_user:
        steps.append(namespaces.make_user())
    steps.append(namespaces.place(new_user=new_user))
    zero = all(namespaces.maps_zero(maps or []) for maps in (linux.get("uidMappings"), linux.get("gidMappings")))
    if "user" in spaces.paths or (new_user and zero):
        steps.append(namespaces.become_root())
    return [*steps, *namespaces.make_rest(spaces), *namespaces.time_offsets(spec)]


def _make_cwd(setup: Setup) -> None:
    cwd = setup.spec["process"]["cwd"]
    try:
        os.close(setup.inside.mkdirs(cwd))
    except OSError as error:
        raise OSError(error.errno, error.strerror, cwd) from None


def _terminal(process: Process) -> Step:
    def action(setup: Setup) -> None:
        ptmx_fd, peer_fd = console.open_terminal(setup.inside, process)
        try:
            devices.bind_file(setup, "console", peer_fd)
            console.send(setup.fds["console-socket"], ptmx_fd)
            console.adopt(peer_fd)
        finally:
            os.close(ptmx_fd)
            os.close(peer_fd)

    call = (
        "ioctl(open(/dev/pts/ptmx), TIOCGPTPEER); open_tree(peer, OPEN_TREE_CLONE); move_mount(/dev/console); TIOCSCTTY"
    )
    return Step("open terminal", call, action)


def _hooks(spec: Spec, kind: str) -> list[Step]:
    hooks: Any = spec.get("hooks") or {}
    entries: list[Hook] = hooks.get(kind) or []
    if not entries:
        return []
    paths = ", ".join(f'"{entry["path"]}"' for entry in entries)

    def action(setup: Setup) -> None:
        run_hooks(hooks, kind, setup.state)

    return [Step(f"run {kind} hooks", f"execve({paths})", action)]


def _answer(plan: Plan, spec: Spec, moves: list[Step], requests: list[Request]) -> None:
    linux = spec.get("linux") or {}
    placing = plan.answers[handshake.PLACE]
    if "user" in plan.namespaces.new:
        placing += namespaces.write_maps(spec)
    placing.append(
        Step(
            "join cgroup",
            'write("cgroup.procs", CHILD), if clone3(CLONE_INTO_CGROUP) did not',
            _join_cgroup,
            command="echo CHILD > cgroup.procs",
        )
    )
    plan.answers[handshake.INIT] += moves
    resources = linux.get("resources") or {}
    names = ", ".join(name for name in resources if resources.get(name)) or "devices"

    def limit(setup: Setup) -> None:
        if setup.cgroup is not None:
            setup.cgroup.apply(resources)

    plan.answers[handshake.HOST].append(Step("set cgroup limits", f"write({names})", limit))
    plan.answers[handshake.HOST] += ownership.steps(spec, requests)
    plan.answers[handshake.HOST] += [*_hooks(spec, "prestart"), *_hooks(spec, "createRuntime")]


def _join_v1(setup: Setup) -> None:
    join_v1(setup.cgroups_v1)


def _join_cgroup(setup: Setup) -> None:
    if setup.cgroup is not None and setup.cgroup_by_parent:
        setup.cgroup.add(setup.child_pid)
