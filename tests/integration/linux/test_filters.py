"""seccomp filters and listeners, device programs, capabilities and keyrings, in children that end with them."""

from __future__ import annotations

import errno
import os
import signal
import struct

import pytest

from hutch.linux import bpf, caps, keyring, namespaces, process, seccomp, seqpacket
from hutch.linux.abi import AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64, MACHINE
from hutch.linux.proc import Proc
from tests.support import requires
from tests.support.child import in_child
from tests.support.host import cgroup_mounts

ARCH = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}[MACHINE]
UNAME = {"x86_64": 63, "aarch64": 160}[MACHINE]
GETPPID = {"x86_64": 110, "aarch64": 173}[MACHINE]


def answer_to(number: int, action: int) -> bytes:
    """A filter that gives `action` to one system call and allows all others."""

    def instruction(code: int, jt: int, jf: int, k: int) -> bytes:
        return struct.pack("=HBBI", code, jt, jf, k)

    return (
        instruction(0x20, 0, 0, 0)  # load nr
        + instruction(0x15, 0, 1, number)
        + instruction(0x06, 0, 0, action)
        + instruction(0x06, 0, 0, seccomp.RET_ALLOW)
    )


class TestSeccomp:
    def test_filter_answers(self):
        def run():
            process.set_no_new_privs()
            flags = seccomp.FILTER_FLAG_TSYNC | seccomp.FILTER_FLAG_LOG | seccomp.FILTER_FLAG_SPEC_ALLOW
            assert seccomp.load(answer_to(UNAME, seccomp.RET_ERRNO | errno.EDOM), flags) == 0
            with pytest.raises(OSError) as caught:
                os.uname()
            return [caught.value.errno, os.getppid() > 0]

        assert in_child(run) == [errno.EDOM, True]

    def test_without_privilege_it_is_refused(self):
        def run():
            caps.set(0, 0, 0)
            with pytest.raises(PermissionError):
                seccomp.load(answer_to(UNAME, seccomp.RET_ALLOW))

        in_child(run)

    @pytest.mark.parametrize("program", [b"", b"1234567", bytes(8 * 4097), bytes(8)])
    def test_what_is_no_program_is_refused(self, program):
        def run():
            process.set_no_new_privs()
            with pytest.raises(OSError) as caught:
                seccomp.load(program)
            return caught.value.errno

        assert in_child(run) == errno.EINVAL

    def test_what_the_kernel_knows(self):
        known = (seccomp.RET_KILL_PROCESS, seccomp.RET_ERRNO, seccomp.RET_LOG, seccomp.RET_USER_NOTIF)
        assert [seccomp.action_available(action) for action in (*known, 0x12340000)] == [True] * 4 + [False]
        assert seccomp.flags_available(seccomp.FILTER_FLAG_NEW_LISTENER)
        assert not seccomp.flags_available(1 << 20)
        assert seccomp.notification_sizes() >= (80, 24, 64)

    def test_listener_decides_for_another_process(self):
        """The filtered process asks four times; each answer is of another kind."""
        ours, theirs = seqpacket.pair()
        pid = os.fork()
        if pid == 0:
            try:
                process.set_no_new_privs()
                listener_fd = seccomp.load(answer_to(GETPPID, seccomp.RET_USER_NOTIF), seccomp.FILTER_FLAG_NEW_LISTENER)
                assert not os.get_inheritable(listener_fd)
                theirs.send(b"listener", (listener_fd,))
                os.close(listener_fd)
                from hutch.linux.libc import syscall

                answers = [syscall(GETPPID), syscall(GETPPID), syscall(GETPPID)]
                text = os.pread(answers[2], 100, 0).decode()
                try:
                    syscall(GETPPID)
                except OSError as problem:
                    answers.append(problem.errno or 0)
                theirs.send(repr((answers[0], answers[1] == os.getpid(), text, answers[3])).encode())
            finally:
                os._exit(0)
        theirs.close()
        _, (listener_fd,) = ours.recv(100)
        gift_fd = os.memfd_create("gift")
        os.write(gift_fd, b"a gift")
        first = seccomp.receive(listener_fd)
        assert (first.pid, first.data.nr, first.data.arch) == (pid, GETPPID, ARCH)
        assert seccomp.is_waiting(listener_fd, first.id)
        seccomp.respond(listener_fd, first.id, value=4242)
        assert not seccomp.is_waiting(listener_fd, first.id)
        seccomp.respond(listener_fd, seccomp.receive(listener_fd).id, value=pid)
        assert seccomp.add_fd(listener_fd, seccomp.receive(listener_fd).id, gift_fd, new_fd=77, respond=True) == 77
        seccomp.respond(listener_fd, seccomp.receive(listener_fd).id, error=errno.EXDEV)
        said, _ = ours.recv(1000)
        assert said == repr((4242, True, "a gift", errno.EXDEV)).encode()
        os.waitpid(pid, 0)
        with pytest.raises(OSError):
            seccomp.respond(listener_fd, first.id)
        for fd in (listener_fd, gift_fd):
            os.close(fd)
        ours.close()

    def test_the_call_may_be_made_after_all(self):
        ours, theirs = seqpacket.pair()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                process.set_no_new_privs()
                flags = seccomp.FILTER_FLAG_NEW_LISTENER
                if seccomp.flags_available(flags | seccomp.FILTER_FLAG_WAIT_KILLABLE_RECV):
                    flags |= seccomp.FILTER_FLAG_WAIT_KILLABLE_RECV
                theirs.send(b"x", (seccomp.load(answer_to(GETPPID, seccomp.RET_USER_NOTIF), flags),))
                code = 0 if os.getppid() > 1 else 2
            finally:
                os._exit(code)
        _, (listener_fd,) = ours.recv(1)
        seccomp.respond(listener_fd, seccomp.receive(listener_fd).id, proceed=True)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(listener_fd)
        for end in (ours, theirs):
            end.close()


