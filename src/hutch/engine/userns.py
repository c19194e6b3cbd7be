"""Which user namespace a container gets, and the id maps of it.

root: a range of ids that no other container has (``auto``, the default), or none (``host``, and where something rules a
private range out). An ordinary user: always one, since nothing else lets it mount; id 0 inside is then the user, or
with ``keep-id`` the user keeps its own id.
"""

from __future__ import annotations

import os

from hutch.engine.idranges import SIZE
from hutch.engine.ids import keep_ids
from hutch.engine.record import Record
from hutch.errors import InvalidArgument, NotSupported
from hutch.linux.paths import filesystem_type, open_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.host import HostFacts
    from hutch.engine.options import RunOptions
    from hutch.spec.runtime import LinuxIDMapping

# ext4, xfs, btrfs, f2fs, erofs, squashfs, vfat: the magic numbers of file systems whose mounts can map ids.
_MAPPABLE = (0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xE0F5_E1E2, 0x7371_7368, 0x4D44)


class IdMaps(Record):
    """Id maps of a container; both empty when it has no user namespace of its own.

    Attributes:
        single: only one id is mapped, and the kernel lets nobody set groups.
        idmapped: files keep plain ids on disk, and mounts show them as the container's.
    """

    uids: tuple[LinuxIDMapping, ...] = ()
    gids: tuple[LinuxIDMapping, ...] = ()
    single: bool = False
    idmapped: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def root_owner(self) -> tuple[int, int] | None:
        """Host ids of the container's root, when they are not the caller's."""
        if not self.uids or os.geteuid() != 0:
            return None
        return self.uids[0]["hostID"], self.gids[0]["hostID"]

    def has_gid(self, gid: int) -> bool:
        """Whether the container has the group id."""
        return not self.gids or any(
            piece["containerID"] <= gid < piece["containerID"] + piece["size"] for piece in self.gids
        )


def id_maps(options: RunOptions, facts: HostFacts, take: Callable[[], int], *, root: str) -> IdMaps:
    """The id maps for a container of the caller.

    Args:
        options: userns, and what cannot be had together with it.
        facts: the host.
        take: takes a range of ids for the container and returns its first.
        root: the data root.

    Raises:
        NotSupported: the caller cannot have the kind of user namespace asked for.
        InvalidArgument: it contradicts what else was asked for.
    """
    mode = options.userns
    if not facts.rootless:
        if mode == "keep-id":
            raise InvalidArgument("--userns=keep-id: only for ordinary users")
        return _root_maps(options, take, root)
    if mode in ("host", "auto"):
        raise NotSupported(
            f"--userns={mode}: an ordinary user's containers need a user namespace of their own",
            hint="leave --userns out, or give keep-id",
        )
    check_available()
    from hutch.snapshot.idmap import id_map

    found = id_map()
    uids, gids = _mappings(found.uids), _mappings(found.gids)
    if mode == "keep-id":
        if found.single:
            raise NotSupported(
                "--userns=keep-id: needs subordinate ids", hint="add ranges to /etc/subuid and /etc/subgid"
            )
        uids, gids = keep_ids(facts.euid, uids), keep_ids(facts.egid, gids)
    return IdMaps(uids=tuple(uids), gids=tuple(gids), single=found.single)


def _root_maps(options: RunOptions, take: Callable[[], int], root: str) -> IdMaps:
    """The choice of root: a private range, unless something rules it out; said by name, that is an error."""
    if options.userns == "host" or (not options.userns and options.security.profile == "compat"):
        return IdMaps()
    against = _incompatible(options) or _foreign(options, root)
    if against and options.userns == "auto":
        raise InvalidArgument(f"conflicting options: {against} and --userns=auto")
    if against:
        # Who asks for a namespace or the privileges of the host has said so; another reason has to be told.
        said = against.startswith("--")
        return IdMaps(warnings=() if said else (f"no private ids for this container: {against}",))
    start = take()
    piece: LinuxIDMapping = {"containerID": 0, "hostID": start, "size": SIZE}
    return IdMaps(uids=(piece,), gids=(piece,), idmapped=True)


def _incompatible(options: RunOptions) -> str:
    for flag, mode in (("network", options.network), ("pid", options.pid), ("ipc", options.ipc)):
        if mode == "host" or mode.startswith("container:"):
            return f"--{flag}={mode}"
    if options.privileged:
        return "--privileged"
    if options.devices:
        return "--device"
    return "--rootfs without an overlay" if options.rootfs and not options.rootfs.endswith(":O") else ""


def _foreign(options: RunOptions, root: str) -> str:
    """A file system that cannot show other ids than it has, if the container needs one."""
    binds = [mount.source for mount in options.mounts if mount.kind == "bind"]
    if options.image == "@host":
        from hutch.snapshot.host import shown

        binds += shown(root)
    for path in (root, options.rootfs.removesuffix(":O") or root, *binds):
        try:
            fd = open_path(path)
        except OSError:
            continue  # whether it must be there is decided elsewhere
        try:
            if filesystem_type(fd) not in _MAPPABLE:
                return f"the file system of {path} cannot map ids"
        finally:
            os.close(fd)
    return ""


def _mappings(ranges: tuple[tuple[int, int, int], ...]) -> list[LinuxIDMapping]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in ranges]


def check_available(sysctls: str = "/proc/sys") -> None:
    """Say what is wrong before a child fails with EPERM or ENOSPC.

    Raises:
        NotSupported: a setting of the host forbids user namespaces.
    """
    for name in ("user/max_user_namespaces", "kernel/unprivileged_userns_clone"):
        path = f"{sysctls}/{name}"
        try:
            with open(path, "rb", buffering=0) as file:
                value = int(file.read(32))
        except (OSError, ValueError):
            continue
        if value < 1:
            raise NotSupported(
                f"user namespaces are disabled on this system ({path} is {value})",
                hint=f"ask the administrator to set {name.replace('/', '.')}",
            )
