"""The root file system: attached, entered by pivot_root, and finished.

Between `attach` and `pivot` the container's mounts are made on it (rootfs_mounts.py) and its devices (devices.py).
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.linux import mount as kernel
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE
from hutch.linux.mountinfo import mountinfo
from hutch.linux.paths import Root
from hutch.runtime.rootfs_mounts import new_mount, verify_read_only
from hutch.runtime.rootfs_targets import path_in_root
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Spec

_RO, _NOSUID, _NODEV, _NOEXEC = (
    kernel.MOUNT_ATTR_RDONLY,
    kernel.MOUNT_ATTR_NOSUID,
    kernel.MOUNT_ATTR_NODEV,
    kernel.MOUNT_ATTR_NOEXEC,
)
_NULL = os.makedev(1, 3)
_PROPAGATIONS = {
    "private": kernel.MS_PRIVATE,
    "shared": kernel.MS_SHARED,
    "slave": kernel.MS_SLAVE,
    "unbindable": kernel.MS_UNBINDABLE,
}


def propagation_of(spec: Spec) -> str:
    """linux.rootfsPropagation without its "r"; "" when it is not given."""
    name: str = (spec.get("linux") or {}).get("rootfsPropagation") or ""
    return name[1:] if name[1:] in _PROPAGATIONS else name


# --- before pivot_root -------------------------------------------------------------------------------------------


def isolate(spec: Spec) -> Step:
    """Cut our mount namespace off the host's: what is mounted here must not appear there."""
    private = propagation_of(spec) in ("private", "unbindable")
    flag, word = (kernel.MS_PRIVATE, "PRIVATE") if private else (kernel.MS_SLAVE, "SLAVE")

    def action(_: Setup) -> None:
        kernel.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=flag)

    call = f'mount_setattr("/", AT_RECURSIVE, propagation=MS_{word})'
    return Step("cut mount propagation", call, action, command=f"mount --make-r{word.lower()} /")


def clone_root() -> Step:
    """Copy the root file system's mount while the host's rights are at hand."""

    def action(setup: Setup) -> None:
        setup.mounts["root"] = _clone_root(setup)

    return Step("copy the root file system's mount", "open_tree(ROOTFS, OPEN_TREE_CLONE|AT_RECURSIVE)", action)


def _clone_root(setup: Setup) -> int:
    fd = kernel.open_tree(AT_FDCWD, setup.rootfs, kernel.OPEN_TREE_CLONE | AT_RECURSIVE)
    if setup.privileged:
        # The root itself never stays a peer of the host's mount: pivot_root(".", ".") refuses a shared one.
        kernel.mount_setattr(fd, "", 0 if setup.keeps_peers else AT_RECURSIVE, propagation=kernel.MS_SLAVE)
    return fd


def attach() -> Step:
    """Mount the root file system on itself: pivot_root wants a mount point."""

    def action(setup: Setup) -> None:
        fd = setup.mounts.pop("root", -1)
        if fd < 0:
            fd = _clone_root(setup)
        attach_root(setup, fd)

    call = "open_tree(ROOTFS, OPEN_TREE_CLONE|AT_RECURSIVE); move_mount(ROOTFS)"
    return Step("attach root file system", call, action, command="mount --rbind $ROOTFS $ROOTFS")


def attach_root(setup: Setup, mount_fd: int) -> None:
    """Attach a detached mount as the container's root; takes over `mount_fd`, which becomes Setup.root."""
    try:
        if not stat.S_ISDIR(os.fstat(mount_fd).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), setup.rootfs)
        place_fd = setup.fds.get("rootfs", -1)
        if place_fd < 0 or setup.privileged:
            place_fd = _place(setup)
        kernel.move_mount(mount_fd, "", place_fd, "")
        os.close(place_fd)
    except BaseException:
        os.close(mount_fd)
        raise
    setup.root = Root(mount_fd)


