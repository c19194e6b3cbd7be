"""The mounts of a configuration, each a step: made detached, finished, then attached to a descriptor.

    a new file system   fsopen, fsconfig…, fsmount            ┐
    a bind mount        open_tree(CLONE), mount_setattr       ┴─▶ move_mount onto the target's descriptor

A caller with the host's rights copies the sources of bind mounts before any namespace is made: only he may reach them,
and only he may map their ids. An ordinary user does so in his own mount namespace.
mount(2) is used only for what the new interface cannot say: long parameters, and two flags.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import mount as kernel
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE
from hutch.linux.paths import Root
from hutch.runtime.rootfs_copyup import copy_up
from hutch.runtime.rootfs_options import MountOptions, attribute_names, mount_data
from hutch.runtime.rootfs_targets import check_target, clean, open_target
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Mount

_RO = kernel.MOUNT_ATTR_RDONLY
_ST_RDONLY = 1
# File systems without a device, or with one superblock for all: "ro" is for the mount alone.
_VIRTUAL = frozenset(
    ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "securityfs", "debugfs", "tracefs",
     "bpf", "pstore", "efivarfs", "configfs", "binfmt_misc", "hugetlbfs", "ramfs", "fusectl")
)  # fmt: skip
# SELinux knows these by their contents, or they have one instance for many: a message queue's has its directory's own.
_LABELLED_BY_POLICY = frozenset(("proc", "sysfs", "mqueue", "cgroup", "cgroup2"))


class Request:
    """One entry of `mounts`, understood.

    Attributes:
        mount: the entry.
        options: its options, sorted.
        source: for a bind mount the absolute host path.
        subpath: of a bind mount, what to mount instead of the source, in it; see `clone`.
        key: names the detached mount in Setup.mounts.
        directory_label: SELinux context for the new file system's own directory.
    """

    __slots__ = ("directory_label", "fstype", "key", "mount", "options", "source", "subpath")

    def __init__(self, mount: Mount, key: str, bundle: str, label: str = "") -> None:
        """`label` is linux.mountLabel: the SELinux context of every file system that is made here."""
        self.mount = mount
        self.key = key
        self.directory_label = ""
        self.options = MountOptions(mount.get("options") or [], f"{key}.options")
        self.fstype = mount.get("type") or ""
        if self.fstype in ("bind", "none", ""):
            # "bind" as a type is what others' configurations use; without a type there is only binding.
            self.options.bind = self.options.bind or not self.options.remount
        if self.fstype == "rbind":
            self.options.bind = self.options.recursive = True
        self.source = mount.get("source") or ""
        if self.options.bind:
            if not self.source:
                raise InvalidConfig(f"{key}.source: required for a bind mount")
            self.source = os.path.join(bundle, self.source)
        elif label and self.fstype == "mqueue":
            self.directory_label = label
        elif label and not self.options.remount and self.fstype not in _LABELLED_BY_POLICY:
            self.options.set_context(label)
        given = [entry for entry in self.options.data if self.options.bind and entry.startswith("subpath=")]
        self.subpath = given[-1].partition("=")[2] if given else ""

    @property
    def destination(self) -> str:
        """Where it goes; relative paths count from the root."""
        destination = self.mount["destination"]
        return destination if destination.startswith("/") else f"/{destination}"

    @property
    def title(self) -> str:
        """What errors begin with."""
        what = self._origin() if self.options.bind else self.fstype
        return f"mount {what} at {self.destination}"

    def _origin(self) -> str:
        return f"{self.source}/{self.subpath}" if self.subpath else self.source

    def attach_text(self) -> str:
        """The calls as text."""
        options = self.options
        where = f"rootfs:{self.destination}"
        if options.remount:
            return f"mount_setattr({where}, {_attributes(options)})"
        if options.bind:
            flags = "OPEN_TREE_CLONE" + ("|AT_RECURSIVE" if options.recursive else "")
            made = [f'open_tree("{self.source}", {flags})']
            if self.subpath:
                made = [f'openat2("{self.source}", "{self.subpath}", RESOLVE_IN_ROOT)', f'open_tree(…, "", {flags})']
            changed = _attributes(options)
            if changed:
                made.append(f"mount_setattr({changed})")
            if options.idmap or self.mount.get("uidMappings"):
                made.append("mount_setattr(MOUNT_ATTR_IDMAP)")
        else:
            made = [f'fsopen("{self.fstype}")']
            made += [f"fsconfig({entry})" for entry in (*options.super_flags, *options.data)]
            made.append(f"fsmount({attribute_names(options.attr_set | options.rec_set)})")
        return "; ".join([*made, f"move_mount({where})"])

    def shell_text(self) -> str:
        """The same by mount(8)."""
        options = self.options
        given = (option for option in self.mount.get("options") or [] if not option.startswith("subpath="))
        names = ",".join(given) or "defaults"
        place = f'"$ROOTFS{self.destination}"'
        if options.bind:
            return f"mount -o {names} {self._origin()} {place}"
        return f"mount -t {self.fstype or 'none'} -o {names} {self.source or self.fstype} {place}"


def _attributes(options: MountOptions) -> str:
    parts = []
    for name, value in (("set", options.attr_set | options.rec_set), ("clear", options.attr_clr | options.rec_clr)):
        if text := attribute_names(value):
            parts.append(f"{name}={text}")
    return " ".join(parts)


def clone_step(request: Request) -> Step:
    """Copy the source of a bind mount while the host's rights are at hand."""

    def action(setup: Setup) -> None:
        setup.mounts[request.key] = clone(setup, request)

    flags = "OPEN_TREE_CLONE" + ("|AT_RECURSIVE" if request.options.recursive else "")
    return Step(request.title, f'open_tree("{request.source}", {flags})', action)


