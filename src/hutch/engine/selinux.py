"""SELinux: which labels a container gets, and labelling what the host lends it (``-v …:z``).

A container is labelled when --security-opt label=… asks for it. The parts not given are those that the host's policy
sets aside for containers (its ``lxc_contexts``), with two categories of the container's own, so that containers cannot
reach each other's files. Files are labelled by their parent's descriptor: nothing is opened but directories.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.engine.record import Record
from hutch.errors import InvalidArgument, NotSupported
from hutch.linux import xattr
from hutch.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CONFIG = "/etc/selinux/config"
_ATTRIBUTE = "security.selinux"
_LIMIT = 1 << 16
_DEPTH_MAX = 400
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_CATEGORIES = 1024
_PARTS = ("user", "role", "type", "level")
_KEYS = (*_PARTS, "filetype")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:-")

# Where another label would lock the system's own services out, as docker and podman refuse it too.
_NEVER = (
    "/ /bin /boot /dev /etc /etc/passwd /etc/pki /etc/shadow /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin "
    "/srv /sys /tmp /usr /usr/bin /usr/lib /usr/lib64 /usr/sbin /usr/share /var /var/cache /var/lib /var/log /var/tmp"
).split()


class Contexts(Record):
    """What the policy sets aside for containers; empty where there is none.

    Attributes:
        process, file: contexts as ``user:role:type`` with a level where the policy has levels.
    """

    process: str = ""
    file: str = ""


def host_contexts(config: str = _CONFIG) -> Contexts:
    """Read the loaded policy's contexts for containers. selinux_lxc_contexts(5)."""
    policy = _values(config).get("SELINUXTYPE", "targeted")
    if "/" in policy:
        return Contexts()
    found = _values(f"{os.path.dirname(config)}/{policy}/contexts/lxc_contexts")
    return Contexts(process=found.get("process", ""), file=found.get("file", ""))


def _values(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            text = file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip().strip('"') for key, _, value in pairs if value}


def labels(asked: Iterable[str], container_id: str, contexts: Contexts | None) -> tuple[str, str]:
    """The labels of a container's processes and of its files; empty for none.

    Args:
        asked: the values of --security-opt label=.
        container_id: gives the categories.
        contexts: the host's; None where SELinux is not enabled.

    Raises:
        InvalidArgument: not a label option.
        NotSupported: a label is asked for that this host would not enforce (CVE-2025-65105).
    """
    options = [option for option in asked if option != "disable"]
    for option in options:
        key, _, value = option.partition(":")
        if option != "nested" and (key not in _KEYS or not value or not _PLAIN.issuperset(value)):
            raise InvalidArgument(
                f"invalid --security-opt: label={option[:64]!r}",
                hint=f"disable, or one of {', '.join(_KEYS)} with a colon and a value",
            )
    if not options:
        return "", ""
    if contexts is None:
        raise NotSupported(f"--security-opt label={options[0]}: SELinux is not enabled on this system")
    if "disable" in asked:
        return "", ""
    if "nested" in options:
        raise NotSupported("--security-opt label=nested: a container cannot change the host's policy here")
    process, files = _chosen(options, container_id, contexts)
    return _joined(process), _joined(files)


def _chosen(options: list[str], container_id: str, contexts: Contexts) -> tuple[dict[str, str], dict[str, str]]:
    process, files = _split(contexts.process), _split(contexts.file)
    if not process or not files:
        raise NotSupported(
            "this host's SELinux policy has no contexts for containers", hint="the package container-selinux has them"
        )
    if "level" in process:
        process["level"] = files["level"] = f"s0:{_categories(container_id)}"
    for option in options:
        key, _, value = option.partition(":")
        if key == "filetype":
            files["type"] = value
            continue
        process[key] = value
        if key in ("user", "level"):
            files[key] = value
    return process, files


def file_label(asked: Iterable[str], container_id: str, contexts: Contexts, *, shared: bool) -> str:
    """The label for what the host lends a container: shared by all (``:z``), or of this one's categories (``:Z``).

    Raises:
        NotSupported: the host's policy has no contexts for containers.
    """
    options = [option for option in asked if option not in ("disable", "nested")]
    _, parts = _chosen(options, container_id, contexts)
    if shared and "level" in parts:
        parts["level"] = "s0"
    return _joined(parts)


def _split(context: str) -> dict[str, str]:
    values = context.split(":", 3)
    return dict(zip(_PARTS, values, strict=False)) if len(values) >= 3 else {}


def _joined(parts: dict[str, str]) -> str:
    return ":".join(parts[name] for name in _PARTS if name in parts)


def _categories(container_id: str) -> str:
    """Two categories, the same each time for one container: half a million pairs."""
    number = int.from_bytes(bytes.fromhex(container_id[:16].ljust(16, "0")), "big")
    first, rest = number % _CATEGORIES, number // _CATEGORIES
    second = (first + 1 + rest % (_CATEGORIES - 1)) % _CATEGORIES
    return "c{},c{}".format(*sorted((first, second)))


# --- labelling files ---------------------------------------------------------------------------------------------


def relabel(path: str, label: str) -> None:
    """Give a host directory or file, and all below it on the same mount, a label. Links are labelled, not followed.

    Args:
        path: on the host, the user's own; what is below it may belong to a container that is running.
        label: the whole context.

    Raises:
        InvalidArgument: a directory of the system's, which nobody else could use then.
        OSError: the kernel or the policy refused.
    """
    value = label.encode() + b"\0"
    top_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _check_place(top_fd, path)
        os.setxattr(f"/proc/self/fd/{top_fd}", _ATTRIBUTE, value)
        if stat.S_ISDIR(os.fstat(top_fd).st_mode):
            directory_fd = os.open(".", _DIRECTORY, dir_fd=top_fd)
            try:
                _relabel_below(directory_fd, value, 0)
            finally:
                os.close(directory_fd)
    except OSError as problem:
        if problem.errno != errno.EOPNOTSUPP:  # a file system without labels, such as NFS, has one for all
            raise
    finally:
        os.close(top_fd)


def _check_place(fd: int, path: str) -> None:
    found = os.fstat(fd)
    for place in (*_NEVER, os.environ.get("HOME") or "/root"):
        try:
            other = os.stat(place)
        except OSError:
            continue
        if os.path.samestat(found, other):
            raise InvalidArgument(
                f"volume {path}: relabelling {place} would lock the system out of it",
                hint="attach it without :z, and run the container with --security-opt label=disable",
            )


def _relabel_below(dir_fd: int, value: bytes, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, "directories nested too deep")
    for name in map(os.fsencode, os.listdir(dir_fd)):
        try:
            xattr.set_at(dir_fd, name, _ATTRIBUTE, value)
            fd = openat2(dir_fd, name, _DIRECTORY, 0, _RESOLVE)
        except OSError as problem:
            if problem.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENOENT):
                raise
            continue  # no directory, or another mount, or gone
        try:
            _relabel_below(fd, value, depth + 1)
        finally:
            os.close(fd)
