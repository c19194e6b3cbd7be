"""Which ids an ordinary user's files have: the one choice that unpacking, snapshots and containers share.

Id 0 inside is the user; 1 and up are the subordinate ids of /etc/subuid and /etc/subgid, where there are any and
newuidmap and newgidmap are installed. Otherwise the user's own id is the only one, and owners are not kept, which is
what podman calls ignore_chown_errors.

Imports only cheap modules: the unpacking child uses it.
"""

from __future__ import annotations

import os

from hutch.errors import NotSupported, NoUserNamespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    Range = tuple[int, int, int]

_FILE_MAX = 1 << 20
_RANGES_MAX = 340  # of an id map in the kernel
_ID_END = (1 << 32) - 1
_TOOL_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")


class IdMap:
    """The id maps of a user namespace.

    Attributes:
        uids, gids: (first id inside, first id outside, count), as the kernel's uid_map has them.
        single: True if only the caller's own ids are mapped.
        tools: absolute paths of newuidmap and newgidmap; empty if `single`.
    """

    __slots__ = ("gids", "single", "tools", "uids")

    def __init__(self, uids: tuple[Range, ...], gids: tuple[Range, ...], tools: tuple[str, ...] = ()) -> None:
        self.uids = uids
        self.gids = gids
        self.tools = tools
        self.single = not tools


def needs_user_namespace() -> bool:
    """True for an ordinary user; root, also root of a user namespace, already may do what it takes."""
    return os.geteuid() != 0


def in_user_namespace() -> bool:
    """True unless this is the initial user namespace."""
    with open("/proc/self/uid_map", "rb", buffering=0) as file:
        return file.read(200).split() != [b"0", b"0", b"4294967295"]


def id_map() -> IdMap:
    """The maps for the calling user."""
    uid, gid = os.geteuid(), os.getegid()
    tools = _tools()
    if tools:
        name = _user_name(uid)
        uids = subordinate("/etc/subuid", name, uid)
        gids = subordinate("/etc/subgid", name, uid)
        if uids and gids:
            return IdMap(_above(uid, uids), _above(gid, gids), tools)
    return IdMap(((0, uid, 1),), ((0, gid, 1),))


def subordinate(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The (start, count) ranges that a file in the format of subuid(5) gives a user, by name or number.

    Malformed lines are skipped, as newuidmap skips them; no more than 1 MiB is read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(_FILE_MAX)
    except OSError:
        return []
    owners = {name.encode("utf-8", "surrogateescape"), b"%d" % uid} - {b""}
    found: list[tuple[int, int]] = []
    for line in data.split(b"\n"):
        owner, _, rest = line.strip().partition(b":")
        start, _, count = rest.partition(b":")
        if owner in owners and start.isdigit() and count.isdigit() and len(start) <= 10 and len(count) <= 10:
            first, size = int(start), int(count)
            if first and size and first + size <= _ID_END and len(found) < _RANGES_MAX - 1:
                found.append((first, size))
    return found


def enter(ids: IdMap, flags: int) -> None:
    """Enter a new user namespace with these maps, and the namespaces of `flags` below it; become root there.

    Only for a process with one thread. The tools run in a process that stays outside.

    Args:
        ids: from `id_map`.
        flags: CLONE_NEW* besides CLONE_NEWUSER.

    Raises:
        NoUserNamespaces: they are off, or at their limit.
        NotSupported: newuidmap or newgidmap refused.
    """
    if ids.single:
        _unshare(flags)
        _write("/proc/self/uid_map", b"%d %d %d" % ids.uids[0])
        _write("/proc/self/setgroups", b"deny")
        _write("/proc/self/gid_map", b"%d %d %d" % ids.gids[0])
    else:
        ready_fd, go_fd = os.pipe()
        mapper = os.fork()
        if not mapper:
            os.close(go_fd)
            _run_tools(ids, ready_fd)
        os.close(ready_fd)
        try:
            _unshare(flags)
            os.write(go_fd, b"1")
        finally:
            os.close(go_fd)
            _, status = os.waitpid(mapper, 0)
        if status:
            raise NotSupported(
                "newuidmap: the subordinate ids were refused",
                hint="check /etc/subuid and /etc/subgid, and that newuidmap and newgidmap are installed setuid root",
            )
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _unshare(flags: int) -> None:
    from hutch.linux.namespaces import CLONE_NEWUSER, unshare

    try:
        unshare(CLONE_NEWUSER | flags)
    except OSError as problem:
        raise NoUserNamespaces.because(problem.errno or 0) from None


def _run_tools(ids: IdMap, ready_fd: int) -> None:
    """In a process outside: write the parent's maps once it says so. Never returns."""
    code = 1
    try:
        target = str(os.getppid())
        if os.read(ready_fd, 1):
            for tool, ranges in zip(ids.tools, (ids.uids, ids.gids), strict=True):
                arguments = [tool, target, *(str(number) for one in ranges for number in one)]
                child = os.posix_spawn(tool, arguments, {"PATH": "/usr/bin:/bin"})
                if os.waitpid(child, 0)[1]:
                    break
            else:
                code = 0
    finally:
        os._exit(code)


def _above(own: int, ranges: list[tuple[int, int]]) -> tuple[Range, ...]:
    maps = [(0, own, 1)]
    inside = 1
    for start, count in ranges:
        maps.append((inside, start, count))
        inside += count
    return tuple(maps)


def _tools() -> tuple[str, ...]:
    found: list[str] = []
    for name in ("newuidmap", "newgidmap"):
        for directory in _TOOL_DIRECTORIES:
            if os.access(f"{directory}/{name}", os.X_OK):
                found.append(f"{directory}/{name}")
                break
        else:
            return ()
    return tuple(found)


def _user_name(uid: int) -> str:
    import pwd  # the host's own user on the host: no container's nsswitch.conf is anywhere near

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