@requires("root")
class TestCaps:
    def test_sets_are_those_of_procfs(self):
        def run():
            kept = caps.mask(["CAP_CHOWN", "CAP_SETPCAP", "CAP_BPF"])
            caps.drop_bounding(caps.mask(["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]))
            caps.set(kept, kept, caps.mask(["CAP_CHOWN", "CAP_BPF"]))
            caps.set_ambient(caps.mask(["CAP_BPF"]))
            mine = caps.get()
            assert mine == caps.get(os.getpid())
            with open("/proc/self/status") as file:
                lines = dict(line.split(":\t", 1) for line in file)
            read = [int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")]
            told = [mine.effective, mine.permitted, mine.inheritable, mine.bounding, mine.ambient]
            return [read, told, caps.names(mine.effective)]

        read, told, names = in_child(run)
        assert read == told
        assert names == ["CAP_CHOWN", "CAP_SETPCAP", "CAP_BPF"]
        assert not told[3] & caps.mask(["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"])
        assert told[4] == 1 << 39

    def test_ambient_is_exactly_the_mask(self):
        def run():
            mine = caps.get()
            caps.set(mine.effective, mine.permitted, 0b111)
            for mask in (0b11, 0b110, 0):
                caps.set_ambient(mask)
                assert caps.get().ambient == mask
            with pytest.raises(PermissionError):
                caps.set_ambient(0b1000)  # not inheritable
            return caps.get().ambient

        assert in_child(run) == 0

    def test_bounding_outlasts_execve(self):
        def run():
            caps.drop_bounding(~0)
            out = os.popen("grep CapBnd /proc/self/status")
            with out:
                return out.read().split()[1]

        assert in_child(run) == "0000000000000000"

    def test_what_is_not_permitted_cannot_be_had(self):
        def run():
            caps.set(0, 0, 0)
            with pytest.raises(PermissionError):
                caps.set(1, 1, 0)
            with pytest.raises(PermissionError):
                caps.drop_bounding(1)

        in_child(run)


def test_names_of_capabilities():
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert caps.last_cap() == int(file.read())
    assert caps.names(caps.mask(caps.NAMES)) == list(caps.NAMES)
    assert caps.names(1 << 62) == ["CAP_62"]
    for name in ("CHOWN", "cap_chown", "CAP_NONE"):
        with pytest.raises(OSError, match="unknown capability"):
            caps.mask([name])


def test_session_keyring_is_ours_alone():
    def run():
        first = keyring.join_session_keyring("hutch-test")
        keyring.set_permissions(first, keyring.POSSESSOR_ALL | keyring.USER_SEARCH | keyring.USER_VIEW)
        told = keyring.permissions(first)
        nameless = keyring.join_session_keyring(None)
        return [told, keyring.permissions() & keyring.POSSESSOR_ALL, nameless != first]

    try:
        told, possessor, other = in_child(run)
    except AssertionError as problem:
        if "Function not implemented" in str(problem):
            pytest.skip("this kernel has no keyrings")
        raise
    assert told == 0x3F090000
    assert possessor == keyring.POSSESSOR_ALL
    assert other


ALLOW = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
DENY = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)


@pytest.fixture
def cgroup(cgroup_parent):
    """A directory of cgroup v2, and a descriptor of it."""
    tops = [top for top, kind, _ in cgroup_mounts() if kind == "cgroup2"]
    if not tops:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    path = f"{tops[0]}{cgroup_parent}/devices"
    os.makedirs(path, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)
    os.rmdir(path)


@requires("root", "cap:BPF")
class TestDevicePrograms:
    def test_attached_program_decides_until_it_is_detached(self, cgroup):
        path, cgroup_fd = cgroup

        def opens() -> bool:
            def run() -> bool:
                with open(f"{path}/cgroup.procs", "w") as file:
                    file.write("0")
                try:
                    os.close(os.open("/dev/null", os.O_RDONLY))
                except PermissionError:
                    return False
                return True

            result: bool = in_child(run)
            return result

        deny_fd, allow_fd = bpf.load_device_program(DENY), bpf.load_device_program(ALLOW)
        assert not os.get_inheritable(deny_fd)
        assert (bpf.query(cgroup_fd), opens()) == ([], True)
        bpf.attach(cgroup_fd, deny_fd)
        attached = bpf.query(cgroup_fd)
        assert (len(attached), opens()) == (1, False)
        bpf.attach(cgroup_fd, allow_fd, replace_fd=deny_fd)
        replaced = bpf.query(cgroup_fd)
        assert (len(replaced), opens()) == (1, True)
        assert replaced != attached
        bpf.attach(cgroup_fd, deny_fd)
        assert (len(bpf.query(cgroup_fd)), opens()) == (2, False)
        for program_id in bpf.query(cgroup_fd):
            fd = bpf.open_program(program_id)
            assert not os.get_inheritable(fd)
            bpf.detach(cgroup_fd, fd)
            os.close(fd)
        assert (bpf.query(cgroup_fd), opens()) == ([], True)
        with pytest.raises(FileNotFoundError):
            bpf.detach(cgroup_fd, deny_fd)
        os.close(deny_fd)
        os.close(allow_fd)

    def test_the_kernel_writes_no_further_than_its_256_bytes(self, cgroup, monkeypatch):
        """A canary after the attributes: some kernels answer a query beyond the length they were told."""
        import ctypes

        from hutch.linux import abi

        class Watched(ctypes.Structure):
            _fields_ = (("attr", abi.BpfAttr), ("canary", ctypes.c_char * 256))

        kept = []

        def with_canary(packed: bytes) -> ctypes.Structure:
            watched = Watched(canary=b"\xa5" * 256)
            ctypes.memmove(ctypes.addressof(watched), packed, len(packed))
            kept.append(watched)
            return watched.attr

        monkeypatch.setattr(bpf, "_attr", with_canary)
        program_fd = bpf.load_device_program(ALLOW)
        bpf.attach(cgroup[1], program_fd)
        assert len(bpf.query(cgroup[1])) == 1
        bpf.detach(cgroup[1], program_fd)
        os.close(program_fd)
        assert len(kept) == 4
        assert {bytes(watched)[256:] for watched in kept} == {b"\xa5" * 256}

    def test_verifiers_words_are_in_the_error(self):
        with pytest.raises(PermissionError, match="R0 !read_ok"):
            bpf.load_device_program(ALLOW[8:])
        with pytest.raises(OSError, match="not a program"):
            bpf.load_device_program(b"x" * 7)


@requires("root")
class TestNamespaces:
    @pytest.mark.parametrize("kind", [kind for kind in namespaces.KINDS if kind not in ("pid", "time")])
    def test_new_one_differs_and_can_be_left_again(self, kind):
        def run():
            before = namespaces.namespace_id("self", kind)
            back_fd = namespaces.open_namespace("self", kind)
            assert not os.get_inheritable(back_fd)
            assert namespaces.kind_of(back_fd) == namespaces.KINDS[kind]
            namespaces.unshare(namespaces.KINDS[kind])
            within = namespaces.namespace_id("self", kind)
            if kind == "user":
                return [before == within, True]
            namespaces.setns(back_fd, namespaces.KINDS[kind])
            return [before == within, namespaces.namespace_id("self", kind) == before]

        assert in_child(run) == [False, True]

    def test_several_of_a_pidfd_at_once(self):
        def run():
            ready_r, ready_w = os.pipe()
            pid = os.fork()
            if pid == 0:
                namespaces.unshare(namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
                os.write(ready_w, b"x")
                signal.pause()
            os.read(ready_r, 1)
            fd = process.pidfd_open(pid)
            namespaces.setns(fd, namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
            same = [
                namespaces.namespace_id("self", k) == namespaces.namespace_id(pid, k) for k in ("uts", "ipc", "network")
            ]
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return same

        assert in_child(run) == [True, True, True]

    def test_owner_and_parent(self):
        def run():
            outer_fd = namespaces.open_namespace("self", "user")
            namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWUTS)
            uts_fd = namespaces.open_namespace("self", "uts")
            owner_fd = namespaces.owner(uts_fd)
            assert not os.get_inheritable(owner_fd)
            mine = os.fstat(owner_fd).st_ino == namespaces.namespace_id("self", "user")[1]
            with pytest.raises(PermissionError):
                namespaces.parent(owner_fd)  # above our own
            return [mine, os.fstat(outer_fd).st_ino != os.fstat(owner_fd).st_ino]

        assert in_child(run) == [True, True]

    def test_time_offsets(self):
        def run():
            import time

            namespaces.unshare(namespaces.CLONE_NEWTIME)
            with Proc.new() as proc:
                namespaces.set_time_offsets(proc, {"monotonic": (86400, 5), "boottime": (1000, 0)})
            before = [time.clock_gettime(clock) for clock in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)]
            after = in_child(
                lambda: [time.clock_gettime(clock) for clock in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)]
            )
            return [round(late - early) for early, late in zip(before, after, strict=True)]

        assert in_child(run) == [86400, 1000]

    def test_unknown_kind(self):
        with pytest.raises(OSError, match="unknown kind") as caught:
            namespaces.namespace_id("self", "mnt")
        assert caught.value.errno == errno.EINVAL
