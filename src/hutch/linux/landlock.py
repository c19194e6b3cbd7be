"""Landlock: a thread gives up access to files, by directory; what it starts later has given it up as well.

A ruleset *handles* rights: whatever it handles is refused but where a rule allows it, from the moment a thread
restricts itself. Only files that are opened from then on are looked at. Needs Linux 5.13 with Landlock enabled.
"""

from __future__ import annotations

import errno
import struct
from ctypes import create_string_buffer

from hutch.linux.abi import NR
from hutch.linux.libc import syscall

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULESET = struct.Struct("=QQQ")
_PATH_BENEATH = struct.Struct("=Qi")

ACCESS_FS_EXECUTE = 1 << 0
ACCESS_FS_READ_FILE = 1 << 2
ACCESS_FS_READ_DIR = 1 << 3

# How many rights each version knows: the first so many bits of struct landlock_ruleset_attr's words.
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_SINCE, _NET_RIGHTS = 4, 0b11  # bind and connect, TCP
_SCOPE_SINCE, _SCOPES = 6, 0b11  # abstract UNIX sockets and signals, outside of our own domain


def abi() -> int:
    """The kernel's version of Landlock, from 1 on; 0 where it has none or has it switched off."""
    try:
        return syscall(NR.landlock_create_ruleset, None, 0, _CREATE_RULESET_VERSION)
    except OSError as problem:
        if problem.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def fs_rights(version: int) -> int:
    """Every right over files that a version of Landlock handles (of the versions known here)."""
    return (1 << _FS_RIGHTS[min(version, max(_FS_RIGHTS))]) - 1


def create_ruleset(version: int) -> int:
    """A ruleset that handles everything the kernel's `version` can; a descriptor, close-on-exec, the caller's."""
    net = _NET_RIGHTS if version >= _NET_SINCE else 0
    scopes = _SCOPES if version >= _SCOPE_SINCE else 0
    attributes = _RULESET.pack(fs_rights(version), net, scopes)
    size = 8 if version < _NET_SINCE else 16 if version < _SCOPE_SINCE else 24
    return syscall(NR.landlock_create_ruleset, create_string_buffer(attributes, len(attributes)), size, 0)


def allow_beneath(ruleset_fd: int, directory_fd: int, rights: int) -> None:
    """Allow `rights` (of those the ruleset handles) in a directory and everywhere below it; O_PATH will do."""
    rule = _PATH_BENEATH.pack(rights, directory_fd)
    syscall(NR.landlock_add_rule, ruleset_fd, _RULE_PATH_BENEATH, create_string_buffer(rule, len(rule)), 0)


def restrict_self(ruleset_fd: int) -> None:
    """Put the calling thread under the ruleset, for good; PermissionError without no_new_privs or CAP_SYS_ADMIN."""
    syscall(NR.landlock_restrict_self, ruleset_fd, 0)
