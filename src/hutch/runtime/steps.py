"""A step of making a container: one operation of the kernel, with how it reads and how it is done.

A plan (plan.py) is a list of these. `--explain` prints them as they run and a dry run prints the same list; a failing
step gives the error its first words. What steps share while they run is the Setup.
"""

from __future__ import annotations

from hutch.runtime import handshake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.linux.paths import Root
    from hutch.linux.proc import Proc
    from hutch.runtime.cgroups.manager import CgroupManager
    from hutch.spec.runtime import Spec, State

    Explain = Callable[[str, "Step"], None]
    """Told of each step as it is about to run: who runs it ("parent", "child", "init") and what it is."""

PARENT, CHILD, INIT = "parent", "child", "init"


class Step:
    """One operation.

    Attributes:
        title: what an error begins with, as ``mount proc at /proc``.
    """

    __slots__ = ("_action", "_call", "_shell", "title")

    def __init__(self, title: str, call: str, action: Callable[[Setup], None], *, command: str | None = None) -> None:
        """Args are the texts below and what does it, given the Setup."""
        self.title = title
        self._call = call
        self._shell = command
        self._action = action

    def describe(self) -> str:
        """The system calls it makes, with their arguments."""
        return self._call

    def shell(self) -> str | None:
        """A command that does the same, if there is one."""
        return self._shell

    def run(self, setup: Setup) -> None:
        """Do it; OSError or a HutchError when it fails."""
        self._action(setup)

    def __repr__(self) -> str:
        return f"<Step {self.title}>"


class Setup:
    """What the steps of one creation share. Forked with the processes: each has its own copy.

    Attributes:
        spec: the configuration, checked.
        container_id, bundle: as create was given them; `bundle` is absolute.
        rootfs: absolute host path of the root file system.
        proc: a procfs that the container cannot cover.
        link: init's and child's end of the handshake; None in the parent.
        root: the container's root; set when it is attached, and anew after pivot_root.
        fds: named descriptors: ``ns:network``, ``fifo``, ``console-socket``, ``rootfs``, ``userns:0`` ...
        mounts: detached mounts made before the user namespace was entered, by their key in the plan.
        addresses: of network devices to move, by their new names.
        deferred: descriptors of namespaces to join once the user namespace is.
        keep_fds: what the program shall find open besides 0, 1 and 2.
        cgroup: the parent's; None in a dry run.
        cgroup_by_parent: whether the parent must still move the child into its cgroup.
        cgroups_v1: directories of cgroup v1 that the child moves itself into.
        child_pid, init_pid: in the parent; 0 until known.
        privileged: whether the caller has the host's capabilities (real root).
        keeps_peers: mounts stay in the host's peer groups (rootfsPropagation shared).
        late_read_only: mounts to make read-only when everything is in them.
        filter: (seccomp program, flags) for the sealed image to load; empty when there is none, or it is loaded.
        label: (attribute file, label) for the sealed image to set.
        terminal_fd: our end of the new terminal, until it is sent away; -1.
        program: resolved path of args[0] in the container.
        no_pivot: MS_MOVE and chroot instead of pivot_root (an initramfs has no parent to pivot to).
        state: for hooks; `pid` is set once known.
    """

    __slots__ = (
        "addresses",
        "bundle",
        "cgroup",
        "cgroup_by_parent",
        "cgroups_v1",
        "child_pid",
        "container_id",
        "deferred",
        "fds",
        "filter",
        "init_pid",
        "keep_fds",
        "keeps_peers",
        "label",
        "late_read_only",
        "link",
        "mounts",
        "no_pivot",
        "privileged",
        "proc",
        "program",
        "root",
        "rootfs",
        "spec",
        "state",
        "terminal_fd",
    )

    def __init__(self, spec: Spec, *, container_id: str, bundle: str, rootfs: str, proc: Proc, state: State) -> None:
        self.spec = spec
        self.container_id = container_id
        self.bundle = bundle
        self.rootfs = rootfs
        self.proc = proc
        self.state = state
        self.link: handshake.Child | None = None
        self.root: Root | None = None
        self.fds: dict[str, int] = {}
        self.mounts: dict[str, int] = {}
        self.addresses: dict[str, list[str]] = {}
        self.deferred: list[int] = []
        self.late_read_only: list[int] = []
        self.keep_fds: list[int] = []
        self.cgroup: CgroupManager | None = None
        self.cgroup_by_parent = True
        self.cgroups_v1: list[str] = []
        self.child_pid = self.init_pid = 0
        self.privileged = self.keeps_peers = False
        self.no_pivot = False
        self.program = b""
        self.terminal_fd = -1
        self.filter: tuple[bytes, int] = (b"", 0)
        self.label: tuple[str, str] = ("", "")

    @property
    def inside(self) -> Root:
        """The container's root, which is there from the step that attaches it on."""
        if self.root is None:
            raise AssertionError("the root file system is not attached yet")
        return self.root

    @property
    def talk(self) -> handshake.Child:
        """The handshake's end of child and init."""
        if self.link is None:
            raise AssertionError("the parent does not talk to itself")
        return self.link

    def warn(self, text: str) -> None:
        """Let the caller know of something that is not as it was asked for."""
        self.talk.send(handshake.WARNING, 0, text)
