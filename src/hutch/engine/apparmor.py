"""AppArmor: the profile that root's containers run under, loaded when it is not there, and the choice of another.

The profile takes from a container what its capabilities might still give it: changing mounts, writing to what the
kernel shows in /proc and /sys beyond its own processes and cgroup, tracing and signalling others. An ordinary user can
load no profile; one that root has loaded can be asked for by name.
"""

from __future__ import annotations

import os

from hutch.errors import NotSupported, Unavailable
from hutch.snapshot.idmap import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.host import HostFacts
    from hutch.engine.options import RunOptions

DEFAULT_PROFILE = "hutch-default"
PROFILE = """\
# Made by hutch; `apparmor_parser --replace` puts an edited copy in its place until the next start of the system.
profile hutch-default flags=(attach_disconnected,mediate_deleted) {
  # What is not named below is left to capabilities, the system call filter and file permissions.
  capability,
  file,
  network,
  unix,

  # The kernel's cryptography by sockets: rarely used, and never namespaced.
  deny network alg,

  # The tree of mounts is the runtime's alone.
  deny mount,
  deny remount,
  deny umount,
  deny pivot_root,

  # Other processes: only those of containers; the host may signal them.
  ptrace (trace, tracedby, read, readby) peer=hutch-default,
  signal (send, receive) peer=hutch-default,
  signal (receive) peer={unconfined,hutch,hutch-oci,runc,crun,podman},

  # /proc: a process writes below its own number, and to /proc/sys/kernel/shm*, which its IPC namespace owns.
  deny /proc/* w,
  deny /proc/{[^0-9s],s[^y],sy[^s],sys[^/]}*/** w,
  deny /proc/sys/{[^k],k[^e],ke[^r],ker[^n]}** w,
  deny /proc/sys/kernel/{[^s],s[^h],sh[^m]}** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  # /sys: nothing is written but cgroups; what tells about the hardware or the host's policy is not read either.
  deny /sys/{[^f],f[^s]}** wklx,
  deny /sys/fs/{[^c],c[^g],cg[^r],cgr[^o]}** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
"""

_PARSERS = ("/usr/sbin/apparmor_parser", "/sbin/apparmor_parser")
_LOADED = "/sys/kernel/security/apparmor/profiles"
_LOADED_LIMIT = 1 << 20
_STAMP = "apparmor"
_LOAD_TIMEOUT_S = 60


def obstacle(facts: HostFacts) -> str:
    """Why containers of this caller get no profile by default; empty if they do."""
    if not facts.apparmor:
        return "AppArmor is not enabled"
    if facts.rootless or in_user_namespace():
        return "only root loads AppArmor profiles"
    if not _parser():
        return "apparmor_parser is not installed"
    return "" if _loaded() is not None else f"{_LOADED} cannot be read"


def profile_for(options: RunOptions, facts: HostFacts, state: str) -> str:
    """The name of the profile a container is to run under; empty for none. The default one is loaded if need be.

    Args:
        options: what --security-opt and --privileged say.
        facts: the host.
        state: the state directory, where it is noted which text of the profile has been loaded.

    Raises:
        NotSupported: a profile asked for by name that is not there (CVE-2025-65105).
        Unavailable: the default profile cannot be loaded.
    """
    wanted = options.security.apparmor
    if wanted == "unconfined" or (options.privileged and not wanted):
        return ""
    if not wanted and obstacle(facts):
        return ""
    if not facts.apparmor:
        raise NotSupported(f"--security-opt apparmor={wanted}: AppArmor is not enabled on this system")
    names = _loaded()
    if wanted in ("", DEFAULT_PROFILE) and names is not None and not facts.rootless:
        ensure(state)
        return DEFAULT_PROFILE
    if names is not None and wanted not in names:
        raise NotSupported(
            f"--security-opt apparmor={wanted}: no such profile is loaded", hint="load it with apparmor_parser"
        )
    return wanted  # an ordinary user cannot look; the kernel refuses what is not there when the program is executed


def ensure(state: str) -> None:
    """Load the default profile unless it is there, in this text. Raises Unavailable as `load` does."""
    names = _loaded()
    if names is None or DEFAULT_PROFILE not in names or not _is_stamped(state):
        load(state)


def load(state: str) -> None:
    """Load the default profile, in place of any other version of it, and note that in the state directory.

    Raises:
        Unavailable: apparmor_parser is missing or failed.
    """
    import subprocess

    parser = _parser()
    hint = "--security-opt apparmor=unconfined runs without it"
    if not parser:
        raise Unavailable(f"AppArmor profile {DEFAULT_PROFILE}: apparmor_parser is not installed", hint=hint)
    try:
        done = subprocess.run(
            [parser, "--replace", "--skip-cache"], input=PROFILE.encode(), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, cwd="/",
            timeout=_LOAD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"AppArmor profile {DEFAULT_PROFILE}: {error}", hint=hint) from None
    if done.returncode:
        said = " ".join(done.stderr[:2000].decode(errors="replace").split())
        raise Unavailable(f"AppArmor profile {DEFAULT_PROFILE}: apparmor_parser: {said}", hint=hint)
    stamp = f"{state}/{_STAMP}"
    with open(f"{stamp}.new-{os.getpid()}", "w", encoding="ascii") as file:
        file.write(_digest())
    os.rename(file.name, stamp)


def _parser() -> str:
    return next((path for path in _PARSERS if os.access(path, os.X_OK)), "")


def _loaded() -> set[str] | None:
    """Names of the profiles in the kernel; None if this caller may not know."""
    try:
        with open(_LOADED, "rb") as file:
            text = file.read(_LOADED_LIMIT).decode(errors="replace")
    except OSError:
        return None
    return {line.rpartition(" (")[0] for line in text.splitlines()}


def _is_stamped(state: str) -> bool:
    try:
        with open(f"{state}/{_STAMP}", encoding="ascii", errors="replace") as file:
            return file.read(200) == _digest()
    except OSError:
        return False


def _digest() -> str:
    from hashlib import sha256

    return sha256(PROFILE.encode()).hexdigest()
