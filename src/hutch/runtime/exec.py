"""Another process in a container that exists: join its namespaces, become its kind of process, execute.

    caller (host)                    entry (host's pid namespace)             the process
    fork ─────────────────────────▶  ◀─ PLACE
    put it in the cgroup  ─▶ GO      limits, scheduling; not dumpable
                                     setns(init's pidfd): user first
                                     terminal, user, capabilities, cwd, args[0] found
                                     fork ─────────────────────────────────▶
                      ─▶ GO          ◀─ INIT pid                              setsid, terminal
    reap entry                       exit                                     ◀─ LISTENER (as in create)
                                                                              sealed image, program
    any time: ◀─ FAILED ...          EOF: it was executed

Everything that can be done before the fork is: from then on the process is in the container's pid namespace, where
somebody may be waiting for it. Until it has executed the image it is not dumpable, and labels are written through a
procfs of the host's (CVE-2016-9962, LXC's CVE-2015-1334). Who may be trusted less runs this in a sealed interpreter:
see seal.py.
"""

from __future__ import annotations

import errno
import os

from hutch.errors import Conflict, ContainerSetupFailed, InvalidArgument, InvalidState, NotFound
from hutch.linux import process as kernel_process
from hutch.linux.namespaces import KINDS, namespace_id, setns
from hutch.linux.paths import Root
from hutch.linux.proc import Proc
from hutch.linux.seqpacket import pair
from hutch.runtime import console, credentials, entering, handshake, init, scheduling
from hutch.runtime.signals import SIGKILL
from hutch.runtime.steps import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

    from hutch.linux.seqpacket import Channel
    from hutch.runtime.container import Container
    from hutch.runtime.steps import Step
    from hutch.spec.runtime import Process, Spec

ORDER = {
    0: (handshake.PLACE,),
    handshake.PLACE: (handshake.LIMITS, handshake.INIT),
    handshake.LIMITS: (handshake.INIT,),
    handshake.INIT: (handshake.LISTENER, handshake.READY),
    handshake.LISTENER: (handshake.READY,),
    handshake.READY: (),
}
"""What the entry, and then the process, may send next: see handshake.ORDER."""

# The last steps are in the container's pid namespace: a filter may forbid fork(2), and a listener is asked for by pid.
_ANSWERED = (handshake.PLACE, handshake.LIMITS, handshake.INIT, handshake.LISTENER)
_AFTER_FORK = ("load seccomp filter", "execute")


