"""Who the program is and what it may do: the steps from root inside the container to the program's own identity.

The same for create and exec. Each function returns steps; they use of the Setup only `proc` and `warn`.
Order matters, and is plan.py's: what needs privileges first, then limits, then identity, then capabilities.
OCI runtime-spec config.md#process.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.errors import NotSupported
from hutch.linux import caps, keyring, process, rlimits
from hutch.linux.libc import libc
from hutch.linux.paths import Root
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import POSIXRlimit, Process

_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_USER_SEARCH = keyring.USER_SEARCH
_PASSWD_LIMIT = 1 << 20
_LINE_LIMIT = 1 << 16


# --- before the program's identity -------------------------------------------------------------------------------


def oom_score(spec_process: Process) -> list[Step]:
    """oomScoreAdj, first of all: the file is the host root's once we are not dumpable."""
    score = spec_process.get("oomScoreAdj")
    if score is None:
        return []

    def action(setup: Setup) -> None:
        try:
            setup.proc.write("self/oom_score_adj", str(score))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise
            current = int(setup.proc.read("self/oom_score_adj"))
            if score < current:  # lowering needs CAP_SYS_RESOURCE, which not every root has
                setup.warn(f"oomScoreAdj: {score}: not permitted, stays {current}")

    call = f'write("/proc/self/oom_score_adj", "{score}")'
    return [Step("set oom score", call, action, command=f"echo {score} > /proc/self/oom_score_adj")]


def new_keyring(name: str) -> Step:
    """A session keyring of the container's own, which its user may search."""

    def action(_: Setup) -> None:
        try:
            serial = keyring.join_session_keyring(name)
            keyring.set_permissions(serial, keyring.permissions(serial) | _USER_SEARCH)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise

    return Step("join session keyring", f'keyctl(KEYCTL_JOIN_SESSION_KEYRING, "{name}")', action)


# --- limits ------------------------------------------------------------------------------------------------------


def limits(spec_process: Process, raise_by_parent: Callable[[Setup], None]) -> list[Step]:
    """Resource limits. Hard limits above ours are the parent's to raise, if he may; else they are clamped.

    Args:
        spec_process: the process.
        raise_by_parent: asks the parent to call `raise_limits` for us; called only if it is needed.
    """
    wanted = spec_process.get("rlimits") or []
    if not wanted:
        return []

    def action(setup: Setup) -> None:
        refused = False
        for limit in wanted:
            kind, soft, hard = limit["type"], limit["soft"], limit["hard"]
            try:
                rlimits.set(kind, soft, hard)
            except OSError as error:
                if error.errno != errno.EPERM:
                    raise
                _, ceiling = rlimits.get(kind)
                rlimits.set(kind, min(soft, ceiling), min(hard, ceiling))
                refused = True
        if refused:
            raise_by_parent(setup)

    calls = "; ".join(f"prlimit({entry['type']}, {entry['soft']}, {entry['hard']})" for entry in wanted)
    return [Step("set resource limits", calls, action, command="ulimit …")]


def raise_limits(wanted: list[POSIXRlimit], pid: int, warn: Callable[[str], None]) -> None:
    """The parent's part: raise what `pid` could not; where we may not either, say what it has instead."""
    for limit in wanted:
        kind, soft, hard = limit["type"], limit["soft"], limit["hard"]
        present = rlimits.get(kind) if not pid else _limits_of(kind, pid)
        if present == (soft, hard):
            continue
        try:
            rlimits.set(kind, soft, hard, pid)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            text = "unlimited" if present and present[1] == rlimits.INFINITY else present[1] if present else "lower"
            warn(f"{kind}: hard limit {hard} not permitted (CAP_SYS_RESOURCE is missing), stays {text}")


def _limits_of(kind: str, pid: int) -> tuple[int, int] | None:
    try:
        return rlimits.get(kind, pid)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return None


# --- identity ----------------------------------------------------------------------------------------------------


class Sets:
    """The five capability sets of a process as masks, without what this kernel or the caller has not got."""

    __slots__ = (*_SETS, "unknown")

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int

    def __init__(self, spec_process: Process) -> None:
        wanted: Any = spec_process.get("capabilities") or {}
        self.unknown: list[str] = []
        for name in _SETS:
            mask = 0
            for capability in wanted.get(name) or []:
                if capability in caps.BITS:
                    mask |= 1 << caps.BITS[capability]
                elif capability not in self.unknown:
                    self.unknown.append(capability)
            setattr(self, name, mask)


