"""The options of the `local` driver, as Docker's: ``type=``, ``device=`` and ``o=`` of a mount(8). Pure.

A volume without options is a directory of hutch's. One with options is mounted in each container's own mount
namespace when the container starts, and never on the host:

    type=none|bind, o=bind[,…], device=/dir     a directory of the host
    type=tmpfs, o=size=…, device=tmpfs          memory, each container's own
    type=nfs|nfs4, o=addr=…[,…], device=:/path  a server's
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from hutch.errors import InvalidArgument, NotSupported

_NEEDS = {"device": ("type",), "type": ("device",), "o": ("type", "device")}
_SWITCHES = ("suid", "nosuid", "dev", "nodev", "exec", "noexec")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_SIZE = re.compile(r"\A[0-9]{1,19}(?:[kKmMgG]|%)?\Z")
_NUMBER = re.compile(r"\A[0-9]{1,10}\Z")
_WORD = re.compile(r"\A[A-Za-z0-9_.:%/@+-]{1,253}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TEXT_MAX = 4096

# nfs(5); a flag of mount(8) alone, such as bg or _netdev, means nothing to the kernel
_NFS_SWITCHES = frozenset(
    "soft hard softerr softreval nosoftreval lock nolock ac noac cto nocto tcp udp rdma intr nointr acl noacl fsc "
    "nofsc rdirplus nordirplus sharecache nosharecache resvport noresvport posix noposix migration nomigration "
    "atime noatime relatime diratime nodiratime sync async".split()
)
_NFS_NUMBERS = frozenset(
    "timeo retrans rsize wsize port mountport mountvers namlen bsize nconnect max_connect minorversion "
    "acregmin acregmax acdirmin acdirmax actimeo".split()
)
_NFS_WORDS = frozenset(
    "addr vers nfsvers proto mountproto mountaddr mounthost sec clientaddr local_lock lookupcache fsc trunkdiscovery "
    "xprtsec".split()
)


class LocalMount(msgspec.Struct, frozen=True):
    """What the options of a volume ask for.

    Attributes:
        kind: bind, tmpfs or nfs.
        fstype: the file system's name for the kernel; empty for a bind mount.
        device: what is mounted.
        read_only: o=ro.
        recursive: o=rbind: with what is mounted below the directory.
        propagation: of a bind mount, if one is asked for.
        switches: nosuid, nodev, noexec and their opposites, in order.
        data: the file system's own parameters.
    """

    kind: str
    fstype: str = ""
    device: str = ""
    read_only: bool = False
    recursive: bool = False
    propagation: str = ""
    switches: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


def local_mount(options: Mapping[str, str]) -> LocalMount | None:
    """Understand a volume's driver options; None for a plain volume, which has none.

    Args:
        options: of the user, or of a volume's record.

    Raises:
        InvalidArgument: an option that is unknown or malformed, or one that another needs is missing.
        NotSupported: another type of mount, or a size limit.
    """
    for key, value in options.items():
        if key == "size":
            raise NotSupported("volume option size: a directory cannot be limited", hint="use type=tmpfs with o=size=…")
        if key not in _NEEDS:
            raise InvalidArgument(f'invalid option: "{key[:64]}"', hint="the local driver has type, device and o")
        if len(value) > _TEXT_MAX or _CONTROL.search(value):
            raise InvalidArgument(f"invalid value of option {key}: too long, or with control characters")
        for needed in _NEEDS[key]:
            if not options.get(needed):
                raise InvalidArgument(f'missing required option: "{needed}"')
    if not options:
        return None
    words = [word for word in options.get("o", "").split(",") if word]
    kind, device = options["type"], options["device"]
    if kind in ("none", "bind"):
        return _bind(device, words)
    if kind == "tmpfs":
        return _tmpfs(words)
    if kind in ("nfs", "nfs4"):
        return _nfs(kind, device, words)
    raise NotSupported(f"volume type {kind[:64]}: not supported", hint="bind (type=none), tmpfs, nfs and nfs4 are")


def _bind(device: str, words: list[str]) -> LocalMount:
    if "bind" not in words and "rbind" not in words:
        raise InvalidArgument("volume option o: type=none needs bind or rbind")
    if not device.startswith("/"):
        raise InvalidArgument(f"volume option device: not an absolute path: {device[:64]}")
    read_only, switches, others = _common(words)
    propagation = ""
    for word in others:
        if word in _PROPAGATIONS:
            propagation = word
        elif word not in ("bind", "rbind"):
            raise _unknown(word, "bind")
    return LocalMount(
        "bind",
        device=device,
        read_only=read_only,
        recursive="rbind" in words,
        propagation=propagation,
        switches=switches,
    )


def _tmpfs(words: list[str]) -> LocalMount:
    read_only, switches, others = _common(words)
    checks: dict[str, Callable[[str], object]] = {
        "size": _SIZE.match,
        "nr_blocks": _SIZE.match,
        "nr_inodes": _SIZE.match,
        "mode": re.compile(r"\A[0-7]{1,5}\Z").match,
        "uid": _NUMBER.match,
        "gid": _NUMBER.match,
    }
    for word in others:
        key, _, value = word.partition("=")
        if key not in checks or not checks[key](value):
            raise _unknown(word, "tmpfs")
    return LocalMount("tmpfs", "tmpfs", "tmpfs", read_only, switches=switches, data=tuple(others))


def _nfs(kind: str, device: str, words: list[str]) -> LocalMount:
    read_only, switches, others = _common(words)
    host, colon, path = device.partition(":/")
    if not colon or (host and not _WORD.match(host)):
        raise InvalidArgument(f"volume option device: {kind} needs [HOST]:/PATH, not {device[:64]}")
    for word in others:
        key, equals, value = word.partition("=")
        good = key in _NFS_SWITCHES
        if equals:
            good = (key in _NFS_NUMBERS and bool(_NUMBER.match(value))) or (
                key in _NFS_WORDS and bool(_WORD.match(value))
            )
        if not good:
            raise _unknown(word, kind)
    if not any(word.startswith("addr=") for word in others):
        if not host:
            raise InvalidArgument(f"volume option o: {kind} needs addr=SERVER")
        others.append(f"addr={host}")
    return LocalMount("nfs", kind, f"{host}:/{path}", read_only, switches=switches, data=tuple(others))


def _common(words: list[str]) -> tuple[bool, tuple[str, ...], list[str]]:
    """Whether it is read-only, the switches, and the rest."""
    read_only = False
    switches, others = [], []
    for word in words:
        if word in ("ro", "rw"):
            read_only = word == "ro"
        elif word in _SWITCHES:
            switches.append(word)
        elif word != "defaults":
            others.append(word)
    return read_only, tuple(switches), others


def _unknown(word: str, kind: str) -> InvalidArgument:
    return InvalidArgument(f"volume option o: {word[:64]}: not an option of a {kind} mount")
