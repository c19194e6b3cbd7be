"""The container's side of create: the child that enters the namespaces, and init, which becomes the program.

Neither ever returns or raises past `run_child`: what fails is sent to the parent, and the process ends. From the first
step on nothing is imported any more: a module looked up below the container's root would be the container's code.
"""

from __future__ import annotations

import fcntl
import gc
import os

from hutch.linux import process as kernel_process
from hutch.linux import seccomp
from hutch.linux.paths import Root
from hutch.runtime import console, credentials, handshake, trampoline
from hutch.runtime.entering import close_others, forbid_imports, forget_signals, restore_signals
from hutch.runtime.hooks import run_hooks
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from hutch.linux.seqpacket import Channel
    from hutch.runtime.plan import Plan
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Process, Spec


class Options:
    """What init needs besides the plan.

    Attributes:
        stdio: descriptors to become 0, 1 and 2.
        preserve_fds: how many from 3 on the program inherits.
        filter: the compiled seccomp program: code, flags, whether it has a listener; None without one.
        explain: whether to announce each step.
    """

    __slots__ = ("explain", "filter", "preserve_fds", "stdio")

    def __init__(
        self, stdio: tuple[int, int, int], preserve_fds: int, program: tuple[bytes, int, bool] | None, *, explain: bool
    ) -> None:
        self.stdio = stdio
        self.preserve_fds = preserve_fds
        self.filter = program
        self.explain = explain


def compiled_filter(spec: Spec) -> tuple[bytes, int, bool] | None:
    """The seccomp program of a configuration: code, flags, whether it has a listener; None without one."""
    profile = (spec.get("linux") or {}).get("seccomp")
    if not profile:
        return None
    from hutch.runtime.seccomp import compile_profile

    program = compile_profile(profile, architecture=os.uname().machine)
    return program.code, program.flags, program.listener


def run_child(setup: Setup, plan: Plan, options: Options, channel: Channel) -> NoReturn:
    """Everything the child does, from the fork on. Never returns."""
    title = "start child"
    try:
        gc.disable()  # a collection would only copy pages that we share with the parent
        setup.link = handshake.Child(channel)
        forget_signals()
        forbid_imports()
        arrange_descriptors(setup, options)
        os.umask(0)
        title = _run("child", plan.child, setup, explain=options.explain)
        if not title:
            title = "fork init"
            pid = os.fork()
            if pid:
                setup.link.send(handshake.INIT, pid)
                os._exit(0)
            title = _run_init(setup, plan, options)
    except BaseException as error:
        if setup.link is not None:
            setup.link.fail(title, error)
    finally:
        os._exit(1)


def _run(actor: str, steps: Sequence[Step], setup: Setup, *, explain: bool) -> str:
    """Run steps; report the one that fails and return its title, else ""."""
    for index, step in enumerate(steps):
        try:
            if explain:
                setup.talk.send(handshake.STEP, index, actor)
            step.run(setup)
        except BaseException as error:
            setup.talk.fail(step.title, error)
            return step.title
    return ""


def _run_init(setup: Setup, plan: Plan, options: Options) -> str:
    setup.talk.wait()
    os.setsid()
    setup.state["pid"] = os.getpid()
    return _run("init", [*plan.init, *final_steps(setup, options)], setup, explain=options.explain)