def identity(spec_process: Process) -> list[Step]:
    """Bounding set, groups, user, and then the other four sets."""
    user = spec_process.get("user") or {}
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    groups = user.get("additionalGids") or []
    sets = Sets(spec_process)

    def drop_bounding(setup: Setup) -> None:
        for name in sets.unknown:
            setup.warn(f"process.capabilities: {name}: unknown, ignored")
        caps.drop_bounding(~sets.bounding & ((1 << 64) - 1))

    def become(setup: Setup) -> None:
        process.set_keepcaps(True)
        _set_groups(setup, groups)
        process.setresgid(gid, gid, gid)
        process.setresuid(uid, uid, uid)
        process.set_keepcaps(False)
        process.set_dumpable(False)

    def set_caps(setup: Setup) -> None:
        _set_capabilities(setup, sets)

    texts = {name: _names(getattr(sets, name)) for name in _SETS}
    return [
        Step("drop bounding set", f"prctl(PR_CAPBSET_DROP, all but {texts['bounding']})", drop_bounding),
        Step(
            f"become user {uid}:{gid}",
            f"setgroups({groups}); setresgid({gid}, {gid}, {gid}); setresuid({uid}, {uid}, {uid})",
            become,
            command=f"setpriv --reuid={uid} --regid={gid} --groups={','.join(map(str, groups)) or 'none'} …",
        ),
        Step(
            "set capabilities",
            f"capset(effective={texts['effective']}, permitted={texts['permitted']}, "
            f"inheritable={texts['inheritable']}); prctl(PR_CAP_AMBIENT, {texts['ambient']})",
            set_caps,
            command="setpriv --bounding-set=… --inh-caps=… --ambient-caps=… …",
        ),
    ]


def _names(mask: int) -> str:
    return ",".join(name.removeprefix("CAP_").lower() for name in caps.names(mask)) or "none"


def _set_groups(setup: Setup, groups: list[int]) -> None:
    try:
        process.setgroups(groups)
    except OSError as error:
        # In a user namespace of an ordinary user without subordinate ids, setgroups(2) is denied for good.
        if error.errno != errno.EPERM or setup.proc.read("self/setgroups").strip() != b"deny":
            raise
        if groups:
            raise NotSupported(
                "process.user.additionalGids: groups cannot be set in this user namespace",
                hint="it needs subordinate ids: see subuid(5) and newgidmap(1)",
            ) from None


def _set_capabilities(setup: Setup, sets: Sets) -> None:
    held = caps.get().permitted
    lacking = sets.permitted & ~held
    if lacking:
        setup.warn(f"process.capabilities: {_names(lacking)}: not held by the caller, left out")
    permitted, inheritable = sets.permitted & held, sets.inheritable & held
    caps.set(sets.effective & permitted, permitted, inheritable)
    caps.set_ambient(sets.ambient & permitted & inheritable)


def no_new_privileges() -> Step:
    """The step for noNewPrivileges."""
    return Step(
        "set no_new_privs",
        "prctl(PR_SET_NO_NEW_PRIVS, 1)",
        lambda _: process.set_no_new_privs(),
        command="setpriv --no-new-privs …",
    )


def exec_label(spec_process: Process) -> tuple[str, str]:
    """(file below a procfs, label) that the sealed image writes before it executes the program; ("", "") for none.

    Raises:
        NotSupported: the host has not got the security module: never run without it (CVE-2025-65105).
    """
    profile = spec_process.get("apparmorProfile") or ""
    if profile:
        if _read("/sys/module/apparmor/parameters/enabled")[:1] != "Y":
            raise NotSupported(f"process.apparmorProfile: {profile}: this host has no AppArmor")
        own = "thread-self/attr/apparmor/exec"
        return (own if os.path.exists(f"/proc/{own}") else "thread-self/attr/exec"), f"exec {profile}"
    label = spec_process.get("selinuxLabel") or ""
    if label:
        require_selinux(f"process.selinuxLabel: {label}")
        return "thread-self/attr/exec", label
    return "", ""


