from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from hutch.linux import process, rlimits
from tests.support.child import in_child


@pytest.fixture
def sleeper():
    """A child that only waits."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_pidfd_stays_with_its_process():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    fd = process.pidfd_open(pid)
    assert not os.get_inheritable(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(fd, 0)
    os.close(fd)


def test_pidfd_signal_arrives(sleeper):
    fd = process.pidfd_open(sleeper)
    process.pidfd_send_signal(fd, signal.SIGTERM)
    ended = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_pid, ended.si_status) == (sleeper, signal.SIGTERM)
    os.close(fd)


def test_pidfd_getfd_is_close_on_exec(sleeper):
    fd = process.pidfd_open(sleeper)
    copy_fd = process.pidfd_getfd(fd, 1)
    assert os.fstat(copy_fd).st_ino == os.fstat(1).st_ino
    assert not os.get_inheritable(copy_fd)
    os.close(fd)
    os.close(copy_fd)


def test_close_range_marks_or_closes():
    def run():
        fds = [os.dup(0) for _ in range(3)]
        for fd in fds:
            os.set_inheritable(fd, True)
        process.close_range(fds[0], fds[1], process.CLOSE_RANGE_CLOEXEC)
        marked = [os.get_inheritable(fd) for fd in fds]
        process.close_range(fds[2], fds[2])
        return [marked, os.path.exists(f"/proc/self/fd/{fds[2]}"), os.path.exists(f"/proc/self/fd/{fds[1]}")]

    assert in_child(run) == [[False, False, True], False, True]


def test_flags_of_a_process():
    def run():
        before = [process.dumpable(), process.no_new_privs()]
        process.set_dumpable(False)
        process.set_no_new_privs()
        process.set_name("a name that is too long")
        status = open("/proc/self/status").read()
        return [before, process.dumpable(), process.no_new_privs(), process.thread_name(), "NoNewPrivs:\t1" in status]

    assert in_child(run) == [[True, False], False, True, "a name that is ", True]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two processes of another user")
def test_b02_others_of_the_same_user_cannot_look_into_an_undumpable_process():
    def look(pid: int) -> list[str]:
        os.setresuid(64321, 64321, 64321)
        found = []
        for name in ("fd", "map_files"):
            try:
                os.listdir(f"/proc/{pid}/{name}")
                found.append("seen")
            except PermissionError:
                found.append("refused")
        return found

    def run():
        os.setresuid(64321, 64321, 0)
        os.setresuid(64321, 64321, 64321)
        seen, me = [], os.getpid()
        for on in (True, False):
            process.set_dumpable(on)
            seen.append([os.lstat(f"/proc/self/{name}").st_uid for name in ("fd", "root", "mem")])
            seen.append(in_child(lambda: [process.set_dumpable(True), look(me)][1]))
        return seen

    owners, content, hidden_owners, hidden_content = in_child(run)
    assert (owners, content) == ([64321] * 3, ["seen", "seen"])
    assert (hidden_owners, hidden_content) == ([0] * 3, ["refused", "refused"])


def test_subreaper_adopts():
    def run():
        process.set_child_subreaper(True)
        read_fd, write_fd = os.pipe()
        if os.fork() == 0:
            parent = os.getpid()
            if os.fork() == 0:
                me = os.getpid()
                for _ in range(500):
                    if os.getppid() != parent:
                        break
                    time.sleep(0.005)
                os.write(write_fd, f"{me} {os.getppid()}".encode())
            os._exit(0)
        os.wait()
        orphan, adopter = map(int, os.read(read_fd, 100).split())
        assert os.wait()[0] == orphan
        return adopter == os.getpid()

    assert in_child(run) is True


def test_pdeathsig():
    def run():
        process.set_child_subreaper(True)
        if os.fork() == 0:
            if os.fork() == 0:
                process.set_pdeathsig(signal.SIGTERM)
                time.sleep(10)
                os._exit(1)
            time.sleep(0.1)
            os._exit(0)
        os.wait()
        return os.waitstatus_to_exitcode(os.wait()[1])

    assert in_child(run) == -signal.SIGTERM


def test_start_time_is_field_22_whatever_the_name():
    def run():
        before = process.start_time("self")
        process.set_name("a) R 1 (b")
        return [before, process.start_time(os.getpid()), process.start_time(os.getppid())]

    first, again, parent = in_child(run)
    assert first == again
    assert first >= parent > 0
    with open("/proc/self/stat") as file:
        assert process.start_time("self") == int(file.read().rsplit(") ", 1)[1].split()[19])
    with pytest.raises(FileNotFoundError):
        process.start_time(2**22 + 1)


def test_scheduler_and_priorities():
    def run():
        process.set_scheduler("SCHED_BATCH", nice=7, flags=process.SCHED_FLAGS["SCHED_FLAG_RESET_ON_FORK"])
        attr = process.scheduler()
        process.ioprio_set("IOPRIO_CLASS_BE", 6)
        return [attr.policy, attr.nice, attr.flags, os.nice(0), *process.ioprio_get()]

    assert in_child(run) == [3, 7, 1, 7, 2, 6]


@pytest.mark.parametrize(
    "call",
    [
        lambda: process.set_scheduler("SCHED_NONE"),
        lambda: process.set_scheduler("SCHED_FIFO", priority=100),
        lambda: process.ioprio_set("IOPRIO_CLASS_NONE", 0),
        lambda: process.ioprio_set("IOPRIO_CLASS_BE", 8),
        lambda: process.ioprio_set("IOPRIO_CLASS_BE", -1),
        lambda: process.sched_setaffinity(0, set()),
        lambda: process.sched_setaffinity(0, {-1}),
        lambda: rlimits.set("RLIMIT_NONE", 1, 1),
        lambda: rlimits.set("RLIMIT_CORE", 2, 1),
        lambda: rlimits.set("RLIMIT_CORE", -1, 1),
        lambda: rlimits.set("RLIMIT_CORE", 0, 1 << 64),
        lambda: process.set_name("nul\0"),
    ],
)
def test_wrong_values_are_einval(call):
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == errno.EINVAL


def test_affinity():
    def run():
        cpu = min(os.sched_getaffinity(0))
        process.sched_setaffinity(0, {cpu})
        return os.sched_getaffinity(0) == {cpu}

    assert in_child(run) is True


def test_personality():
    def run():
        before = process.personality(process.PER_LINUX32)
        return [before & 0xFF, process.personality(0xFFFFFFFF) & 0xFF]

    assert in_child(run) == [process.PER_LINUX, process.PER_LINUX32]


def test_rlimits_are_pythons_and_full_width():
    import resource

    def run():
        rlimits.set("RLIMIT_CORE", 0, rlimits.get("RLIMIT_CORE")[1])
        rlimits.set("RLIMIT_FSIZE", 5 << 32, rlimits.INFINITY)
        return [resource.getrlimit(resource.RLIMIT_CORE)[0], *resource.getrlimit(resource.RLIMIT_FSIZE)]

    assert rlimits.get("RLIMIT_NOFILE") == resource.getrlimit(resource.RLIMIT_NOFILE)
    if rlimits.get("RLIMIT_FSIZE")[1] != rlimits.INFINITY:
        pytest.skip("the hard limit of file sizes cannot be raised here")
    assert in_child(run) == [0, 5 << 32, resource.RLIM_INFINITY]


def test_rlimits_of_another_process(sleeper):
    soft, hard = rlimits.get("RLIMIT_NOFILE", sleeper)
    rlimits.set("RLIMIT_NOFILE", soft - 1, hard, sleeper)
    assert rlimits.get("RLIMIT_NOFILE", sleeper) == (soft - 1, hard)
    assert rlimits.get("RLIMIT_NOFILE") == (soft, hard)
