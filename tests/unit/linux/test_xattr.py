from __future__ import annotations

import errno
import os

import pytest

from hutch.linux import xattr
from hutch.linux.libc import syscall


@pytest.fixture(params=["the kernel's own", "through /proc"])
def way(request, monkeypatch):
    """With the system calls of Linux 6.13, and without."""

    def old(number: int, *args: object, **kwargs: object) -> int:
        if number in (463, 464, 465, 466):
            raise OSError(errno.ENOSYS, "not implemented")
        return syscall(number, *args, **kwargs)

    if request.param != "the kernel's own":
        monkeypatch.setattr(xattr, "syscall", old)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "file").write_text("")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        os.setxattr(tmp_path / "file", "user.probe", b"")
        os.removexattr(tmp_path / "file", "user.probe")
    except OSError:
        pytest.skip("no user attributes on this file system")
    yield fd
    os.close(fd)


def test_by_descriptor(tmp_path, directory):
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    xattr.fset(fd, "user.a", b"\0value\xff")
    xattr.fset(fd, b"user.empty", b"")
    assert xattr.fget(fd, "user.a") == b"\0value\xff"
    assert {b"user.a", b"user.empty"} <= set(xattr.flist(fd))
    xattr.fremove(fd, "user.a")
    with pytest.raises(OSError) as caught:
        xattr.fget(fd, "user.a")
    assert caught.value.errno == errno.ENODATA
    os.close(fd)


@pytest.mark.usefixtures("way")
class TestAt:
    def test_round_trip(self, directory):
        xattr.set_at(directory, "file", "user.a", b"\0value\xff")
        xattr.set_at(directory, b"file", b"user.\xc3\xa4", b"")
        assert xattr.get_at(directory, "file", "user.a") == b"\0value\xff"
        assert xattr.get_at(directory, "file", "user.ä") == b""
        assert {b"user.a", "user.ä".encode()} <= set(xattr.list_at(directory, "file"))
        with pytest.raises(FileExistsError):
            xattr.set_at(directory, "file", "user.a", b"x", xattr.CREATE)
        xattr.remove_at(directory, "file", "user.a")
        with pytest.raises(OSError) as caught:
            xattr.get_at(directory, "file", "user.a")
        assert caught.value.errno == errno.ENODATA

    def test_links_are_not_followed(self, directory):
        os.symlink("file", "link", dir_fd=directory)
        xattr.set_at(directory, "file", "user.a", b"of the file")
        assert b"user.a" not in xattr.list_at(directory, "link")
        with pytest.raises(OSError):  # user attributes are not for links
            xattr.set_at(directory, "link", "user.a", b"of the link")
        assert xattr.get_at(directory, "file", "user.a") == b"of the file"

    @pytest.mark.skipif(os.geteuid() != 0, reason="trusted attributes are root's")
    def test_a_link_has_its_own(self, directory):
        os.symlink("file", "link", dir_fd=directory)
        xattr.set_at(directory, "link", "trusted.a", b"of the link")
        assert xattr.get_at(directory, "link", "trusted.a") == b"of the link"
        assert b"trusted.a" not in xattr.list_at(directory, "file")

    @pytest.mark.parametrize("name", ["../file", "a/b", ""])
    def test_only_a_single_name(self, directory, name):
        for call in (
            lambda: xattr.get_at(directory, name, "user.a"),
            lambda: xattr.set_at(directory, name, "user.a", b""),
            lambda: xattr.list_at(directory, name),
            lambda: xattr.remove_at(directory, name, "user.a"),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EINVAL

    def test_the_largest_value(self, directory):
        try:
            xattr.set_at(directory, "file", "user.big", b"x" * 65536)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.E2BIG):
                raise
            pytest.skip("this file system has less room for attributes")
        assert len(xattr.get_at(directory, "file", "user.big")) == 65536

    def test_too_large_a_value(self, directory):
        with pytest.raises(OSError) as caught:
            xattr.set_at(directory, "file", "user.big", b"x" * 65537)
        assert caught.value.errno == errno.E2BIG