def _place(setup: Setup) -> int:
    """Where to attach the root: at root.path, or, where its new ids may not walk the engine's 0700 directories, on "/".

    The namespace is ours alone and what is below goes away with pivot_root, so any directory will do.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(setup.rootfs, flags)
    except PermissionError:
        return os.open("/", flags)


# --- pivot_root --------------------------------------------------------------------------------------------------


def pivot(*, no_pivot: bool) -> Step:
    """Make the container's root the root, and let go of the host's."""
    if no_pivot:
        call = 'fchdir(root); mount(".", "/", MS_MOVE); chroot(".")'
        return Step("move root file system to /", call, _move_root, command="mount --move . /; chroot .")
    call = 'fchdir(root); pivot_root(".", "."); umount2(".", MNT_DETACH); chdir("/")'
    return Step("pivot_root", call, _pivot_root, command="cd $ROOTFS; pivot_root . .; umount -l .")


def _pivot_root(setup: Setup) -> None:
    """The old root lands on top of the new one, where "." still finds it (pivot_root(2), notes)."""
    os.fchdir(setup.inside.fd)
    kernel.pivot_root(".", ".")
    kernel.umount2(".", kernel.MNT_DETACH)
    os.chdir("/")


def _move_root(setup: Setup) -> None:
    """For an initramfs, whose root cannot be pivoted. What else is mounted on the host is taken away first.

    Chroot alone is no boundary, and a process that broke out of it would find the host's mounts.
    """
    here = os.readlink(setup.proc.self_path(setup.inside.fd), dir_fd=setup.proc.fd)
    for entry in reversed(mountinfo()):
        point = entry.mount_point
        ours = point == here or point.startswith(here.rstrip("/") + "/") or here.startswith(point.rstrip("/") + "/")
        if not ours and point != "/":
            try:
                kernel.umount2(point, kernel.MNT_DETACH)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM):  # locked together with its parent
                    raise
    os.fchdir(setup.inside.fd)
    kernel.mount(".", "/", None, kernel.MS_MOVE)
    os.chroot(".")
    os.chdir("/")


# --- after it ----------------------------------------------------------------------------------------------------


class _Covers:
    """What masked paths are covered with: one empty read-only tmpfs, and the host's own /dev/null.

    Only an attached mount can be copied on older kernels: the first cover is the mount that was made, and the others
    are copies of it, once it is attached.
    """

    __slots__ = ("directory_fd", "label", "null_fd", "null_used")

    def __init__(self, label: str) -> None:
        self.label = [f"context={label}"] if label else []
        self.directory_fd = self.null_fd = -1
        self.null_used = False

    def directory(self) -> int:
        """A detached empty directory; the caller's to close."""
        if self.directory_fd >= 0:
            return kernel.open_tree(self.directory_fd, "", kernel.OPEN_TREE_CLONE)
        self.directory_fd = new_mount(
            "tmpfs", "tmpfs", ["size=0", "nr_inodes=1", "mode=755", *self.label], _RO | _NOSUID | _NODEV | _NOEXEC
        )
        return os.dup(self.directory_fd)

    def null(self) -> int:
        """A detached null device; the caller's to close."""
        if self.null_fd < 0:
            raise OSError(errno.ENXIO, "the null device was not prepared")
        if self.null_used:
            return kernel.open_tree(self.null_fd, "", kernel.OPEN_TREE_CLONE)
        self.null_used = True
        return os.dup(self.null_fd)


def masks(spec: Spec) -> tuple[list[Step], list[Step]]:
    """The steps for linux.maskedPaths: (before pivot_root, after it)."""
    linux = spec.get("linux") or {}
    paths = linux.get("maskedPaths") or []
    if not paths:
        return [], []
    covers = _Covers(linux.get("mountLabel") or "")

    def prepare(_: Setup) -> None:
        # Never the container's /dev/null, which may be anything (CVE-2025-31133): the host's, verified.
        fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
            raise OSError(errno.ENODEV, "not the null device", "/dev/null")
        covers.null_fd = kernel.open_tree(fd, "", kernel.OPEN_TREE_CLONE)
        os.close(fd)

    first = Step("prepare the null device for masks", 'open_tree("/dev/null", OPEN_TREE_CLONE)', prepare)
    return [first], [_mask(path, covers) for path in paths]