def clone(setup: Setup, request: Request) -> int:
    """A detached copy of the source, with its attributes and ids; the caller's to close.

    A subpath is looked up with the source as the root: its links cannot lead out of it (CVE-2017-1002101).
    """
    options = request.options
    flags = kernel.OPEN_TREE_CLONE | (AT_RECURSIVE if options.recursive else 0)
    if request.subpath:
        with Root.at(request.source) as root:
            found_fd = root.open(request.subpath, os.O_PATH)
        try:
            fd = kernel.open_tree(found_fd, "", flags)
        finally:
            os.close(found_fd)
    else:
        fd = kernel.open_tree(AT_FDCWD, request.source, flags)
    try:
        if setup.privileged and not setup.keeps_peers:
            # Copied from the host's namespace it is still a peer of its mount there.
            kernel.mount_setattr(fd, "", AT_RECURSIVE, propagation=kernel.MS_SLAVE)
        userns_fd = setup.fds.get(f"userns:{request.key}", -1)
        if userns_fd >= 0:
            flags = AT_RECURSIVE if options.recursive_idmap or (options.recursive and not options.idmap) else 0
            map_ids(fd, flags, userns_fd, request.title)
        change(fd, options)
    except BaseException:
        os.close(fd)
        raise
    return fd


def map_ids(fd: int, flags: int, userns_fd: int, title: str) -> None:
    """Show the ids of a detached mount through a user namespace's maps; `title` begins the error."""
    try:
        kernel.mount_setattr(fd, "", flags, userns_fd=userns_fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NotSupported(f"{title}: the file system cannot map ids") from None
        raise


def change(fd: int, options: MountOptions) -> None:
    """Set and clear the attributes of a mount and of its tree."""
    if options.attr_set | options.attr_clr:
        kernel.mount_setattr(fd, "", attr_set=options.attr_set, attr_clr=options.attr_clr)
    if options.rec_set | options.rec_clr:
        kernel.mount_setattr(fd, "", AT_RECURSIVE, attr_set=options.rec_set, attr_clr=options.rec_clr)


def mount_step(request: Request) -> Step:
    """Make the mount and attach it in the container's root."""

    def action(setup: Setup) -> None:
        if request.options.remount:
            _remount(setup, request)
        else:
            perform(setup, request)

    return Step(request.title, request.attach_text(), action, command=request.shell_text())


def perform(setup: Setup, request: Request) -> None:
    """Make one mount and attach it."""
    options = request.options
    root = setup.inside
    if options.bind:
        mount_fd = setup.mounts.pop(request.key, -1)
        if mount_fd < 0:
            mount_fd = clone(setup, request)
        directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
        target_fd = _open(root, request, directory=directory, mount_fd=mount_fd)
    else:
        target_fd = open_target(root, request.destination, directory=True)
        mount_fd = -1
    try:
        if mount_fd < 0:
            mount_fd = _make(setup, request, target_fd)
            if mount_fd < 0:
                return
        check_target(setup.proc, root, target_fd, mount_fd, request.destination)
        kernel.move_mount(mount_fd, "", target_fd, "")
        finish(setup, request, mount_fd)
    finally:
        os.close(target_fd)
        if mount_fd >= 0:
            os.close(mount_fd)


def _open(root: Root, request: Request, *, directory: bool, mount_fd: int) -> int:
    try:
        return open_target(root, request.destination, directory=directory)
    except BaseException:
        os.close(mount_fd)
        raise


def finish(setup: Setup, request: Request, mount_fd: int) -> None:
    """What comes after attaching: propagation; read-only now or, where more goes inside first, at the end."""
    for propagation, whole in request.options.propagation:
        kernel.mount_setattr(mount_fd, "", AT_RECURSIVE if whole else 0, propagation=propagation)
    if not request.options.read_only:
        return
    if _is_late(request):
        setup.late_read_only.append(os.dup(mount_fd))
    else:
        verify_read_only(mount_fd, request.destination)


def verify_read_only(fd: int, path: str) -> None:
    """OSError unless the mount is read-only: never believe a flag that was only asked for (CVE-2026-115521)."""
    if not os.fstatvfs(fd).f_flag & _ST_RDONLY:
        raise OSError(errno.EPERM, "the mount is still writable", path)


def _is_late(request: Request) -> bool:
    """A tmpfs, and whatever is /dev, gets directories and nodes before it becomes read-only."""
    return not request.options.bind and (request.fstype == "tmpfs" or clean(request.destination) == "/dev")


def _make(setup: Setup, request: Request, target_fd: int) -> int:
    """A new file system, detached; -1 if mount(2) had to attach it itself."""
    options = request.options
    if request.fstype in ("cgroup", "cgroup2"):
        raise AssertionError("cgroup mounts have a module of their own")
    data = list(options.data)
    if request.fstype == "tmpfs" and not any(entry.startswith("mode=") for entry in data):
        data.append(f"mode={stat.S_IMODE(os.fstat(target_fd).st_mode):o}")  # as the directory that it hides
    attributes = options.attr_set | options.rec_set
    if _is_late(request):
        attributes &= ~_RO
    if options.needs_legacy():
        _mount_legacy(setup, request, target_fd, data, attributes)
        return -1
    try:
        fd = new_mount(request.fstype, request.source, [*options.super_flags, *data], attributes)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY) or request.fstype != "sysfs":
            raise
        # sysfs shows a network namespace, and only its owner may mount it: the host's then, recursively.
        fd = kernel.open_tree(AT_FDCWD, "/sys", kernel.OPEN_TREE_CLONE | AT_RECURSIVE)
        kernel.mount_setattr(fd, "", AT_RECURSIVE, attr_set=attributes & ~kernel.MOUNT_ATTR__ATIME)
    if options.copy_up:
        copy_up(setup.proc, target_fd, fd)
    if request.directory_label:
        _label_directory(setup, fd, request.directory_label)
    return fd


