"""The options of a mount: OCI runtime-spec config.md#linux-mount-options as a table.

Three kinds of option meet in one list: what the mount has (attributes, propagation), what the file system has (its own
parameters, and the generic sync, dirsync, lazytime), and what the runtime does (bind, tmpcopyup, id mapping).
"""

from __future__ import annotations

from hutch.errors import InvalidConfig
from hutch.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RO, _NOSUID, _NODEV, _NOEXEC = (
    mount.MOUNT_ATTR_RDONLY,
    mount.MOUNT_ATTR_NOSUID,
    mount.MOUNT_ATTR_NODEV,
    mount.MOUNT_ATTR_NOEXEC,
)
_NODIRATIME, _NOSYMFOLLOW, _ATIME = (
    mount.MOUNT_ATTR_NODIRATIME,
    mount.MOUNT_ATTR_NOSYMFOLLOW,
    mount.MOUNT_ATTR__ATIME,
)
_NOATIME, _STRICTATIME, _RELATIME = (
    mount.MOUNT_ATTR_NOATIME,
    mount.MOUNT_ATTR_STRICTATIME,
    mount.MOUNT_ATTR_RELATIME,
)

# Option → (attributes to set, attributes to clear). With "r" in front it is for the whole tree.
ATTRIBUTES = {
    "ro": (_RO, 0),
    "rw": (0, _RO),
    "nosuid": (_NOSUID, 0),
    "suid": (0, _NOSUID),
    "nodev": (_NODEV, 0),
    "dev": (0, _NODEV),
    "noexec": (_NOEXEC, 0),
    "exec": (0, _NOEXEC),
    "nodiratime": (_NODIRATIME, 0),
    "diratime": (0, _NODIRATIME),
    "nosymfollow": (_NOSYMFOLLOW, 0),
    "symfollow": (0, _NOSYMFOLLOW),
    "noatime": (_NOATIME, _ATIME),
    "atime": (_RELATIME, _ATIME),
    "relatime": (_RELATIME, _ATIME),
    "norelatime": (_STRICTATIME, _ATIME),
    "strictatime": (_STRICTATIME, _ATIME),
    "nostrictatime": (_RELATIME, _ATIME),
}
PROPAGATIONS = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}
# Generic superblock options: what fsconfig(2) knows by these names, and the flags of mount(2) for the rest.
_SUPER_FLAGS = {"sync": "sync", "dirsync": "dirsync", "lazytime": "lazytime", "mand": "mand"}
_SUPER_CLEARS = {
    "async": "sync",
    "nolazytime": "lazytime",
    "nomand": "mand",
    "loud": "silent",
    "noiversion": "iversion",
}
_LEGACY_FLAGS = {"silent": mount.MS_SILENT, "iversion": mount.MS_I_VERSION}
_FSCONFIG_LIMIT = 255

NAMES = sorted(
    {"bind", "rbind", "defaults", "remount", "tmpcopyup", "idmap", "ridmap"}
    | set(ATTRIBUTES)
    | {f"r{name}" for name in ATTRIBUTES}
    | set(PROPAGATIONS)
    | {f"r{name}" for name in PROPAGATIONS}
    | set(_SUPER_FLAGS)
    | set(_SUPER_CLEARS)
    | set(_LEGACY_FLAGS)
)
"""Every option the table knows, for ``features``."""