def require_selinux(what: str) -> None:
    """NotSupported unless SELinux is there to do it."""
    if not os.path.exists("/sys/fs/selinux/enforce"):
        raise NotSupported(f"{what}: this host has no SELinux")


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(64).decode("ascii", "replace")
    except OSError:
        return ""


class acting_as:  # noqa: N801 (a context manager that reads like a verb)
    """Make files as another user, with all capabilities kept; does nothing for 0, 0."""

    __slots__ = ("_caps", "_gid", "_uid")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid, self._gid = uid, gid
        self._caps = caps.Caps()

    def __enter__(self) -> None:
        if self._uid or self._gid:
            self._caps = caps.get()
            self._become(self._uid, self._gid)

    def __exit__(self, *_: object) -> None:
        if self._uid or self._gid:
            self._become(0, 0)

    def _become(self, uid: int, gid: int) -> None:
        libc.setfsgid(gid)
        libc.setfsuid(uid)  # takes the file capabilities from the effective set
        caps.set(self._caps.effective, self._caps.permitted, self._caps.inheritable)


# --- the program -------------------------------------------------------------------------------------------------


def environment(spec_process: Process, root: Root) -> dict[bytes, bytes]:
    """The program's environment: the configuration's, and HOME if it does not say. Later entries win."""
    env: dict[bytes, bytes] = {}
    for entry in spec_process.get("env") or []:
        name, _, value = os.fsencode(entry).partition(b"=")
        env[name] = value
    if not env.get(b"HOME"):
        env[b"HOME"] = home_of((spec_process.get("user") or {}).get("uid", 0), root)
    return env


def home_of(uid: int, root: Root) -> bytes:
    """The home directory that the container's /etc/passwd gives a user; "/" without one.

    Read by us, bounded and below the root: the C library would load what the container's nsswitch.conf names.
    """
    try:
        text = root.read("/etc/passwd", _PASSWD_LIMIT)
    except OSError:
        return b"/"
    for line in text.split(b"\n"):
        fields = line.split(b":") if len(line) <= _LINE_LIMIT else []
        if len(fields) >= 6 and fields[2] == b"%d" % uid and fields[5].startswith(b"/"):
            return fields[5]
    return b"/"


def enter_directory(root: Root, cwd: str) -> None:
    """Go to a directory of the container.

    Raises:
        OSError: as chdir(2); ELOOP for a magic link, ENOENT where the directory is not below the root: neither may
            hand out a directory of the host (CVE-2024-21626).
    """
    fd = root.open(cwd, os.O_PATH | os.O_DIRECTORY)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)
    verify_directory(cwd)


def verify_directory(cwd: str) -> None:
    """OSError unless the present directory can be reached from the root."""
    try:
        here = os.getcwdb()
    except OSError:
        here = b""
    if not here.startswith(b"/"):
        os.chdir("/")
        raise OSError(errno.ENOENT, "the directory is outside the container", cwd)


def find_program(name: str, env: dict[bytes, bytes]) -> bytes:
    """The path that args[0] stands for, for who we are now.

    Raises:
        OSError: ENOENT or EACCES, with the words that engines look for.
    """
    shown = f'exec: "{name}"'
    wanted = os.fsencode(name)
    if not wanted:
        raise OSError(errno.ENOENT, "no command specified")
    if b"/" in wanted:
        problem = _not_executable(wanted)
        if problem:
            raise OSError(problem, f"{shown}: {os.strerror(problem).lower()}")
        return wanted
    forbidden = False
    for directory in env.get(b"PATH", b"/bin:/usr/bin").split(b":"):
        candidate = directory + b"/" + wanted if directory else wanted
        problem = _not_executable(candidate)
        if not problem:
            return candidate if directory else b"./" + wanted
        forbidden = forbidden or problem == errno.EACCES
    if forbidden:
        raise OSError(errno.EACCES, f"{shown}: permission denied")
    raise OSError(errno.ENOENT, f"{shown}: executable file not found in $PATH")


def _not_executable(path: bytes) -> int:
    """The errno that keeps us from executing `path`; 0 for none."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno or errno.ENOENT
    if stat.S_ISDIR(found.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return 0
