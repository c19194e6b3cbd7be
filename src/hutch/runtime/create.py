"""The parent's side of create: from a configuration to a container that waits for `start`.

Whatever fails on the way, nothing is left: processes are killed and reaped, the cgroup is removed, poststop hooks have
run and the container's directory is gone.
"""

from __future__ import annotations

import errno
import os
import select

from hutch.errors import ContainerSetupFailed, HutchError, InvalidConfig, InvalidState, NotSupported
from hutch.linux import caps, process
from hutch.linux.proc import Proc
from hutch.linux.seqpacket import pair
from hutch.runtime import config, console, credentials, handshake, init, namespaces, spawn
from hutch.runtime.container import Container
from hutch.runtime.hooks import run_hooks
from hutch.runtime.plan import make_plan
from hutch.runtime.signals import SIGKILL
from hutch.runtime.state import FIFO
from hutch.runtime.steps import PARENT, Setup, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hutch.runtime.plan import Plan
    from hutch.runtime.steps import Explain
    from hutch.spec.runtime import LinuxIDMapping, Mount, Spec, State

_SYS_ADMIN = 1 << caps.BITS["CAP_SYS_ADMIN"]
_KILL_WAIT_MS = 10_000


def create(
    spec: Spec,
    *,
    container_id: str,
    bundle: str,
    state_dir: str,
    stdio: tuple[int, int, int] = (0, 1, 2),
    console_socket: int | None = None,
    preserve_fds: int = 0,
    root_mounts: Sequence[Mount] = (),
    systemd_cgroup: bool = False,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
    explain: Explain | None = None,
    warn: Callable[[str], None] | None = None,
) -> Container:
    """Create a container; its init waits for `Container.start`.

    The caller must be single-threaded, and a child subreaper or the init's adoptive parent if it wants to wait for it.

    Args:
        spec: the configuration, unchecked.
        container_id: names it below `state_dir`.
        bundle: directory that relative paths in `spec` start from; trusted.
        state_dir: where containers are recorded, 0700.
        stdio: become the program's 0, 1 and 2 unless it has a terminal; not closed.
        console_socket: connected socket that gets the terminal's controlling end; not closed.
        preserve_fds: how many descriptors from 3 on the program inherits.
        root_mounts: OCI mounts that make the root file system at root.path; destinations below it, "/" first.
        systemd_cgroup: have systemd make the cgroup.
        no_pivot: MS_MOVE and chroot instead of pivot_root.
        no_new_keyring: keep the caller's session keyring.
        explain: told of each step as it is about to run.
        warn: told of what is not as asked for and no reason to fail.

    Raises:
        InvalidConfig, NotSupported: the configuration cannot be.
        AlreadyExists: the id is taken.
        ContainerSetupFailed: a step failed; it has the step, the errno and the path.

    OCI runtime-spec runtime.md#create.
    """
    config.check(spec)
    bundle = os.path.abspath(bundle)
    privileged = os.geteuid() == 0 and bool(caps.get().effective & _SYS_ADMIN)
    plan = make_plan(
        spec,
        bundle=bundle,
        container_id=container_id,
        privileged=privileged,
        root_mounts=root_mounts,
        no_pivot=no_pivot,
        no_new_keyring=no_new_keyring,
    )
    _check_console(spec, console_socket)
    container = Container.reserve(state_dir, container_id, spec=spec, bundle=bundle)
    try:
        creation = _Creation(container, plan, spec, explain, warn or _ignore)
    except BaseException:
        container.discard()
        raise
    try:
        creation.prepare(systemd_cgroup=systemd_cgroup, privileged=privileged, console_socket=console_socket)
        creation.setup.no_pivot = no_pivot
        if privileged:
            console.give_streams(spec, spec["process"], stdio)
        creation.run(init.Options(stdio, preserve_fds, init.compiled_filter(spec), explain=explain is not None))
        container.record_init(creation.setup.init_pid)
    except BaseException:
        creation.undo()
        raise
    finally:
        creation.close()
    return container


def _ignore(_: str) -> None:
    """Warnings that nobody asked for."""


def _check_console(spec: Spec, console_socket: int | None) -> None:
    terminal = bool(spec["process"].get("terminal"))
    if terminal and console_socket is None:
        raise InvalidConfig("process.terminal: a console socket is needed to hand the terminal over")
    if not terminal and console_socket is not None:
        raise InvalidConfig("a console socket was given, but process.terminal is not set")