def exec_process(
    container: Container,
    process: Process,
    *,
    stdio: tuple[int, int, int] = (0, 1, 2),
    console_socket: int | None = None,
    preserve_fds: int = 0,
    ignore_paused: bool = False,
    cgroup: Sequence[str] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Start a process in a running (or created) container.

    Args:
        container: loaded.
        process: checked by config.check_process; trusted as much as the container's configuration.
        stdio: become 0, 1 and 2, unless the process has a terminal; not closed.
        console_socket: connected; is sent the controlling end of the terminal; not closed.
        preserve_fds: how many of the caller's descriptors from 3 on the process gets.
        ignore_paused: also enter a paused container, in which the process waits to be resumed.
        cgroup: ``[controller,...:]path`` of existing cgroups below the container's.
        warn: is told of what could not be had exactly as asked for.

    Returns:
        Its pid in the caller's pid namespace. It is the child of the nearest subreaper from the caller upwards.

    Raises:
        InvalidState: the container has stopped, or is paused.
        ContainerSetupFailed: a step failed; nothing is left running.
        InvalidArgument, NotFound: `cgroup` names nothing there.
    """
    status = container.status()
    if status in ("stopped", "creating"):
        raise InvalidState(f"cannot exec in a {status} container", have=status, want="created or running")
    if status == "paused" and not ignore_paused:
        message = "cannot exec in a paused container (use --ignore-paused to override)"
        raise InvalidState(message, have=status, want="created or running")
    places = _cgroup_places(container, cgroup)
    if not container.record.rootless:
        console.give_streams(container.config, process, stdio)
    entry = _Entry(container, process, stdio, console_socket, preserve_fds)
    try:
        ours, theirs = pair()
        pid = os.fork()
        if not pid:
            ours.close()
            entry.run(theirs)
        theirs.close()
        with ours:
            return _Caller(container, process, ours, pid, places, warn).conduct()
    finally:
        entry.close()


# --- the caller's side ------------------------------------------------------------------------------------------


class _Caller:
    """Answers the entry, and hands back the pid or raises."""

    def __init__(
        self,
        container: Container,
        process: Process,
        channel: Channel,
        entry_pid: int,
        places: list[str],
        warn: Callable[[str], None],
    ) -> None:
        self.container, self.process, self.warn, self.places = container, process, warn, places
        self.parent = handshake.Parent(channel, lambda _who, _index: None, warn, order=ORDER)
        self.entry_pid, self.pid = entry_pid, 0

    def conduct(self) -> int:
        """See the conversation through."""
        try:
            while message := self.parent.receive():
                if message.kind == handshake.PLACE:
                    self._place()
                elif message.kind == handshake.LIMITS:
                    credentials.raise_limits(self.process.get("rlimits") or [], self.entry_pid, self.warn)
                elif message.kind == handshake.LISTENER:
                    self._pass_listener(message.number)
                elif message.kind == handshake.INIT:
                    self.pid = self._verified(message.number)
                if message.kind in _ANSWERED:
                    self.parent.go()
            if self.parent.last != handshake.READY:
                raise self._killed()
            os.waitpid(self.entry_pid, 0)
        except BrokenPipeError:
            error = self._killed()
            self._abandon()
            raise error from None
        except BaseException:
            self._abandon()
            raise
        return self.pid

    def _killed(self) -> ContainerSetupFailed:
        after = handshake.NAMES.get(self.parent.last, "its start")
        return ContainerSetupFailed("enter container", 0, "", f"the process was killed after {after}")

    def _verified(self, pid: int) -> int:
        """The pid that the entry forked must be a new one, not just any number."""
        from hutch.runtime.state import process_status

        if pid <= 1 or process_status(pid) is None:
            raise ContainerSetupFailed("enter container", errno.ESRCH, "", f"process {pid} is gone")
        return pid

    def _place(self) -> None:
        if self.places:
            for place in self.places:
                _write_pid(f"{place}/cgroup.procs", self.entry_pid)
            return
        if not self.container.record.cgroup_paths:
            return
        try:
            self.container.cgroup().add(self.entry_pid)
        except Conflict:
            # An init that has made cgroups of its own (systemd) leaves none but inner ones to join on v2.
            path = _own_cgroup2(self.container)
            _write_pid(f"{path}/cgroup.procs", self.entry_pid)

    def _pass_listener(self, number: int) -> None:
        from hutch.runtime.listener import send_listener

        seccomp: Any = (self.container.config.get("linux") or {}).get("seccomp") or {}
        pidfd = kernel_process.pidfd_open(self.pid)
        try:
            listener_fd = kernel_process.pidfd_getfd(pidfd, number)
        finally:
            os.close(pidfd)
        try:
            send_listener(seccomp, listener_fd, self.pid, self.container.state())
        finally:
            os.close(listener_fd)

    def _abandon(self) -> None:
        for pid in (self.pid, self.entry_pid):
            if pid:
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
        for pid in (self.entry_pid, self.pid):
            if pid:
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    continue  # the process is another subreaper's to wait for, unless we are one


def _write_pid(path: str, pid: int) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(str(pid).encode())


def _own_cgroup2(container: Container) -> str:
    top = container.record.cgroup_paths.get("", "")
    with open(f"/proc/{container.pid}/cgroup", "rb") as file:
        for line in file.read(1 << 16).decode("utf-8", "surrogateescape").splitlines():
            if line.startswith("0::"):
                return f"/sys/fs/cgroup{line.removeprefix('0::')}"
    return top


def _cgroup_places(container: Container, wanted: Iterable[str]) -> list[str]:
    """The directories that --cgroup names, each below the container's cgroup.

    Raises:
        InvalidArgument: a path leads out, or a controller is not the container's.
        NotFound: there is no such cgroup.
    """
    paths = container.record.cgroup_paths
    chosen: dict[str, str] = {}
    for text in wanted:
        controllers, colon, below = text.rpartition(":")
        parts = [part for part in below.split("/") if part]
        if any(part in (".", "..") for part in parts) or not below:
            raise InvalidArgument(f"--cgroup: {text!r}: not a path below the container's cgroup")
        for name in controllers.split(",") if colon else list(paths):
            if name not in paths:
                raise InvalidArgument(f"--cgroup: unknown controller {name!r} in {text!r}")
            chosen[name] = "/".join([paths[name], *parts])
    places = list(dict.fromkeys({**paths, **chosen}.values())) if chosen else []
    for place in places:
        if not os.path.isdir(place):
            raise NotFound(f"--cgroup: {place}: no such file or directory")
    return places


# --- the entry's side -------------------------------------------------------------------------------------------


class _Entry:
    """What the forked child does; it never returns into the caller's program."""

    def __init__(
        self,
        container: Container,
        process: Process,
        stdio: tuple[int, int, int],
        console_socket: int | None,
        preserve_fds: int,
    ) -> None:
        spec: Spec = {**container.config, "process": process, "hooks": {}}
        record = container.record
        self.process = process
        self.target = record.pid
        self.title = "enter container"
        self.terminal_fd = -1
        self.options = init.Options(stdio, preserve_fds, init.compiled_filter(spec), explain=False)
        self.setup = Setup(
            spec,
            container_id=record.id,
            bundle=record.bundle,
            rootfs=record.rootfs,
            proc=Proc.new(),
            state=container.state(),
        )
        self.setup.label = credentials.exec_label(process)
        self.memory_policy = scheduling.memory_policy(spec.get("linux") or {})
        self.setup.fds["target"] = container.open_init()
        if console_socket is not None:
            self.setup.fds["console-socket"] = os.dup(console_socket)

    def close(self) -> None:
        """Close what the caller's side does not need."""
        for fd in self.setup.fds.values():
            os.close(fd)
        self.setup.proc.close()

    def run(self, channel: Channel) -> NoReturn:
        """Do everything, and end."""
        self.setup.link = link = handshake.Child(channel)
        try:
            entering.forget_signals()
            entering.forbid_imports()
            init.arrange_descriptors(self.setup, self.options)
            os.umask(0)
            self._enter(link)
        except BaseException as error:
            link.fail(self.title, error)
        finally:
            os._exit(1)

    def _do(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.title = step.title
            step.run(self.setup)

    def _enter(self, link: handshake.Child) -> None:
        process, setup = self.process, self.setup
        affinity = process.get("execCPUAffinity") or {}
        if initial := affinity.get("initial"):
            self._do([scheduling.affinity(initial)])
        link.ask(handshake.PLACE)
        if final := affinity.get("final"):
            self._do([scheduling.affinity(final)])
        self._do(credentials.oom_score(process))
        kernel_process.set_dumpable(False)
        self._do(scheduling.scheduling(process))
        self._do(self.memory_policy)
        if persona := (setup.spec.get("linux") or {}).get("personality"):
            self._do([scheduling.personality(persona["domain"])])
        self._join()
        self._do([credentials.new_keyring(f"_ses.{setup.container_id}")])
        self.title = "open container's root"
        setup.root = Root.at("/")
        if process.get("terminal"):
            self._open_terminal()
        steps = init.final_steps(setup, self.options)
        here = next(at for at, step in enumerate(steps) if step.title in _AFTER_FORK)
        self._do(steps[:here])
        self.title = "fork"
        pid = os.fork()
        if pid:
            link.send(handshake.INIT, pid)
            os._exit(0)
        self.title = "start session"
        link.wait()
        os.setsid()
        if self.terminal_fd >= 0:
            self.title = "adopt terminal"
            console.adopt(self.terminal_fd)
        self._do(steps[here:])

    def _join(self) -> None:
        """All that differ at once: the kernel joins the user namespace first, and the pid namespace is for children."""
        self.title = "join namespaces"
        kinds = [kind for kind in KINDS if namespace_id(self.target, kind) != namespace_id("self", kind)]
        flags = 0
        for kind in kinds:
            flags |= KINDS[kind]
        if flags:
            setns(self.setup.fds["target"], flags)
        if "user" in kinds:
            kernel_process.setresgid(0, 0, 0)
            kernel_process.setresuid(0, 0, 0)
            kernel_process.set_dumpable(False)

    def _open_terminal(self) -> None:
        self.title = "open terminal"
        if "console-socket" not in self.setup.fds:
            raise InvalidArgument("process.terminal: no console socket to send it to")
        ptmx_fd, self.terminal_fd = console.open_terminal(self.setup.inside, self.process)
        try:
            console.send(self.setup.fds["console-socket"], ptmx_fd)
        finally:
            os.close(ptmx_fd)
