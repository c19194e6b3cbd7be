"""Session keyrings: a container must not see, or share, the keys of who started it."""

from __future__ import annotations

from ctypes import create_string_buffer

from hutch.linux.abi import NR
from hutch.linux.libc import syscall

SESSION_KEYRING = -3  # KEY_SPEC_SESSION_KEYRING

POSSESSOR_ALL = 0x3F000000
USER_VIEW, USER_READ, USER_WRITE, USER_SEARCH, USER_LINK, USER_SETATTR = (1 << bit for bit in range(16, 22))

_JOIN_SESSION_KEYRING, _SETPERM, _DESCRIBE = 1, 5, 6


def join_session_keyring(name: str | None) -> int:
    """Join the session keyring `name`, made if there is none; None makes a nameless one.

    Returns:
        Its serial number.

    Raises:
        OSError: EDQUOT (too many keys of this user), EACCES (there is one, not searchable), ENOSYS.
    """
    return syscall(NR.keyctl, _JOIN_SESSION_KEYRING, name, path=name)


def permissions(key: int = SESSION_KEYRING) -> int:
    """The permission mask of a key: a byte each for possessor, user, group, others."""
    buffer = create_string_buffer(4096)
    syscall(NR.keyctl, _DESCRIBE, key, buffer, len(buffer))
    # type;uid;gid;mask;description
    return int(buffer.value.split(b";", 4)[3], 16)


def set_permissions(key: int, mask: int) -> None:
    """Set the permission mask of a key that we own."""
    syscall(NR.keyctl, _SETPERM, key, mask)