class _Creation:
    """One creation in progress.

    Attributes:
        setup: what the steps share; the parent's copy.
    """

    def __init__(
        self, container: Container, plan: Plan, spec: Spec, explain: Explain | None, warn: Callable[[str], None]
    ) -> None:
        self._container = container
        self._plan = plan
        self._explain = explain
        self._warn = warn
        self._init_fd = self._child_fd = -1
        self._user_namespaces = namespaces.UserNamespaces()
        self._final: list[Step] = []
        record = container.record
        state: State = {
            "ociVersion": record.oci_version,
            "id": record.id,
            "status": "creating",
            "bundle": record.bundle,
        }
        if record.annotations:
            state["annotations"] = record.annotations
        self.setup = Setup(
            spec,
            container_id=record.id,
            bundle=record.bundle,
            rootfs=record.rootfs,
            proc=Proc.new(),
            state=state,
        )

    # --- before the fork

    def prepare(self, *, systemd_cgroup: bool, privileged: bool, console_socket: int | None) -> None:
        """Open and make what the child will need."""
        setup = self.setup
        setup.privileged = privileged
        setup.label = credentials.exec_label(setup.spec["process"])
        propagation = (setup.spec.get("linux") or {}).get("rootfsPropagation") or ""
        setup.keeps_peers = propagation in ("shared", "rshared")
        if not os.path.isdir(setup.rootfs):
            raise ContainerSetupFailed("open root file system", errno.ENOENT, setup.rootfs)
        wanted = self._idmaps()
        for maps in wanted.values():
            self._user_namespaces.begin(*maps)
        self._make_cgroup(systemd_cgroup=systemd_cgroup)
        directory_fd = self._container.directory.fd
        os.mkfifo(FIFO, 0o600, dir_fd=directory_fd)
        # Both ways: our end never reads the end of it, and `start` finds a reader as long as init lives.
        setup.fds["fifo"] = os.open(FIFO, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory_fd)
        setup.fds |= namespaces.open_paths(self._plan.namespaces)
        for key, maps in wanted.items():
            setup.fds[f"userns:{key}"] = self._user_namespaces.open(*maps)
        self._user_namespaces.release()
        if console_socket is not None:
            setup.fds["console-socket"] = os.dup(console_socket)

    def _idmaps(self) -> dict[str, tuple[list[LinuxIDMapping], list[LinuxIDMapping]]]:
        """The uid and gid maps of each mount that maps ids."""
        linux = self.setup.spec.get("linux") or {}
        found = {}
        for key, mount in self._plan.idmapped.items():
            uids = mount.get("uidMappings") or linux.get("uidMappings") or []
            gids = mount.get("gidMappings") or linux.get("gidMappings") or []
            if not uids or not gids:
                raise InvalidConfig(f"{key}: idmap needs uidMappings and gidMappings, the mount's or the container's")
            found[key] = (uids, gids)
        return found

    def _make_cgroup(self, *, systemd_cgroup: bool) -> None:
        from hutch.runtime.cgroups.manager import manager_for

        container, linux = self._container, self.setup.spec.get("linux") or {}
        record = container.record
        record.rootless = not self.setup.privileged
        record.systemd_cgroup = systemd_cgroup
        record.cgroups_path = linux.get("cgroupsPath") or ""
        try:
            manager = manager_for(record.cgroups_path, record.id, systemd=systemd_cgroup, rootless=record.rootless)
        except NotSupported:
            if linux.get("resources") or not record.rootless:
                raise
            return  # an ordinary user without cgroups, who asks for no limits
        if self._explain is not None:
            manager.explain.step = self._tell_cgroup
        try:
            manager.create()
        except BaseException:
            if not systemd_cgroup and not manager.pids():
                manager.destroy()
            raise
        # Its end is the end of everybody in it: it must be the container's alone.
        others = [] if systemd_cgroup else manager.pids()
        if others:
            message = f"container's cgroup is not empty: {len(others)} process(es) found"
            raise InvalidState(message, have="in use", want="empty")
        record.cgroup_paths = manager.paths()
        self.setup.cgroup = manager
        container.directory.save_record(record)  # so that `delete --force` finds it if we are killed

    # --- the conversation

    def run(self, options: init.Options) -> None:
        """Fork, answer, and return when init has become the sealed image."""
        self._final = init.final_steps(self.setup, options)
        ours, theirs = pair()
        pid = self._fork()
        if not pid:
            ours.close()
            init.run_child(self.setup, self._plan, options, theirs)
        theirs.close()
        with ours:
            self.setup.child_pid = pid
            self._child_fd = process.pidfd_open(pid)
            self._close_fds()
            if self.setup.cgroup is not None:
                self.setup.cgroup.preload()  # while the child is at work
            parent = handshake.Parent(ours, self._announce, self._warn)
            self._converse(parent)

    def _fork(self) -> int:
        """Fork, into the cgroup where that can be."""
        setup = self.setup
        if setup.cgroup is None or self._container.record.systemd_cgroup:
            return os.fork()
        paths = dict(setup.cgroup.paths())
        unified = paths.pop("", "")
        if paths and not setup.privileged:
            return os.fork()
        setup.cgroups_v1 = list(dict.fromkeys(paths.values()))
        setup.cgroup_by_parent = False
        if not unified:
            return os.fork()
        pid = spawn.fork_into(unified)
        if pid < 0:
            setup.cgroup_by_parent = True
            return os.fork()
        return pid

    def _converse(self, parent: handshake.Parent) -> None:
        setup = self.setup
        while (message := parent.receive()) is not None:
            if message.kind == handshake.INIT:
                setup.init_pid = message.number
                self._init_fd = process.pidfd_open(message.number)
                setup.state["pid"] = message.number
            elif message.kind == handshake.LISTENER:
                self._send_listener(message.number)
            elif message.kind == handshake.LIMITS:
                limits = setup.spec["process"].get("rlimits") or []
                credentials.raise_limits(limits, setup.init_pid, self._warn)
            for step in self._plan.answers.get(message.kind, ()):
                self._perform(step)
            if message.kind in handshake.ANSWERED:
                try:
                    parent.go()
                except BrokenPipeError:  # it has died; an `explain` that broke off says the same of a pipe of its own
                    raise self._killed(parent) from None
        if parent.last != handshake.READY or self._has_ended():
            raise self._killed(parent)
        self._reap_child()  # only now: it ends, and init becomes ours, while init is at work

    def _perform(self, step: Step) -> None:
        if self._explain is not None:
            self._explain(PARENT, step)
        try:
            step.run(self.setup)
        except OSError as error:
            if error.errno is None:
                raise
            path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
            text = error.strerror or ""
            detail = "" if text == os.strerror(error.errno) else text
            raise ContainerSetupFailed(step.title, error.errno, path, detail) from None

    def _announce(self, actor: str, index: int) -> None:
        if self._explain is None:
            return
        steps = self._plan.child if actor == "child" else [*self._plan.init, *self._final]
        if 0 <= index < len(steps):
            self._explain(actor, steps[index])

    def _tell_cgroup(self, verb: str, path: str, text: str) -> None:
        """Announce one thing done to the cgroup, with what was really written: the plan knows only what is asked."""
        title = "make cgroup" if verb == "mkdir" else f"set {os.path.basename(path)}"
        call = f'{verb}("{path}", {text!r})' if text else f'{verb}("{path}")'
        if self._explain is not None:
            self._explain(PARENT, Step(title, call, _done))

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._init_fd, select.POLLIN)
        return bool(poll.poll(0))

    def _killed(self, parent: handshake.Parent) -> HutchError:
        """The child or init ended without a word: say how."""
        after = handshake.NAMES.get(parent.last, "its start")
        if self.setup.init_pid:
            self._reap_child()
        pid = self.setup.init_pid or self.setup.child_pid
        how = "ended"
        try:
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        except ChildProcessError:
            pass  # not our child: we are no subreaper
        return ContainerSetupFailed("create container", 0, "", f"its init {how} after {after}")

    def _send_listener(self, number: int) -> None:
        """Hand a seccomp listener to the agent at listenerPath. OCI runtime-spec config-linux.md#seccomp."""
        from hutch.runtime.listener import send_listener

        seccomp = self.setup.spec["linux"]["seccomp"]
        listener_fd = process.pidfd_getfd(self._init_fd, number)
        try:
            send_listener(seccomp, listener_fd, self.setup.init_pid, self.setup.state)
        finally:
            os.close(listener_fd)

    # --- the end

    def _reap_child(self) -> None:
        pid, self.setup.child_pid = self.setup.child_pid, 0
        if pid:
            os.waitpid(pid, 0)

    def _close_fds(self) -> None:
        for fd in self.setup.fds.values():
            os.close(fd)
        self.setup.fds.clear()

    def close(self) -> None:
        """Close what is the parent's own."""
        self._close_fds()
        for fd in (self._child_fd, self._init_fd):
            if fd >= 0:
                os.close(fd)
        self._child_fd = self._init_fd = -1
        self._user_namespaces.close()
        self.setup.proc.close()

    def undo(self) -> None:
        """Take everything back."""
        for fd in (self._child_fd, self._init_fd):
            if fd >= 0:
                _kill(fd)
        if self.setup.cgroup is not None:
            self.setup.cgroup.kill(SIGKILL)
        for pid in (self.setup.child_pid, self.setup.init_pid):
            if pid:
                _reap(pid)
        if self.setup.cgroup is not None:
            self.setup.cgroup.destroy()
        self.setup.state["status"] = "stopped"
        for text in run_hooks(self.setup.spec.get("hooks") or {}, "poststop", self.setup.state):
            self._warn(text)
        self._container.discard()


def _done(_: Setup) -> None:
    """What has been done already needs no action."""


def _kill(pidfd: int) -> None:
    try:
        process.pidfd_send_signal(pidfd, SIGKILL)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_KILL_WAIT_MS)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
