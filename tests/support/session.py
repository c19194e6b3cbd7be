"""What a test session does to be alone on its machine: own mount namespace, own list of sessions, adopted orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading

from tests.support.files import remove_tree
from tests.support.host import cgroup_mounts

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE, _MS_SHARED = 0x4000, 1 << 19, 1 << 20
_PR_SET_CHILD_SUBREAPER = 36
_SESSIONS = "/tmp/hutch-tests-sessions"


def enter_private_mounts() -> bool:
    """Give this session mounts of its own, shared as under systemd, so that propagation mistakes show.

    What the host mounts still arrives; nothing leaves. Returns False where that is not allowed.
    """
    if os.geteuid() != 0 or threading.active_count() != 1:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    for propagation in (_MS_SLAVE, _MS_SHARED):
        if libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | propagation), None) != 0:
            raise OSError(ctypes.get_errno(), "change mount propagation of /")
    return True


def hide_hybrid_cgroup2() -> None:
    """In this session's own mounts, make a hybrid host a v1 host: crun refuses hybrid ones."""
    path = b"/sys/fs/cgroup/unified"
    libc = ctypes.CDLL(None, use_errno=True)
    if os.path.ismount(path) and libc.umount2(path, 2) != 0:
        raise OSError(ctypes.get_errno(), "unmount the second cgroup hierarchy")


def adopt_orphans() -> None:
    """Become the subreaper: what a killed program leaves running becomes our child, and a finding."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def announce() -> None:
    """Enter this process in the list of running sessions."""
    os.makedirs(_SESSIONS, mode=0o1777, exist_ok=True)
    open(f"{_SESSIONS}/{os.getpid()}", "w").close()


def sweep() -> None:
    """Remove what sessions that were killed left behind: their directories, and their cgroups without processes."""
    for name in os.listdir("/var/tmp"):
        found = re.fullmatch(r"hutch-(?:session-)?(\d+)-.*", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            with contextlib.suppress(OSError):  # another user's
                remove_tree(f"/var/tmp/{name}")
    for top, _, _ in cgroup_mounts():
        for name in os.listdir(top):
            found = re.fullmatch(r"hutch-tests-(\d+)", name)
            if found and not os.path.exists(f"/proc/{found[1]}"):
                for path, _, _ in os.walk(f"{top}/{name}", topdown=False):
                    with contextlib.suppress(OSError):  # a process is still in it
                        os.rmdir(path)


def retire() -> None:
    """Leave the list of running sessions."""
    try:
        os.unlink(f"{_SESSIONS}/{os.getpid()}")
        os.rmdir(_SESSIONS)
    except OSError:  # another session is in it
        pass


def alone() -> bool:
    """Whether no other session of these tests runs on this machine."""
    others = (name for name in os.listdir(_SESSIONS) if name.isdigit() and int(name) != os.getpid())
    return not any(os.path.exists(f"/proc/{name}") for name in others)
