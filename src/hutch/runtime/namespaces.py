"""Which namespaces a container gets: joined by path, or made; and the ids of a user namespace.

Joins come first (while the caller still has his own rights over them), then the new user namespace, then all other new
ones at once. A namespace that belongs to the joined user namespace can only be joined after it: a join that is refused
is tried again there.
"""

from __future__ import annotations

import errno
import os

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import process
from hutch.linux.libc import error, libc
from hutch.linux.namespaces import FILES, KINDS, kind_of, setns, unshare
from hutch.runtime import handshake
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import LinuxIDMapping, Spec

_JOIN_ORDER = ("ipc", "uts", "network", "cgroup", "time", "mount", "pid", "user")
_MAP_HELPERS = {"uid": "newuidmap", "gid": "newgidmap"}
_HELPER_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin")


class Namespaces:
    """What the specification asks for.

    Attributes:
        new: kinds to make.
        paths: kind → path to join.
    """

    __slots__ = ("new", "paths")

    def __init__(self, spec: Spec) -> None:
        wanted = (spec.get("linux") or {}).get("namespaces") or []
        self.paths = {entry["type"]: entry["path"] for entry in wanted if entry.get("path")}
        self.new = [entry["type"] for entry in wanted if not entry.get("path")]

    def has(self, kind: str) -> bool:
        """Whether the container is not in the caller's namespace of this kind, by name."""
        return kind in self.new or kind in self.paths


def open_paths(namespaces: Namespaces) -> dict[str, int]:
    """Open the namespaces to join: ``ns:<kind>`` → descriptor, the caller's to close.

    Raises:
        InvalidConfig: a path is not of a namespace of its kind.
    """
    fds: dict[str, int] = {}
    try:
        for kind, path in namespaces.paths.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError as problem:
                cause = os.strerror(problem.errno or 0).lower()
                raise InvalidConfig(f"join {kind} namespace: {path}: {cause}") from None
            fds[f"ns:{kind}"] = fd
            try:
                found = kind_of(fd)
            except OSError:
                found = 0
            if found != KINDS[kind]:
                raise InvalidConfig(f"join {kind} namespace: {path}: not a namespace of this kind")
    except BaseException:
        for fd in fds.values():
            os.close(fd)
        raise
    return fds


def joins(namespaces: Namespaces) -> list[Step]:
    """The steps that join namespaces by path."""
    return [_join(kind, namespaces.paths[kind]) for kind in _JOIN_ORDER if kind in namespaces.paths]


def _join(kind: str, path: str) -> Step:
    def action(setup: Setup) -> None:
        fd = setup.fds.pop(f"ns:{kind}")
        try:
            setns(fd, KINDS[kind])
        except OSError as problem:
            if problem.errno != errno.EPERM or kind == "user" or "ns:user" not in setup.fds:
                raise
            setup.deferred.append(fd)
            return
        os.close(fd)
        if kind == "user":
            for later_fd in setup.deferred:
                setns(later_fd)
                os.close(later_fd)

    flag = FILES[kind] if kind != "pid" else "pid"
    call = f'setns(open("{path}"), CLONE_NEW{_FLAG[kind]})'
    return Step(f"join {kind} namespace {path}", call, action, command=f"nsenter --{_LONG[kind]}={path} … # {flag}")


_FLAG = {
    "user": "USER", "mount": "NS", "pid": "PID", "network": "NET", "ipc": "IPC", "uts": "UTS", "cgroup": "CGROUP",
    "time": "TIME",
}  # fmt: skip
_LONG = {**{kind: kind for kind in KINDS}, "network": "net"}


def make_user() -> Step:
    """The step that makes the user namespace."""
    return Step(
        "create user namespace", "unshare(CLONE_NEWUSER)", lambda _: unshare(KINDS["user"]), command="unshare --user …"
    )


def make_rest(namespaces: Namespaces) -> list[Step]:
    """The step that makes all other new namespaces."""
    kinds = [kind for kind in namespaces.new if kind != "user"]
    if not kinds:
        return []
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind]
    names = "|".join(f"CLONE_NEW{_FLAG[kind]}" for kind in kinds)
    shell = "unshare " + " ".join(f"--{_LONG[kind]}" for kind in kinds) + " …"
    title = f"create namespaces {', '.join(kinds)}"
    return [Step(title, f"unshare({names})", lambda _: _unshare(flags, kinds), command=shell)]


