"""Which system calls a container may make: data, by what the calls are about.

Every call that ordinary programs make of their own files, memory, processes and sockets is here. What is not: calls
that administer the machine (see `BY_CAPABILITY`), calls whose objects no namespace separates (keyctl, add_key,
bpf, userfaultfd, perf_event_open), interfaces with a record of kernel bugs (io_uring_*), and the obsolete.

Names of all architectures stand side by side; an architecture ignores those it does not have.
"""

from __future__ import annotations

FILES = """
access faccessat faccessat2 chdir fchdir getcwd chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat
lchown lchown32 creat open openat openat2 close close_range dup dup2 dup3 fcntl fcntl64 flock link linkat symlink
symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat mknod mknodat rmdir truncate
truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 umask utime utimes futimesat utimensat
utimensat_time64 name_to_handle_at
"""
FILE_FACTS = """
stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 statmount
listmount getdents getdents64
"""
FILE_ATTRIBUTES = """
getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
listxattrat removexattr lremovexattr fremovexattr removexattrat
"""
READING_AND_WRITING = """
read pread64 readv preadv preadv2 readahead write pwrite64 writev pwritev pwritev2 lseek _llseek sendfile sendfile64
copy_file_range splice tee vmsplice pipe pipe2 fsync fdatasync sync syncfs sync_file_range
"""
ASYNCHRONOUS_IO = "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64"
WAITING_FOR_FILES = """
select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1
inotify_add_watch inotify_rm_watch fanotify_mark
"""
MEMORY = """
brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal
map_shadow_stack membarrier memfd_create memfd_secret remap_file_pages pkey_alloc pkey_free pkey_mprotect cachestat
process_mrelease
"""
PROCESSES = """
execve execveat exit exit_group fork vfork wait4 waitid waitpid getpid getppid gettid getpgid setpgid getpgrp getsid
setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area rseq prctl seccomp pidfd_open
pidfd_send_signal landlock_create_ruleset landlock_add_rule landlock_restrict_self ptrace process_vm_readv
process_vm_writev restart_syscall uretprobe riscv_hwprobe
"""
FUTEXES = "futex futex_time64 futex_wait futex_wake futex_requeue futex_waitv"
SIGNALS = """
kill tkill tgkill pause alarm sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
"""
IDENTITY = """
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset
"""
SCHEDULING = """
sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getcpu
"""
LIMITS_AND_USAGE = "getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getrandom"
TIME = """
time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64 getitimer setitimer timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64
"""
SOCKETS = """
socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt recv recvfrom
recvmsg recvmmsg recvmmsg_time64 send sendto sendmsg sendmmsg
"""
MESSAGES = """
ipc msgget msgctl msgsnd msgrcv semget semctl semop semtimedop semtimedop_time64 shmget shmctl shmat shmdt mq_open
mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
"""

_GROUPS = (
    *(FILES, FILE_FACTS, FILE_ATTRIBUTES, READING_AND_WRITING, ASYNCHRONOUS_IO, WAITING_FOR_FILES, MEMORY),
    *(PROCESSES, FUTEXES, SIGNALS, IDENTITY, SCHEDULING, LIMITS_AND_USAGE, TIME, SOCKETS, MESSAGES),
)
ALWAYS: tuple[str, ...] = tuple(name for group in _GROUPS for name in group.split())

BY_ARCHITECTURE: dict[str, tuple[str, ...]] = {
    "SCMP_ARCH_X86_64": ("arch_prctl", "modify_ldt"),
    "SCMP_ARCH_X86": ("modify_ldt",),
    "SCMP_ARCH_X32": ("arch_prctl", "modify_ldt"),
    "SCMP_ARCH_AARCH64": ("sync_file_range2",),
    "SCMP_ARCH_ARM": (
        *("arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2"),
        *("breakpoint", "cacheflush", "set_tls"),
    ),
}

# A capability that a container was given would be worth nothing without the calls it is for.
BY_CAPABILITY: dict[str, tuple[str, ...]] = {
    "CAP_BPF": ("bpf",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_SYS_ADMIN": tuple(
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare".split()
    ),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
}

# Every CLONE_NEW* flag that clone(2) takes; CLONE_NEWTIME is in the signal's bits there and means nothing.
CLONE_NAMESPACES = 0x7E020000

# personality(2): PER_LINUX and PER_LINUX32, each also with UNAME26; 0xffffffff changes nothing and asks.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# Socket families that give kernel interfaces no container namespace covers: AF_ALG's crypto and AF_VSOCK's virtual
# machine sockets. CVE-2026-31431 was in the first.
DENIED_FAMILIES = (38, 40)

# Terminal ioctls that put words into another program's mouth: TIOCSTI fakes input, TIOCLINUX pastes a selection.
DENIED_IOCTLS = (0x5412, 0x541C)