def arrange_descriptors(setup: Setup, options: Options) -> None:
    """0, 1 and 2 as asked for; close all others but ours and those to be preserved."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + options.preserve_fds) for fd in options.stdio]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
        os.close(fd)
    preserved = range(3, 3 + options.preserve_fds)
    ours = {setup.talk.fd, setup.proc.fd, *setup.fds.values()}
    close_others({*preserved, *ours})
    for fd in preserved:
        os.set_inheritable(fd, True)


# --- the end: identity, filter, program --------------------------------------------------------------------------


def final_steps(setup: Setup, options: Options) -> list[Step]:
    """From root in the finished container to the program."""
    spec_process: Process = setup.spec["process"]
    no_new_privs = bool(spec_process.get("noNewPrivileges"))
    ending = _Ending(setup, options, no_new_privs=no_new_privs)
    steps = [
        Step("enter new root", 'open("/", O_PATH)', ending.enter_root),
        Step("chdir", f'openat2("{spec_process["cwd"]}", RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS); fchdir', ending.chdir),
        Step("seal init", "memfd_create(); fcntl(F_ADD_SEALS)", ending.build_early),
        *credentials.limits(spec_process, lambda inner: inner.talk.ask(handshake.LIMITS)),
    ]
    if no_new_privs:
        steps.append(credentials.no_new_privileges())
    elif options.filter:
        steps.append(Step("load seccomp filter", "seccomp(SECCOMP_SET_MODE_FILTER)", ending.load_filter))
    steps += credentials.identity(spec_process)
    steps.append(Step("check working directory", "getcwd()", ending.check_directory))
    if no_new_privs and options.filter and options.filter[2]:
        steps.append(Step("load seccomp filter", "seccomp(SECCOMP_SET_MODE_FILTER)", ending.load_filter))
    steps.append(Step("find program", "access(args[0], X_OK)", ending.find))
    steps.append(Step("execute", "execveat(sealed init); read(exec.fifo); execve(args)", ending.execute))
    return steps


class _Ending:
    """What the last steps share."""

    __slots__ = (
        "_entered",
        "_env",
        "_filter_in_image",
        "_hooks_first",
        "_image_fd",
        "_options",
        "_proc_fd",
        "_process",
        "_wait_fd",
    )

    def __init__(self, setup: Setup, options: Options, *, no_new_privs: bool) -> None:
        self._options = options
        self._process: Process = setup.spec["process"]
        listener = bool(options.filter and options.filter[2])
        self._filter_in_image = bool(options.filter) and no_new_privs and not listener
        self._hooks_first = bool((setup.spec.get("hooks") or {}).get("startContainer"))
        self._image_fd = self._proc_fd = self._wait_fd = -1
        self._entered = False
        self._env: dict[bytes, bytes] = {}

    def enter_root(self, setup: Setup) -> None:
        old = setup.inside
        setup.root = Root.at("/")
        old.close()
        self._env = credentials.environment(self._process, setup.root)

    def chdir(self, setup: Setup) -> None:
        """As root if root can, later as the user: either may be shut out (a network file system; a mode of 0700)."""
        try:
            credentials.enter_directory(setup.inside, self._process["cwd"])
            self._entered = True
        except PermissionError:
            self._entered = False

    def build_early(self, setup: Setup) -> None:
        """While files of any size may still be written, and the label's procfs mounted."""
        code, flags, _ = self._options.filter or (b"", 0, False)
        fifo_fd = -1 if self._hooks_first else setup.fds.get("fifo", -1)
        self._wait_fd = fifo_fd if fifo_fd >= 0 else trampoline.ticket()
        attribute, label = setup.label
        if label:
            self._proc_fd = os.dup(setup.proc.fd)  # made on the host: nothing of the container's covers it
        self._image_fd = trampoline.build(
            wait_fd=self._wait_fd,
            proc_fd=self._proc_fd,
            label_attribute=attribute,
            label=label,
            seccomp=code if self._filter_in_image else b"",
            seccomp_flags=flags,
        )
        if not self._process.get("terminal"):
            console.own_streams((self._process.get("user") or {}).get("uid", 0))

    def load_filter(self, setup: Setup) -> None:
        code, flags, listener = self._options.filter or (b"", 0, False)
        if not listener:
            seccomp.load(code, flags)
            return
        listener_fd = seccomp.load(code, flags | seccomp.FILTER_FLAG_NEW_LISTENER)
        try:
            setup.talk.ask(handshake.LISTENER, listener_fd)
        finally:
            os.close(listener_fd)

    def check_directory(self, setup: Setup) -> None:
        cwd = self._process["cwd"]
        if not self._entered:
            credentials.enter_directory(setup.inside, cwd)
        credentials.verify_directory(cwd)
        os.umask((self._process.get("user") or {}).get("umask", 0o022))

    def find(self, setup: Setup) -> None:
        setup.program = credentials.find_program(self._process["args"][0], self._env)

    def execute(self, setup: Setup) -> None:
        setup.talk.send(handshake.READY)
        if self._hooks_first:
            self._wait_and_run_hooks(setup)
        restore_signals()
        kernel_process.close_range(3, kernel_process.ALL_DESCRIPTORS, kernel_process.CLOSE_RANGE_CLOEXEC)
        keep = [*range(3, 3 + self._options.preserve_fds), self._wait_fd]
        if self._proc_fd >= 0:
            keep.append(self._proc_fd)
        for fd in keep:
            os.set_inheritable(fd, True)
        args = [os.fsencode(entry) for entry in self._process["args"]]
        trampoline.execute(self._image_fd, setup.program, args, self._env)

    def _wait_and_run_hooks(self, setup: Setup) -> None:
        """The startContainer hooks run after `start` was asked for and before the program: here, not in the image.

        The fifo stays open until the image is executed: `start` waits for that, and for the hooks with it.
        """
        setup.talk.close()
        setup.link = None
        if not os.read(setup.fds["fifo"], 1):
            raise OSError(5, "the fifo has ended")
        try:
            run_hooks(setup.spec.get("hooks") or {}, "startContainer", setup.state)
        except Exception as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
