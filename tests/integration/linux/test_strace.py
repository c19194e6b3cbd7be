"""Every wrapper's call as strace decodes it: that each argument arrives where and as wide as it is meant."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import hutch.linux
from tests.support import requires

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(hutch.linux.__file__)))

# The call, and the pattern that strace's line must match. Most fail on purpose: the arguments are the point.
CALLS = [
    (
        'mount.mount("src", "/no", "tmpfs", mount.MS_NOSUID | mount.MS_REC, "size=1k")',
        r'mount\("src", "/no", "tmpfs", MS_NOSUID\|MS_REC, "size=1k"\)',
    ),
    (
        'mount.mount(None, "/no", None, mount.MS_REC | mount.MS_PRIVATE)',
        r'mount\(NULL, "/no", NULL, MS_REC\|MS_PRIVATE, NULL\)',
    ),
    (
        'mount.umount2("/no", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)',
        r'umount2\("/no", MNT_DETACH\|UMOUNT_NOFOLLOW\)',
    ),
    ('mount.pivot_root("/no", "/old")', r'pivot_root\("/no", "/old"\)'),
    ('mount.fsopen("nosuchfs")', r'fsopen\("nosuchfs", FSOPEN_CLOEXEC\)'),
    (
        'mount.fspick(-100, "/no", mount.FSPICK_SYMLINK_NOFOLLOW)',
        r'fspick\(AT_FDCWD, "/no", FSPICK_CLOEXEC\|FSPICK_SYMLINK_NOFOLLOW\)',
    ),
    ('mount.fspick(77, "")', r'fspick\(77, "", FSPICK_CLOEXEC\|FSPICK_EMPTY_PATH\)'),
    ('mount.fsconfig_flag(77, "ro")', r'fsconfig\(77, FSCONFIG_SET_FLAG, "ro", NULL, 0\)'),
    ('mount.fsconfig_string(77, "k", "v")', r'fsconfig\(77, FSCONFIG_SET_STRING, "k", "v", 0\)'),
    (r'mount.fsconfig_binary(77, "k", b"a\0b")', r'fsconfig\(77, FSCONFIG_SET_BINARY, "k", "\\x61\\x00\\x62", 3\)'),
    ('mount.fsconfig_path(77, "k", "/p")', r'fsconfig\(77, FSCONFIG_SET_PATH, "k", "/p", AT_FDCWD\)'),
    ('mount.fsconfig_path(77, "k", "", 78)', r'fsconfig\(77, FSCONFIG_SET_PATH_EMPTY, "k", "", 78\)'),
    ('mount.fsconfig_fd(77, "k", 78)', r'fsconfig\(77, FSCONFIG_SET_FD, "k", NULL, 78\)'),
    ("mount.fsconfig_create(77)", r"fsconfig\(77, FSCONFIG_CMD_CREATE, NULL, NULL, 0\)"),
    (
        "mount.fsconfig_create(77, exclusive=True)",
        r"fsconfig\(77, (FSCONFIG_CMD_CREATE_EXCL|0x8 [^,]*), NULL, NULL, 0\)",
    ),
    ("mount.fsconfig_reconfigure(77)", r"fsconfig\(77, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0\)"),
    (
        "mount.fsmount(77, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODIRATIME)",
        r"fsmount\(77, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY\|MOUNT_ATTR_NODIRATIME\)",
    ),
    (
        'mount.open_tree(-100, "/no", mount.OPEN_TREE_CLONE | abi.AT_RECURSIVE)',
        r'open_tree\(AT_FDCWD, "/no", OPEN_TREE_CLONE\|OPEN_TREE_CLOEXEC\|AT_RECURSIVE\)',
    ),
    ('mount.open_tree(77, "")', r'open_tree\(77, "", OPEN_TREE_CLOEXEC\|AT_EMPTY_PATH\)'),
    (
        'mount.move_mount(77, "", 78, "")',
        r'move_mount\(77, "", 78, "", MOVE_MOUNT_F_EMPTY_PATH\|MOVE_MOUNT_T_EMPTY_PATH\)',
    ),
    (
        'mount.move_mount(77, "a", 78, "b", mount.MOVE_MOUNT_T_SYMLINKS)',
        r'move_mount\(77, "a", 78, "b", MOVE_MOUNT_T_SYMLINKS\)',
    ),
    (
        "mount.set_group(77, 78)",
        r'move_mount\(77, "", 78, "", MOVE_MOUNT_F_EMPTY_PATH\|MOVE_MOUNT_T_EMPTY_PATH\|(MOVE_MOUNT_SET_GROUP|0x100)\)',
    ),
    (
        (
            'mount.mount_setattr(77, "", abi.AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_RDONLY,'
            " attr_clr=mount.MOUNT_ATTR_NOSUID,"
            " propagation=mount.MS_SLAVE, userns_fd=78)"
        ),
        (
            r'mount_setattr\(77, "", AT_EMPTY_PATH\|AT_RECURSIVE, \{attr_set=MOUNT_ATTR_RDONLY\|MOUNT_ATTR_IDMAP, '
            r"attr_clr=MOUNT_ATTR_NOSUID, propagation=MS_SLAVE, userns_fd=78\}, 32\)"
        ),
    ),
    (
        'paths.openat2(77, "p", os.O_CREAT | os.O_RDWR, 0o640, paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS)',
        (
            r'openat2\(77, "p", \{flags=O_RDWR\|O_CREAT\|O_CLOEXEC, mode=0640, '
            r"resolve=RESOLVE_NO_MAGICLINKS\|RESOLVE_IN_ROOT\}, 24\)"
        ),
    ),
    ("paths.filesystem_type(0)", r"fstatfs\(0, \{f_type=\w+"),
    (
        "namespaces.unshare(namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWTIME)",
        r"unshare\(CLONE_NEWTIME\|CLONE_NEWUTS\)",
    ),
    ("namespaces.setns(77, namespaces.CLONE_NEWNET)", r"setns\(77, CLONE_NEWNET\)"),
    ("process.pidfd_open(99999999)", r"pidfd_open\(99999999, 0\)"),
    ("process.pidfd_send_signal(77, 9)", r"pidfd_send_signal\(77, SIGKILL, NULL, 0\)"),
    ("process.pidfd_getfd(77, 5)", r"pidfd_getfd\(77, 5, 0\)"),
    (
        "process.close_range(500, flags=process.CLOSE_RANGE_CLOEXEC)",
        r"close_range\(500, 4294967295, CLOSE_RANGE_CLOEXEC\)",
    ),
    ("process.set_dumpable(False)", r"prctl\(PR_SET_DUMPABLE, SUID_DUMP_DISABLE\)"),
    ("process.set_pdeathsig(15)", r"prctl\(PR_SET_PDEATHSIG, SIGTERM\)"),
    ("process.set_keepcaps(True)", r"prctl\(PR_SET_KEEPCAPS, 1\)"),
    ("process.set_child_subreaper(True)", r"prctl\(PR_SET_CHILD_SUBREAPER, 1\)"),
    ('process.set_name("name")', r'prctl\(PR_SET_NAME, "name"\)'),
    ("process.set_no_new_privs()", r"prctl\(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0\)"),
    (
        (
            'process.set_scheduler("SCHED_DEADLINE", flags=1, nice=-3, priority=2, runtime_nanos=1 << 40,'
            " deadline_nanos=1 << 41,"
            " period_nanos=1 << 42)"
        ),
        (
            r"sched_setattr\(0, \{size=48, sched_policy=SCHED_DEADLINE, sched_flags=SCHED_FLAG_RESET_ON_FORK, "
            r"sched_nice=-3, sched_priority=2, sched_runtime=1099511627776, "
            r"sched_deadline=2199023255552, sched_period=4398046511104\}, 0\)"
        ),
    ),
    (
        'process.ioprio_set("IOPRIO_CLASS_BE", 5)',
        r"ioprio_set\(IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE\(IOPRIO_CLASS_BE, 5\)\)",
    ),
    ("process.personality(0xFFFFFFFF)", r"personality\(0xffffffff\)"),
    (
        'caps.set(caps.mask(["CAP_CHOWN", "CAP_BPF"]), caps.mask(["CAP_CHOWN", "CAP_BPF", "CAP_SYSLOG"]), 0)',
        (
            r"capset\(\{version=_LINUX_CAPABILITY_VERSION_3, pid=0\}, \{effective=1<<CAP_CHOWN\|1<<CAP_BPF, "
            r"permitted=1<<CAP_CHOWN\|1<<CAP_SYSLOG\|1<<CAP_BPF, inheritable=0\}\)"
        ),
    ),
    ("caps.set_ambient(1 << 3)", r"prctl\(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_FOWNER, 0, 0\)"),
    ("caps.drop_bounding(1 << 7)", r"prctl\(PR_CAPBSET_DROP, CAP_SETUID"),
    (
        'seccomp.load(bytes.fromhex("06000000" "0000ff7f"), seccomp.FILTER_FLAG_LOG | seccomp.FILTER_FLAG_SPEC_ALLOW)',
        (
            r"seccomp\(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG\|SECCOMP_FILTER_FLAG_SPEC_ALLOW, "
            r"\{len=1, filter=\[BPF_STMT\(BPF_RET\|BPF_K, SECCOMP_RET_ALLOW\)\]\}\)"
        ),
    ),
    ("seccomp.action_available(seccomp.RET_LOG)", r"seccomp\(SECCOMP_GET_ACTION_AVAIL, 0, \[SECCOMP_RET_LOG\]\)"),
    ("seccomp.notification_sizes()", r"seccomp\(SECCOMP_GET_NOTIF_SIZES, 0, "),
    ('keyring.join_session_keyring("ring")', r'keyctl\(KEYCTL_JOIN_SESSION_KEYRING, "ring"\)'),
    (
        "keyring.set_permissions(keyring.SESSION_KEYRING, keyring.POSSESSOR_ALL | keyring.USER_VIEW)",
        r"keyctl\(KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING, KEY_POS_VIEW\|.*KEY_USR_VIEW\)",
    ),
    (
        'rlimits.set("RLIMIT_NOFILE", 1 << 33, rlimits.INFINITY)',
        r"prlimit64\(0, RLIMIT_NOFILE, \{rlim_cur=8388608\*1024, rlim_max=RLIM64_INFINITY\}, NULL\)",
    ),
    (
        'bpf.load_device_program(bytes.fromhex("b700000001000000" "9500000000000000"))',
        (
            r"bpf\(BPF_PROG_LOAD, \{prog_type=BPF_PROG_TYPE_CGROUP_DEVICE, insn_cnt=2, "
            r'insns=\[.*imm=0x1\}, .*BPF_EXIT.*\], license="GPL", log_level=0.*\}, 256\)'
        ),
    ),
    (
        "bpf.attach(77, 78, bpf.F_ALLOW_MULTI, replace_fd=79)",
        (
            r"bpf\(BPF_PROG_ATTACH, \{target_fd=77, attach_bpf_fd=78, attach_type=BPF_CGROUP_DEVICE, "
            r"attach_flags=BPF_F_ALLOW_MULTI\|BPF_F_REPLACE, replace_bpf_fd=79\}, 256\)"
        ),
    ),
    (
        "bpf.detach(77, 78)",
        r"bpf\(BPF_PROG_DETACH, \{target_fd=77, (attach_bpf_fd=78, )?attach_type=BPF_CGROUP_DEVICE.*\}, 256\)",
    ),
    (
        "bpf.query(77)",
        r"bpf\(BPF_PROG_QUERY, \{query=\{target_fd=77, attach_type=BPF_CGROUP_DEVICE, query_flags=0.*prog_cnt=64",
    ),
    ("bpf.open_program(0x7FFFFFFF)", r"bpf\(BPF_PROG_GET_FD_BY_ID, \{prog_id=2147483647, .*\}, 256\)"),
]

PROGRAM = """
import os, sys
sys.path.insert(0, {source!r})
from hutch.linux import abi, bpf, caps, keyring, mount, namespaces, paths, process, rlimits, seccomp
for number, call in enumerate({calls!r}):
    os.access("/mark/%d" % number, 0)
    try:
        eval(call)
    except OSError:
        pass
os.access("/mark/end", 0)
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> list[str]:
    """What strace wrote between one mark and the next."""
    log = tmp_path_factory.mktemp("strace") / "log"
    program = PROGRAM.format(source=SOURCE, calls=[call for call, _ in CALLS])
    command = ["strace", "-o", str(log), "-s", "200", "-v", sys.executable, "-I", "-S", "-c", program]
    subprocess.run(command, check=True, capture_output=True)
    parts = re.split(r'access\("/mark/\w+", F_OK\).*\n', log.read_text())
    assert len(parts) == len(CALLS) + 2
    return parts[1:-1]


@requires("root", "program:strace", "machine:x86_64")
@pytest.mark.parametrize("number", range(len(CALLS)), ids=[call.partition("(")[0] for call, _ in CALLS])
def test_call_is_decoded_as_meant(traced, number):
    assert re.search(f"^{CALLS[number][1]}", traced[number], re.MULTILINE), traced[number]
