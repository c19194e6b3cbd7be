"""The devices of a container: the default ones, those of linux.devices, and the links of /dev.

All by descriptor, /dev itself first: a link in its place would let an image have nodes made on the host
(CVE-2026-41579). In a user namespace mknod(2) is not allowed: the host's nodes are bound instead, verified.
OCI runtime-spec config-linux.md#default-devices.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidConfig
from hutch.linux import mount as kernel
from hutch.runtime.rootfs_targets import clean, open_fixed
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import LinuxDevice, Spec

_DEFAULTS = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
)  # fmt: skip
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Node:
    """One device node to make.

    Attributes:
        path: in the container, absolute.
        mode: kind and permission bits.
        device: st_rdev.
        uid, gid: its owner.
    """

    __slots__ = ("device", "gid", "mode", "path", "uid")

    def __init__(self, path: str, mode: int, device: int, uid: int, gid: int) -> None:
        self.path = path
        self.mode = mode
        self.device = device
        self.uid = uid
        self.gid = gid

    @classmethod
    def of(cls, device: LinuxDevice) -> Node:
        """The node of one entry of linux.devices."""
        kind = _KINDS[device["type"]]
        number = 0 if kind == stat.S_IFIFO else os.makedev(device.get("major", 0), device.get("minor", 0))
        mode = kind | stat.S_IMODE(device.get("fileMode", 0o666))
        return cls(clean(device["path"]), mode, number, device.get("uid", 0), device.get("gid", 0))

    def matches(self, found: os.stat_result) -> bool:
        """Whether this is the device, whoever owns it."""
        return stat.S_IFMT(found.st_mode) == stat.S_IFMT(self.mode) and found.st_rdev == self.device


def wants_devices(spec: Spec) -> bool:
    """Whether /dev is ours to fill: not when the host's is bound there."""
    return not any(
        clean(entry["destination"]) == "/dev"
        and (entry.get("type") == "bind" or any(option in ("bind", "rbind") for option in entry.get("options") or []))
        for entry in spec.get("mounts") or []
    )


def steps(spec: Spec, *, bind: bool, early: bool) -> tuple[list[Step], list[Step]]:
    """The steps that fill /dev.

    Args:
        spec: the configuration.
        bind: bind the host's nodes instead of making them.
        early: copy them while the host's rights are at hand.

    Returns:
        (before namespaces are made, in the container's mount namespace).
    """
    if not wants_devices(spec):
        return [], []
    wanted = {
        f"/dev/{name}": Node(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(a, b), 0, 0) for name, a, b in _DEFAULTS
    }
    for device in (spec.get("linux") or {}).get("devices") or []:
        node = Node.of(device)
        if node.path != "/dev/ptmx":  # the container's own, a link
            wanted[node.path] = node
    nodes = list(wanted.values())
    first = [_clone(node) for node in nodes if bind and early and not stat.S_ISFIFO(node.mode)]
    then = [_node(node, bind=bind) for node in nodes]
    then += [_link(name, target) for name, target in _LINKS]
    if os.path.exists("/proc/kcore"):
        then.append(_link("core", "/proc/kcore"))
    then.append(
        Step("link /dev/ptmx", 'symlinkat("pts/ptmx", dev, "ptmx")', _ptmx, command="ln -sf pts/ptmx /dev/ptmx")
    )
    return first, then


def _text(node: Node) -> str:
    kind = "p" if stat.S_ISFIFO(node.mode) else "b" if stat.S_ISBLK(node.mode) else "c"
    return f"{kind} {os.major(node.device)} {os.minor(node.device)}"


def _node(node: Node, *, bind: bool) -> Step:
    title = f"create device {node.path}"
    if bind and not stat.S_ISFIFO(node.mode):
        call = f'open_tree("{node.path}", OPEN_TREE_CLONE); move_mount(rootfs:{node.path})'
        shell = f'touch "$ROOTFS{node.path}"; mount --bind {node.path} "$ROOTFS{node.path}"'
        return Step(title, call, lambda setup: _bind(setup, node), command=shell)
    call = f"mknodat(rootfs:{node.path}, {stat.S_IMODE(node.mode):#o}, {_text(node)})"
    shell = f'mknod -m {stat.S_IMODE(node.mode):o} "$ROOTFS{node.path}" {_text(node)}'
    return Step(title, call, lambda setup: _make(setup, node), command=shell)