def _mask(path: str, covers: _Covers) -> Step:
    def action(setup: Setup) -> None:
        try:
            target_fd = setup.inside.open(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        cover_fd = -1
        try:
            directory = stat.S_ISDIR(os.fstat(target_fd).st_mode)
            cover_fd = covers.directory() if directory else covers.null()
            kernel.move_mount(cover_fd, "", target_fd, "")
            if not directory and os.fstat(cover_fd).st_rdev != _NULL:
                raise OSError(errno.ENODEV, "the mask is not the null device", path)
        finally:
            os.close(target_fd)
            if cover_fd >= 0:
                os.close(cover_fd)

    call = f"open_tree(cover, OPEN_TREE_CLONE); move_mount({path})"
    return Step(f"mask {path}", call, action, command=f"mount --bind /dev/null {path}")


def read_only_paths(spec: Spec) -> list[Step]:
    """The steps for linux.readonlyPaths."""
    return [_read_only_path(path) for path in (spec.get("linux") or {}).get("readonlyPaths") or []]


def _read_only_path(path: str) -> Step:
    def action(setup: Setup) -> None:
        try:
            target_fd = setup.inside.open(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        copy_fd = -1
        try:
            copy_fd = kernel.open_tree(target_fd, "", kernel.OPEN_TREE_CLONE | AT_RECURSIVE)
            kernel.mount_setattr(copy_fd, "", AT_RECURSIVE, attr_set=_RO)
            kernel.move_mount(copy_fd, "", target_fd, "")
            verify_read_only(copy_fd, path)
        finally:
            os.close(target_fd)
            if copy_fd >= 0:
                os.close(copy_fd)

    call = f"open_tree({path}, OPEN_TREE_CLONE|AT_RECURSIVE); mount_setattr(ro); move_mount({path})"
    return Step(f"make {path} read-only", call, action, command=f"mount --rbind -o ro {path} {path}")


def sysctls(spec: Spec) -> list[Step]:
    """The steps for linux.sysctl, through a procfs that the container cannot cover (CVE-2025-52881)."""
    from hutch.runtime.config import sysctl_name

    def step(key: str, value: str) -> Step:
        path = "sys/" + sysctl_name(key).replace("/", "\0").replace(".", "/").replace("\0", ".")
        return Step(
            f"set sysctl {key}",
            f'write("/proc/{path}", "{value}")',
            lambda setup: setup.proc.write(path, value),
            command=f"sysctl -w {key}={value}",
        )

    return [step(key, value) for key, value in ((spec.get("linux") or {}).get("sysctl") or {}).items()]


def finish_read_only() -> Step:
    """Make read-only what had to stay writable while things were put in it."""

    def action(setup: Setup) -> None:
        for fd in setup.late_read_only:
            kernel.mount_setattr(fd, "", attr_set=_RO)
            verify_read_only(fd, path_in_root(setup.proc, setup.inside, fd))
            os.close(fd)
        setup.late_read_only.clear()

    return Step("make finished mounts read-only", "mount_setattr(ro) of /dev and tmpfs mounts that want it", action)


def finish_root(spec: Spec) -> list[Step]:
    """The root's own propagation, and read-only if it shall be."""
    steps = []
    name = propagation_of(spec)
    if name:
        flag = _PROPAGATIONS[name]

        def propagate(setup: Setup) -> None:
            kernel.mount_setattr(setup.inside.fd, "", propagation=flag)

        call = f'mount_setattr("/", propagation=MS_{name.upper()})'
        steps.append(Step(f"make / {name}", call, propagate, command=f"mount --make-{name} /"))
    if spec["root"].get("readonly"):

        def read_only(setup: Setup) -> None:
            kernel.mount_setattr(setup.inside.fd, "", attr_set=_RO)
            verify_read_only(setup.inside.fd, "/")

        steps.append(
            Step("make / read-only", 'mount_setattr("/", ro)', read_only, command="mount -o remount,bind,ro /")
        )
    return steps