def _unshare(flags: int, kinds: Sequence[str]) -> None:
    try:
        unshare(flags)
    except OSError as problem:
        missing = [kind for kind in kinds if not os.path.exists(f"/proc/self/ns/{FILES[kind]}")]
        if problem.errno == errno.EINVAL and missing:
            raise NotSupported(f"the kernel has no {missing[0]} namespaces") from None
        raise


# --- ids ---------------------------------------------------------------------------------------------------------


def map_text(mappings: Sequence[LinuxIDMapping]) -> str:
    """The lines of uid_map or gid_map."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def maps_zero(mappings: Sequence[LinuxIDMapping]) -> bool:
    """Whether the namespace has an id 0."""
    return any(entry["containerID"] == 0 for entry in mappings)


def host_id(mappings: Sequence[LinuxIDMapping], inside: int) -> int:
    """The host's id for one of the namespace, -1 where it has none."""
    for entry in mappings:
        if 0 <= inside - entry["containerID"] < entry["size"]:
            return entry["hostID"] + inside - entry["containerID"]
    return -1


def write_maps(spec: Spec) -> list[Step]:
    """The parent's steps that give the child's user namespace its ids."""
    linux = spec.get("linux") or {}
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []

    def step(kind: str, mappings: Sequence[LinuxIDMapping]) -> Step:
        text = map_text(mappings)
        return Step(
            f"write {kind}_map",
            f'write("/proc/CHILD/{kind}_map", {text.strip()!r})',
            lambda setup: _write_map(setup, kind, mappings),
            command=f"echo '{text.strip()}' > /proc/CHILD/{kind}_map",
        )

    return [step("gid", gids), step("uid", uids)]


def _write_map(setup: Setup, kind: str, mappings: Sequence[LinuxIDMapping]) -> None:
    own = os.geteuid() if kind == "uid" else os.getegid()
    single = len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own
    if not setup.privileged and not single:
        _map_by_helper(kind, setup.child_pid, mappings)
        return
    if not setup.privileged and kind == "gid":
        # An ordinary user may map his own group only after giving up setgroups(2): user_namespaces(7).
        setup.proc.write(f"{setup.child_pid}/setgroups", "deny")
    setup.proc.write(f"{setup.child_pid}/{kind}_map", map_text(mappings))


def _map_by_helper(kind: str, pid: int, mappings: Sequence[LinuxIDMapping]) -> None:
    """Let newuidmap and newgidmap do it: they check what /etc/subuid and /etc/subgid give an ordinary user."""
    name = _MAP_HELPERS[kind]
    program = next((f"{place}/{name}" for place in _HELPER_PLACES if os.access(f"{place}/{name}", os.X_OK)), "")
    if not program:
        raise NotSupported(f"{name}: not installed", hint="the package uidmap (shadow-utils) has it")
    numbers = [str(entry[key]) for entry in mappings for key in ("containerID", "hostID", "size")]
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, write_fd, 1), (os.POSIX_SPAWN_DUP2, write_fd, 2)]
        helper = os.posix_spawn(program, [name, str(pid), *numbers], {}, file_actions=actions)
        os.close(write_fd)
        write_fd = -1
        said = os.read(read_fd, 4096).decode(errors="replace").strip()
        status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)
    if status != 0:
        raise InvalidConfig(
            f"{said.lower() or f'{name} ended with status {status}'}",
            hint=f"/etc/sub{kind} must give this user the ranges that the container maps",
        )


def place(*, new_user: bool) -> Step:
    """The child waits to be given its ids and its cgroup."""

    def action(setup: Setup) -> None:
        # /proc/<pid> of a process that is not dumpable belongs to root: an ordinary parent could not write its maps.
        # Nobody else is in the new namespace yet who could use the moment.
        process.set_dumpable(new_user and not setup.privileged)
        setup.talk.ask(handshake.PLACE)
        process.set_dumpable(False)

    return Step("wait for ids and cgroup", "recv(parent)", action)