def _parent(setup: Setup, path: str) -> tuple[int, str]:
    """The directory of a node, made if missing; (descriptor, name)."""
    head, _, name = path.rpartition("/")
    if not name:
        raise InvalidConfig(f"create device {path}: not the path of a device")
    if head == "/dev":
        return open_fixed(setup.inside, "dev"), name
    if head.startswith("/dev/"):
        os.close(open_fixed(setup.inside, "dev"))
    return setup.inside.mkdirs(head), name


def _make(setup: Setup, node: Node) -> None:
    parent_fd, name = _parent(setup, node.path)
    try:
        try:
            os.mknod(name, node.mode, node.device, dir_fd=parent_fd)
        except FileExistsError:
            if not node.matches(os.stat(name, dir_fd=parent_fd, follow_symlinks=False)):
                raise
            return
        if node.uid or node.gid:
            os.chown(name, node.uid, node.gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _clone(node: Node) -> Step:
    def action(setup: Setup) -> None:
        setup.mounts[f"device:{node.path}"] = _clone_host(node)

    return Step(f"copy device {node.path}", f'open_tree("{node.path}", OPEN_TREE_CLONE)', action)


def _clone_host(node: Node) -> int:
    fd = os.open(node.path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not node.matches(os.fstat(fd)):
            raise OSError(errno.ENODEV, f"the host's is another device than {_text(node)}", node.path)
        return kernel.open_tree(fd, "", kernel.OPEN_TREE_CLONE)
    finally:
        os.close(fd)


def _bind(setup: Setup, node: Node) -> None:
    mount_fd = setup.mounts.pop(f"device:{node.path}", -1)
    if mount_fd < 0:
        mount_fd = _clone_host(node)
    try:
        _attach(mount_fd, *_parent(setup, node.path))
    finally:
        os.close(mount_fd)


def _attach(mount_fd: int, parent_fd: int, name: str) -> None:
    """Attach a mount of a file at `name`, made if missing; closes `parent_fd`."""
    try:
        target_fd = _file(parent_fd, name)
    finally:
        os.close(parent_fd)
    try:
        kernel.move_mount(mount_fd, "", target_fd, "")
    finally:
        os.close(target_fd)


def _file(parent_fd: int, name: str) -> int:
    """Something to mount on that is no directory and no link; O_PATH."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o666, dir_fd=parent_fd))
    except FileExistsError:
        pass
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    if not (stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISCHR(os.fstat(fd).st_mode)):
        os.close(fd)
        raise OSError(errno.EEXIST, "neither a file nor a device", name)
    return fd


def bind_file(setup: Setup, name: str, source_fd: int) -> None:
    """Mount the file `source_fd` is of on /dev/`name`."""
    mount_fd = kernel.open_tree(source_fd, "", kernel.OPEN_TREE_CLONE)
    try:
        _attach(mount_fd, open_fixed(setup.inside, "dev"), name)
    finally:
        os.close(mount_fd)


def _link(name: str, target: str) -> Step:
    def action(setup: Setup) -> None:
        dev_fd = open_fixed(setup.inside, "dev")
        try:
            os.symlink(target, name, dir_fd=dev_fd)
        except FileExistsError:
            pass  # runc leaves it as well: it is the image's own, and inside
        finally:
            os.close(dev_fd)

    return Step(
        f"link /dev/{name}", f'symlinkat("{target}", dev, "{name}")', action, command=f"ln -s {target} /dev/{name}"
    )


def _ptmx(setup: Setup) -> None:
    """The multiplexer of the container's own devpts; a node in its place would be the host's."""
    dev_fd = open_fixed(setup.inside, "dev")
    try:
        try:
            os.unlink("ptmx", dir_fd=dev_fd)
        except FileNotFoundError:
            pass
        os.symlink("pts/ptmx", "ptmx", dir_fd=dev_fd)
    finally:
        os.close(dev_fd)
