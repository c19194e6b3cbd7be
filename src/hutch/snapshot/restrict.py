"""The last two walls around a process that reads what others have written: Landlock, and a seccomp filter.

They stand behind what `hutch.snapshot.confine` does. Landlock refuses to open anything outside the directories that
the process works on; the filter leaves the system calls that unpacking takes, so that a fault in a parser of ours or
in a decompression library reaches little of the kernel.

A kernel without Landlock, or with its first version only, which forbids all hard links between directories, goes
without it. seccomp is required.
"""

from __future__ import annotations

import os

from hutch.linux import landlock, seccomp
from hutch.runtime.seccomp import compile_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hutch.spec.runtime import LinuxSeccomp

_LANDLOCK_MIN = 2
_READING = landlock.ACCESS_FS_READ_FILE | landlock.ACCESS_FS_READ_DIR

# What unpacking was seen to call, and what other C libraries and older kernels take in place of it.
_FILES = (
    "openat openat2 close read readv write writev pread64 pwrite64 lseek fstat newfstatat statx fstatfs getdents64 "
    "readlinkat faccessat faccessat2 mkdirat mknodat symlinkat linkat unlinkat renameat renameat2 "
    "fchmod fchmodat fchmodat2 fchown fchownat utimensat ftruncate fallocate copy_file_range sendfile "
    "fgetxattr fsetxattr flistxattr fremovexattr getxattrat setxattrat listxattrat removexattrat "
    "dup dup3 fcntl umask fsync fdatasync poll ppoll"
)
_MEMORY = "munmap mremap madvise brk"
_THREADS = (
    "futex set_robust_list rseq sched_yield sched_getaffinity exit exit_group gettid getpid getuid geteuid getgid "
    "getegid rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall clock_gettime clock_nanosleep "
    "nanosleep gettimeofday getrandom"
)
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000
_ENOSYS = 38


def compiled_filter() -> bytes:
    """The filter, while there are still files to import its tables from."""
    return compile_profile(_profile(), architecture=os.uname().machine).code


def restrict(writable_fd: int, readable_fds: Iterable[int], program: bytes) -> None:
    """Leave the calling thread, and those it starts from now on, only what unpacking takes.

    Args:
        writable_fd: the directory to fill: everything but executing is allowed there.
        readable_fds: directories that may be read.
        program: from `compiled_filter`.

    Raises:
        OSError: the kernel refused; the caller must end then.
    """
    _restrict_files(writable_fd, readable_fds)
    seccomp.load(program, seccomp.FILTER_FLAG_SPEC_ALLOW)


def _restrict_files(writable_fd: int, readable_fds: Iterable[int]) -> None:
    version = landlock.abi()
    if version < _LANDLOCK_MIN:
        return
    ruleset_fd = landlock.create_ruleset(version)
    try:
        landlock.allow_beneath(ruleset_fd, writable_fd, landlock.fs_rights(version) & ~landlock.ACCESS_FS_EXECUTE)
        for fd in readable_fds:
            landlock.allow_beneath(ruleset_fd, fd, _READING)
        landlock.restrict_self(ruleset_fd)
    finally:
        os.close(ruleset_fd)


def _profile() -> LinuxSeccomp:
    """What is not listed is EPERM, and ENOSYS if it is newer than this list: a C library goes on without it."""
    flags = _CLONE_THREAD | _CLONE_NAMESPACES
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": [*_FILES.split(), *_MEMORY.split(), *_THREADS.split()], "action": "SCMP_ACT_ALLOW"},
            # Memory that is both written and executed is what an exploit wants first.
            {
                "names": ["mmap", "mprotect"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 2, "op": "SCMP_CMP_MASKED_EQ", "value": _PROT_EXEC, "valueTwo": 0}],
            },
            # A thread, but neither a process nor a namespace. What clone3 is asked for no filter can read.
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": flags, "valueTwo": _CLONE_THREAD}],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }
