"""Numbers and memory layouts of the kernel's interface: system calls, shared flags, structs.

A flag that belongs to one facility stands in that facility's module (`mount.MS_BIND`,
`paths.RESOLVE_IN_ROOT`); here is what several of them share. Only 64-bit little-endian machines are
known: x86-64 and arm64.
"""

from __future__ import annotations

import errno
import os
import sys
from ctypes import Structure, c_char, c_int32, c_long, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class _Unified:
    """System calls since Linux 5.1: one number everywhere."""

    pidfd_send_signal = 424
    open_tree = 428
    move_mount = 429
    fsopen = 430
    fsconfig = 431
    fsmount = 432
    fspick = 433
    pidfd_open = 434
    clone3 = 435
    close_range = 436
    openat2 = 437
    pidfd_getfd = 438
    mount_setattr = 442
    landlock_create_ruleset = 444
    landlock_add_rule = 445
    landlock_restrict_self = 446
    setxattrat = 463
    getxattrat = 464
    listxattrat = 465
    removexattrat = 466


class _X86_64(_Unified):
    personality = 135
    fstatfs = 138
    pivot_root = 155
    prctl = 157
    mount = 165
    umount2 = 166
    capget = 125
    capset = 126
    set_mempolicy = 238
    keyctl = 250
    ioprio_set = 251
    ioprio_get = 252
    unshare = 272
    prlimit64 = 302
    rt_sigaction = 13
    setns = 308
    sched_setattr = 314
    sched_getattr = 315
    renameat2 = 316
    seccomp = 317
    bpf = 321


class _Arm64(_Unified):
    ioprio_set = 30
    ioprio_get = 31
    umount2 = 39
    mount = 40
    pivot_root = 41
    fstatfs = 44
    capget = 90
    capset = 91
    personality = 92
    unshare = 97
    prctl = 167
    keyctl = 219
    set_mempolicy = 237
    prlimit64 = 261
    rt_sigaction = 134
    setns = 268
    sched_setattr = 274
    sched_getattr = 275
    renameat2 = 276
    seccomp = 277
    bpf = 280


class _Unknown:
    """Stands in on other machines, so that importing works and the first call says what is wrong."""

    def __init__(self, machine: str) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> NoReturn:
        text = f"system calls of this machine are not known: {self._machine} (known: 64-bit x86_64, aarch64)"
        raise OSError(errno.ENOSYS, text)


def numbers(machine: str) -> type[_X86_64 | _Arm64] | _Unknown:
    """The system call numbers of a machine, as `os.uname().machine` names it."""
    known: dict[str, type[_X86_64 | _Arm64]] = {"x86_64": _X86_64, "aarch64": _Arm64}
    if machine in known and sys.maxsize > 2**32:
        return known[machine]
    return _Unknown(machine)


MACHINE = os.uname().machine
NR = numbers(MACHINE)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
DEVPTS_SUPER_MAGIC = 0x1CD1
NSFS_MAGIC = 0x6E736673
OVERLAYFS_SUPER_MAGIC = 0x794C7630
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994

# The audit architectures that seccomp sees in `arch`.
AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028


class MountAttr(Structure):
    """struct mount_attr: mount_setattr(2)."""

    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


class OpenHow(Structure):
    """struct open_how: openat2(2)."""

    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class StatFs(Structure):
    """struct statfs: only the type is of interest; the rest is room for what the kernel writes."""

    _fields_ = (("f_type", c_long), ("rest", c_char * 248))


class Rlimit(Structure):
    """struct rlimit64: prlimit(2)."""

    _fields_ = (("soft", c_uint64), ("hard", c_uint64))


class SchedAttr(Structure):
    """struct sched_attr with the utilisation clamps of Linux 5.3: sched_setattr(2)."""

    _fields_ = (
        ("size", c_uint32),
        ("policy", c_uint32),
        ("flags", c_uint64),
        ("nice", c_int32),
        ("priority", c_uint32),
        ("runtime", c_uint64),
        ("deadline", c_uint64),
        ("period", c_uint64),
        ("util_min", c_uint32),
        ("util_max", c_uint32),
    )


class XattrArgs(Structure):
    """struct xattr_args: getxattrat(2), setxattrat(2)."""

    _fields_ = (("value", c_uint64), ("size", c_uint32), ("flags", c_uint32))


class CapHeader(Structure):
    """struct __user_cap_header_struct: capget(2), capset(2)."""

    _fields_ = (("version", c_uint32), ("pid", c_int32))


class CapData(Structure):
    """struct __user_cap_data_struct: version 3 takes two, the low word first."""

    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


class SockFprog(Structure):
    """struct sock_fprog: a classic BPF program, `len` instructions of eight bytes."""

    _fields_ = (("len", c_uint16), ("filter", c_void_p))


class SeccompData(Structure):
    """struct seccomp_data: the call a filter or a listener sees."""

    _fields_ = (("nr", c_int32), ("arch", c_uint32), ("instruction_pointer", c_uint64), ("args", c_uint64 * 6))


class SeccompNotif(Structure):
    """struct seccomp_notif: what a listener receives."""

    _fields_ = (("id", c_uint64), ("pid", c_uint32), ("flags", c_uint32), ("data", SeccompData))


class SeccompNotifResp(Structure):
    """struct seccomp_notif_resp: what a listener answers; `error` is a negative errno."""

    _fields_ = (("id", c_uint64), ("val", c_uint64), ("error", c_int32), ("flags", c_uint32))


class SeccompNotifAddfd(Structure):
    """struct seccomp_notif_addfd: a descriptor for the process that waits."""

    _fields_ = (
        ("id", c_uint64),
        ("flags", c_uint32),
        ("srcfd", c_uint32),
        ("newfd", c_uint32),
        ("newfd_flags", c_uint32),
    )


class BpfAttr(Structure):
    """union bpf_attr as 256 zeroed bytes: some kernels write past the length they were given."""

    _fields_ = (("bytes", c_uint8 * 256),)
