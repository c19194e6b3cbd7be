"""A8: writes to /proc reach the real file or are refused, whatever is mounted over it."""

from __future__ import annotations

import errno
import os

import pytest

from hutch.linux import mount, namespaces
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE
from hutch.linux.proc import Proc
from tests.support import requires
from tests.support.child import in_child

pytestmark = requires("root")


def privately(function):
    """`function` in a child with mounts of its own."""

    def run():
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=mount.MS_PRIVATE)
        return function()

    return in_child(run)


def cover(source: str, target: str) -> None:
    mount.mount(source, target, None, mount.MS_BIND)


# The kernel itself refuses mounts on /proc/<pid>/* since 6.12; the files below sys/ can still be covered.
COVERED = "/proc/sys/kernel/hostname"
# What is put over it is a namespace's own as well: should the test fail, the host is none the wiser.
DECOYS = ("a file", "/proc/sys/kernel/domainname")


@pytest.fixture(params=DECOYS)
def decoy(request, tmp_path):
    """What is mounted over COVERED, and must stay as it is."""
    path = request.param
    if path == "a file":
        path = str(tmp_path / "decoy")
        (tmp_path / "decoy").write_text("untouched")
    before = content(path)
    yield path
    assert content(path) == before


def content(path: str) -> str:
    with open(path) as file:
        return file.read()


def attempt_write(make, decoy: str) -> list[object]:
    """(errno or 0, the host name after) of writing it through `make()` while `decoy` covers it."""

    def attempt():
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        cover(decoy, COVERED)
        number = 0
        with make() as proc:
            try:
                proc.write("sys/kernel/hostname", "reached")
            except OSError as problem:
                number = problem.errno
        return [number, os.uname().nodename, content(decoy)]

    before = content(decoy)
    number, name, after = privately(attempt)
    assert after == before
    return [number, name]


def test_a08_private_procfs_does_not_see_what_covers_the_hosts(decoy):
    assert attempt_write(Proc.detached, decoy) == [0, "reached"]


def test_a08_on_the_hosts_procfs_a_covered_file_is_refused(decoy):
    assert attempt_write(Proc.host, decoy) == [errno.EXDEV, os.uname().nodename]


def test_a08_the_same_write_by_path_does_go_astray(tmp_path):
    (tmp_path / "decoy").write_text("untouched")

    def attempt():
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        cover(str(tmp_path / "decoy"), COVERED)
        with open(COVERED, "w") as file:
            file.write("astray")

    privately(attempt)
    assert content(str(tmp_path / "decoy")) == "astray"


@pytest.mark.parametrize("cover_with", ["tmpfs", "procfs' own subdirectory"])
def test_a01_what_is_not_the_root_of_procfs_is_not_taken_for_it(cover_with):
    def attempt():
        if cover_with == "tmpfs":
            mount.mount("none", "/proc", "tmpfs")
        else:
            cover("/proc/sys", "/proc")
        before = os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else []
        try:
            Proc.host()
        except OSError as problem:
            return [problem.errno, len(before)]
        return [0, 0]

    assert privately(attempt)[0] == errno.EXDEV


def test_links_are_not_followed():
    with Proc.new() as proc:
        for path in ("mounts", "self/cwd/etc/passwd", "self/root"):
            with pytest.raises(OSError) as caught:
                proc.open(path)
            assert caught.value.errno in (errno.ELOOP, errno.EXDEV), path
        with pytest.raises(OSError) as caught:
            proc.open("../etc/passwd")
        assert caught.value.errno in (errno.EXDEV, errno.ENOENT)


def test_private_and_subset():
    with Proc.new() as whole, Proc.new(subset_pid=True) as part:
        assert (whole.private, part.private) == (True, True)
        assert whole.read("sys/kernel/ostype") == b"Linux\n"
        assert part.read("self/comm") == whole.read("self/comm")
        with pytest.raises(FileNotFoundError):
            part.read("sys/kernel/ostype")
        assert not os.get_inheritable(whole.fd)


def test_self_is_the_number_in_the_procfss_own_pid_namespace():
    def attempt():
        with Proc.detached() as outer:
            namespaces.unshare(namespaces.CLONE_NEWPID)

            def inside():
                assert os.getpid() == 1
                name = outer.read("self/comm")
                assert outer.self_path(0) != "1/fd/0"
                with Proc.detached() as inner:
                    assert inner.self_path(0) == "1/fd/0"
                    return [name.decode(), inner.read("self/comm").decode()]

            return in_child(inside)

    outer, inner = in_child(attempt)
    assert outer == inner


def test_reopen(tmp_path):
    (tmp_path / "file").write_text("content")
    os.symlink("file", tmp_path / "link")
    with Proc.new() as proc:
        path_fd = os.open(tmp_path / "file", os.O_PATH)
        os.unlink(tmp_path / "file")
        fd = proc.reopen(path_fd, os.O_RDWR)
        assert os.read(fd, 100) == b"content"
        assert not os.get_inheritable(fd)
        link_fd = os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW)
        with pytest.raises(OSError) as caught:
            proc.reopen(link_fd, os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP
        assert os.readlink(proc.self_path(path_fd), dir_fd=proc.fd).endswith("file (deleted)")
        for number in (fd, path_fd, link_fd):
            os.close(number)


def test_short_reads_are_joined_and_bounded():
    with Proc.new() as proc:
        assert len(proc.read("kallsyms", 1 << 26)) > 100_000
        with pytest.raises(OSError) as caught:
            proc.read("kallsyms", 1000)
        assert caught.value.errno == errno.EFBIG


def test_the_files_own_refusal_names_it():
    with Proc.new() as proc, pytest.raises(OSError) as caught:
        proc.write("self/oom_score_adj", "abc")
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "self/oom_score_adj")


def test_fallback_to_the_host_where_a_new_instance_is_refused():
    def attempt():
        # Another user namespace that does not own our PID namespace may not mount its procfs.
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        with Proc.new() as proc:
            return [proc.private, proc.read("self/comm") != b""]

    assert in_child(attempt) == [False, True]
