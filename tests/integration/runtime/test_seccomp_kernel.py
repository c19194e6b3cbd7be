"""Compiled filters in the real kernel: a forked child loads one and makes calls, of x86-64 and of i386."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct

import pytest

from hutch.engine import seccomp_profile
from hutch.linux import process
from hutch.linux import seccomp as kernel
from hutch.runtime import seccomp, syscalls
from tests.support import requires

pytestmark = [requires("machine:x86_64"), pytest.mark.host]

DEFAULT_CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"]
NUMBERS = syscalls.numbers("x86_64")

# int i386(int number, int first, int second): push rbx; mov eax,edi; mov ebx,esi; mov ecx,edx; int 0x80; pop rbx; ret
I386_GATE = bytes.fromhex("53 89f8 89f3 89d1 cd80 5b c3")


def plain_call(number, *args):
    """Make one call of this architecture; 0 or the error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg) for arg in args])
    return ctypes.get_errno() if result == -1 else 0


def i386_gate():
    """A function that makes an i386 call through the gate that every 64-bit process has."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(I386_GATE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    gate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
    return page, lambda number, first=0, second=0: -gate(number, first, second)


def in_child(profile, calls):
    """Load `profile` in a child, run `calls` there; returns their results, or the signal that ended the child."""
    program = seccomp.compile_profile(profile, architecture="x86_64")
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            process.set_no_new_privs()
            kernel.load(program.code, program.flags)
            os.write(write_fd, struct.pack(f"{len(calls)}i", *(call() for call in calls)))
        finally:
            os._exit(0)
    os.close(write_fd)
    data = b"".join(iter(lambda: os.read(read_fd, 65536), b""))
    os.close(read_fd)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    return list(struct.unpack(f"{len(data) // 4}i", data))


def test_j07_every_denied_call_fails_as_the_table_says() -> None:
    """All numbers the default profile refuses, made for real, with arguments that do no harm if it did not."""
    profile = seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64")
    allowed = set(profile["syscalls"][0]["names"]) | {"ioctl", "personality", "clone", "socket"}
    newest = max(NUMBERS[name] for name in allowed)
    wanted = {
        number: errno.ENOSYS if name == "clone3" or number > newest else errno.EPERM
        for name, number in NUMBERS.items()
        if name not in allowed
    }
    # Kernels that have it let uprobe past every filter: only a trampoline of theirs may call it (kernel/seccomp.c).
    del wanted[NUMBERS["uprobe"]]
    wanted.update(dict.fromkeys([471, 499, 600, 0x3FFFFFFF], errno.ENOSYS))
    # x32 has the architecture of x86-64 and another number for everything
    wanted.update({number | syscalls.X32_BIT: errno.EPERM for number in range(0, 460, 7)})
    assert len(wanted) > 140
    got = in_child(profile, [lambda n=number: plain_call(n, *[0] * 6) for number in wanted])
    assert dict(zip(wanted, got, strict=True)) == wanted


def test_j05_sockets_of_kernel_crypto_and_virtual_machines() -> None:
    profile = seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64")
    page, gate = i386_gate()
    number = NUMBERS["socket"]
    got = in_child(
        profile,
        [
            lambda: plain_call(number, socket.AF_UNIX, socket.SOCK_STREAM, 0),
            lambda: plain_call(number, 40, socket.SOCK_STREAM, 0),
            lambda: plain_call(number, 38, socket.SOCK_SEQPACKET, 0),
            lambda: plain_call(number, 1 << 32 | 40, socket.SOCK_STREAM, 0),
            lambda: plain_call(number, 1 << 63 | 38, socket.SOCK_SEQPACKET, 0),
            lambda: gate(359, 40, socket.SOCK_STREAM),  # i386 socket
            lambda: gate(102, 1, 0),  # i386 socketcall(SYS_SOCKET, …)
        ],
    )
    assert got == [0, *[errno.EPERM] * 6]
    del page


@requires("root")
def test_j02_no_cgroup_hierarchy_can_be_mounted_or_namespace_made_to_mount_one(tmp_path) -> None:
    """The way to release_agent is a mount of cgroup v1, as root or in a new user namespace (CVE-2022-0492)."""
    profile = seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64")
    target = ctypes.create_string_buffer(os.fsencode(tmp_path))
    fstype, options = ctypes.create_string_buffer(b"cgroup"), ctypes.create_string_buffer(b"rdma")
    at, kind, data = map(ctypes.addressof, (target, fstype, options))
    calls = [
        lambda: plain_call(NUMBERS["mount"], kind, at, kind, 0, data),
        lambda: plain_call(NUMBERS["fsopen"], kind, 0),
        *(lambda f=flag: plain_call(NUMBERS["unshare"], f) for flag in (0x20000, 0x2000000, 0x10000000, 0x12020000)),
        *(lambda f=flag: plain_call(NUMBERS["clone"], f | 17, 0) for flag in (0x2000000, 0x10000000)),
    ]
    assert in_child(profile, calls) == [errno.EPERM] * len(calls)


def test_j06_the_i386_gate_is_shut_for_every_number() -> None:
    profile = seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64")
    page, gate = i386_gate()
    if gate(20) > 0:
        pytest.skip("the kernel has no i386 emulation")
    numbers = sorted(syscalls.numbers("x86").values())
    assert in_child(profile, [lambda n=number: gate(n) for number in numbers]) == [errno.EPERM] * len(numbers)
    del page


def test_i386_is_filtered_by_its_own_numbers_where_it_is_let_in() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {
                "names": ["dup3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 78,
                "args": [{"index": 0, "value": 9999, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    page, gate = i386_gate()
    if gate(20) > 0:
        pytest.skip("the kernel has no i386 emulation")
    calls = [lambda: plain_call(110), lambda: gate(64), lambda: plain_call(64, 0), lambda: gate(330, 9999)]
    assert in_child(profile, calls) == [77, 77, plain_call(64, 0), 78]
    del page


def test_j06_high_bits_do_not_pass_a_filter_that_the_kernel_would_not_see() -> None:
    """The kernel takes the low half of these arguments; so must the filter, both to deny and to allow."""
    deny = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["socket", "fcntl", "setns", "personality"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 99,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    calls = [
        lambda n=NUMBERS[name], high=high: plain_call(n, high | 1, 1, 0)
        for name in ("socket", "fcntl", "setns", "personality")
        for high in (0, 1 << 32, 1 << 40, 1 << 63)
    ]
    assert in_child(deny, calls) == [99] * 16


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("SCMP_ACT_KILL", signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", signal.SIGSYS),
        ("SCMP_ACT_TRAP", signal.SIGSYS),
        ("SCMP_ACT_TRACE", [errno.ENOSYS]),  # nobody traces
        ("SCMP_ACT_ERRNO", [errno.EPERM]),
        ("SCMP_ACT_LOG", [0]),
        ("SCMP_ACT_ALLOW", [0]),
    ],
)
def test_every_action_does_what_its_name_says(action, outcome) -> None:
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    profile = {"defaultAction": default, "syscalls": [{"names": ["sched_yield"], "action": action}]}
    assert in_child(profile, [lambda: plain_call(NUMBERS["sched_yield"])]) == outcome


def test_a_listener_answers_for_the_kernel() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [
            {
                "names": ["mkdir"],
                "action": "SCMP_ACT_NOTIFY",
                "args": [{"index": 1, "value": 0o777, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    program = seccomp.compile_profile(profile, architecture="x86_64")
    assert program.listener
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            process.set_no_new_privs()
            listener_fd = kernel.load(program.code, program.flags)
            socket.send_fds(theirs, [b"."], [listener_fd])
            os.close(listener_fd)
            os.mkdir("/nonexistent/child", 0o777)
        except OSError as error:
            status = error.errno
        finally:
            os._exit(status)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    notification = kernel.receive(fds[0])
    assert notification.data.nr == NUMBERS["mkdir"]
    kernel.respond(fds[0], notification.id, error=errno.EDOM)
    os.close(fds[0])
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EDOM