class MountOptions:
    """A mount's options, sorted out.

    Attributes:
        bind, recursive: an existing tree is mounted, with what is mounted below it.
        remount: what is mounted there is changed.
        attr_set, attr_clr: MOUNT_ATTR_* of the mount itself.
        rec_set, rec_clr: of the whole tree.
        propagation: (MS_* flag, whether for the whole tree), in the order given.
        super_flags: generic flags of the file system.
        legacy_flags: MS_* that only mount(2) can express.
        data: the file system's own parameters, ``key=value`` or ``key``.
        copy_up: fill a new tmpfs with what it hides.
        idmap, recursive_idmap: map ids; the mappings are the mount's or the container's.
    """

    __slots__ = (
        "attr_clr",
        "attr_set",
        "bind",
        "copy_up",
        "data",
        "idmap",
        "legacy_flags",
        "propagation",
        "rec_clr",
        "rec_set",
        "recursive",
        "recursive_idmap",
        "remount",
        "super_flags",
    )

    def __init__(self, options: Sequence[str], place: str = "options") -> None:
        """Sort the options of one mount; `place` is where they stand, for errors.

        Raises:
            InvalidConfig: an option for SELinux relabelling, which is the engine's to do.
        """
        self.bind = self.recursive = self.remount = self.copy_up = self.idmap = self.recursive_idmap = False
        self.attr_set = self.attr_clr = self.rec_set = self.rec_clr = self.legacy_flags = 0
        self.propagation: list[tuple[int, bool]] = []
        self.super_flags: list[str] = []
        self.data: list[str] = []
        for option in options:
            self._take(option, place)

    def _take(self, option: str, place: str) -> None:
        whole = option[1:] if option.startswith("r") else ""
        if option in ATTRIBUTES:
            self.attr_set, self.attr_clr = _change(self.attr_set, self.attr_clr, *ATTRIBUTES[option])
        elif whole in ATTRIBUTES:
            self.rec_set, self.rec_clr = _change(self.rec_set, self.rec_clr, *ATTRIBUTES[whole])
        elif option in PROPAGATIONS:
            self.propagation.append((PROPAGATIONS[option], False))
        elif whole in PROPAGATIONS:
            self.propagation.append((PROPAGATIONS[whole], True))
        elif option in ("bind", "rbind"):
            self.bind = True
            self.recursive = option == "rbind"
        elif option in ("idmap", "ridmap"):
            self.idmap = True
            self.recursive_idmap = option == "ridmap"
        elif option in _SUPER_FLAGS:
            self.super_flags.append(_SUPER_FLAGS[option])
        elif option in _SUPER_CLEARS:
            cleared = _SUPER_CLEARS[option]
            self.super_flags = [flag for flag in self.super_flags if flag != cleared]
            self.legacy_flags &= ~_LEGACY_FLAGS.get(cleared, 0)
        elif option in _LEGACY_FLAGS:
            self.legacy_flags |= _LEGACY_FLAGS[option]
        elif option == "remount":
            self.remount = True
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in ("z", "Z", "relabel=shared", "relabel=private"):
            raise InvalidConfig(f"{place}: {option!r}: relabelling is not a runtime's task")
        elif option not in ("defaults", ""):
            self.data.append(option)

    def set_context(self, label: str) -> None:
        """Give the file system an SELinux context, unless its options have one."""
        if not any(entry.partition("=")[0].endswith("context") for entry in self.data):
            self.data.append(f"context={label}")

    @property
    def read_only(self) -> bool:
        """Whether the mount shall be read-only."""
        return bool((self.attr_set | self.rec_set) & _RO)

    def needs_legacy(self) -> bool:
        """Whether only mount(2) takes these: flags without a name in fsconfig(2), parameters over its 255 bytes."""
        return bool(self.legacy_flags) or any(
            len(entry.partition("=")[2].encode()) > _FSCONFIG_LIMIT for entry in self.data
        )

    def ms_flags(self) -> int:
        """The MS_* flags that mount(2) makes the file system with; attributes are set afterwards."""
        table = {"sync": mount.MS_SYNCHRONOUS, "dirsync": mount.MS_DIRSYNC, "lazytime": mount.MS_LAZYTIME}
        table["mand"] = mount.MS_MANDLOCK
        flags = self.legacy_flags
        for name in self.super_flags:
            flags |= table[name]
        return flags


def _change(present_set: int, present_clr: int, new_set: int, new_clr: int) -> tuple[int, int]:
    """A later option wins over an earlier one that says the opposite."""
    both = new_set | new_clr
    return (present_set & ~both) | new_set, (present_clr & ~both) | new_clr


def mount_data(parameters: Sequence[str]) -> str:
    """Parameters as mount(2) takes them; an SELinux context, whose categories have commas, goes between quotes."""
    return ",".join(
        f'{key}="{value}"' if key.endswith("context") and value[:1] != '"' else entry
        for entry in parameters
        for key, _, value in [entry.partition("=")]
    )


def attribute_names(attributes: int) -> str:
    """The flags by name, for people: ``nosuid,nodev``."""
    names = [
        name
        for name in ("ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow")
        if attributes & ATTRIBUTES[name][0]
    ]
    atime = attributes & _ATIME
    if atime == _NOATIME:
        names.append("noatime")
    elif atime == _STRICTATIME:
        names.append("strictatime")
    return ",".join(names)