def become_root() -> Step:
    """Take the user namespace's root for our own: what is made from here on is its."""

    def action(_: Setup) -> None:
        process.setresgid(0, 0, 0)
        process.setresuid(0, 0, 0)
        process.set_dumpable(False)

    return Step("become root of the user namespace", "setresgid(0, 0, 0); setresuid(0, 0, 0)", action)


class UserNamespaces:
    """User namespaces with nobody in them, for id-mapped mounts: one for each pair of maps.

    A forked process makes each and stays until it is mapped. `begin` does not wait for it and `release` not for its
    end, so that both overlap with other work; whoever began calls `close`.
    """

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], _Holder] = {}

    def begin(self, uids: Sequence[LinuxIDMapping], gids: Sequence[LinuxIDMapping]) -> None:
        """Start to make the one with these maps; the caller needs CAP_SETUID and CAP_SETGID."""
        key = (map_text(uids), map_text(gids))
        if key not in self._holders:
            self._holders[key] = _Holder(*key)

    def open(self, uids: Sequence[LinuxIDMapping], gids: Sequence[LinuxIDMapping]) -> int:
        """A descriptor of one that was begun, the caller's to close.

        Raises:
            OSError: unshare(2), or writing a map.
        """
        return self._holders[map_text(uids), map_text(gids)].open()

    def release(self) -> None:
        """Let the processes go: the descriptors keep the namespaces."""
        for holder in self._holders.values():
            holder.release()

    def close(self) -> None:
        """Release, and wait for the processes' end."""
        self.release()
        for holder in self._holders.values():
            os.waitpid(holder.pid, 0)
        self._holders.clear()


class _Holder:
    """One process in a user namespace of its own."""

    __slots__ = ("_gids", "_go_fd", "_ready_fd", "_uids", "pid")

    def __init__(self, uids: str, gids: str) -> None:
        self._uids, self._gids = uids, gids
        self._ready_fd, ready_child_fd = os.pipe2(os.O_CLOEXEC)
        go_child_fd, self._go_fd = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if not self.pid:
            try:
                unshare(KINDS["user"])
                os.write(ready_child_fd, b"1")
                os.close(self._go_fd)
                os.read(go_child_fd, 1)
            finally:
                os._exit(0)
        os.close(ready_child_fd)
        os.close(go_child_fd)

    def open(self) -> int:
        if self._uids:
            if not os.read(self._ready_fd, 1):
                raise OSError(errno.EPERM, "cannot make a user namespace for an id-mapped mount")
            for kind, text in (("gid", self._gids), ("uid", self._uids)):
                with open(f"/proc/{self.pid}/{kind}_map", "wb", buffering=0) as file:
                    file.write(text.encode())
            self._uids = ""
        return os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        for fd in (self._ready_fd, self._go_fd):
            if fd >= 0:
                os.close(fd)
        self._ready_fd = self._go_fd = -1


def time_offsets(spec: Spec) -> list[Step]:
    """Shift the clocks of the new time namespace, before anybody is in it. OCI config-linux.md#timeOffsets."""
    offsets = (spec.get("linux") or {}).get("timeOffsets") or {}
    text = "".join(
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in offsets.items()
        if isinstance(offset, dict)
    )
    if not text:
        return []

    def action(setup: Setup) -> None:
        process.set_dumpable(not setup.privileged)  # as in place(): the file is root's otherwise
        setup.proc.write("self/timens_offsets", text)
        process.set_dumpable(False)

    call = f'write("/proc/self/timens_offsets", {text.strip()!r})'
    return [Step("set time offsets", call, action, command="unshare --time --monotonic=… --boottime=…")]


def names(spec: Spec) -> list[Step]:
    """Host and domain name."""
    steps = []
    for key, call in (("hostname", "sethostname"), ("domainname", "setdomainname")):
        if name := spec.get(key):
            steps.append(_name_step(call, str(name)))
    return steps


def _name_step(call: str, name: str) -> Step:
    def action(_: Setup) -> None:
        # /proc/sys/kernel/hostname is for the host's root only, in whatever namespace.
        data = name.encode()
        if getattr(libc, call)(data, len(data)) != 0:
            raise error()

    return Step(f"set {call[3:]}", f'{call}("{name}")', action, command=f"{call[3:]} {name}")