def _label_directory(setup: Setup, mount_fd: int, label: str) -> None:
    """Label the directory of a new file system, if the policy gives its files labels of their own."""
    fd = setup.proc.reopen(mount_fd, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.setxattr(fd, "security.selinux", label.encode())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    finally:
        os.close(fd)


def new_mount(fstype: str, source: str, parameters: list[str], attributes: int) -> int:
    """A detached mount of a new file system instance; the caller's to close.

    Raises:
        NotSupported: the kernel has no such file system.
        OSError: with what the kernel says about the parameters.
    """
    try:
        context_fd = kernel.fsopen(fstype)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise NotSupported(f"the kernel has no {fstype} file system") from None
        raise
    try:
        kernel.fsconfig_string(context_fd, "source", source or fstype)
        if attributes & _RO and fstype not in _VIRTUAL:
            kernel.fsconfig_flag(context_fd, "ro")
        for parameter in parameters:
            key, equals, value = parameter.partition("=")
            if equals:
                # Quotes are mount(2)'s, for what has commas; those who write a configuration put them round a context.
                kernel.fsconfig_string(context_fd, key, value.strip('"') if key.endswith("context") else value)
            else:
                kernel.fsconfig_flag(context_fd, key)
        kernel.fsconfig_create(context_fd)
        return kernel.fsmount(context_fd, attributes)
    finally:
        os.close(context_fd)


def _mount_legacy(setup: Setup, request: Request, target_fd: int, data: list[str], attributes: int) -> None:
    """mount(2) on the descriptor's own magic link, which nobody can swap; attributes afterwards."""
    flags = request.options.ms_flags()
    if attributes & _RO:
        flags |= kernel.MS_RDONLY
    source = request.source or request.fstype
    kernel.mount(source, f"/proc/self/fd/{target_fd}", request.fstype, flags, mount_data(data) or None)
    mount_fd = setup.inside.open(request.destination, os.O_PATH)
    try:
        kernel.mount_setattr(mount_fd, "", attr_set=attributes, attr_clr=kernel.MOUNT_ATTR__ATIME)
        finish(setup, request, mount_fd)
    finally:
        os.close(mount_fd)


def _remount(setup: Setup, request: Request) -> None:
    """Change what is mounted there: the mount's attributes, and the file system's parameters if any are given."""
    options = request.options
    fd = setup.inside.open(request.destination, os.O_PATH)
    try:
        parameters = [*options.super_flags, *options.data]
        if parameters and not options.bind:
            context_fd = kernel.fspick(fd, "")
            try:
                for parameter in parameters:
                    key, equals, value = parameter.partition("=")
                    if equals:
                        kernel.fsconfig_string(context_fd, key, value)
                    else:
                        kernel.fsconfig_flag(context_fd, key)
                kernel.fsconfig_reconfigure(context_fd)
            finally:
                os.close(context_fd)
        change(fd, options)
        finish(setup, request, fd)
    finally:
        os.close(fd)
