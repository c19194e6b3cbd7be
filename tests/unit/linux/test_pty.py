from __future__ import annotations

import errno
import os
import signal
import termios

import pytest

from hutch.linux import pty
from tests.support.child import in_child

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/pts/ptmx"), reason="no devpts at /dev/pts")


@pytest.fixture
def devpts_fd():
    fd = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(os.open("ptmx", os.O_RDWR | os.O_NOCTTY, dir_fd=fd))
    except PermissionError:
        pytest.skip("/dev/pts/ptmx is not ours to open (mount it with ptmxmode=666)")
    yield fd
    os.close(fd)


@pytest.fixture
def ends(devpts_fd):
    ptmx_fd, peer_fd = pty.open_in(devpts_fd)
    yield ptmx_fd, peer_fd
    os.close(ptmx_fd)
    os.close(peer_fd)


def test_both_ends_work_and_are_close_on_exec(ends):
    ptmx_fd, peer_fd = ends
    assert [os.get_inheritable(fd) for fd in ends] == [False, False]
    assert os.isatty(peer_fd)
    assert pty.is_pts(peer_fd)
    assert not pty.is_pts(ptmx_fd)
    assert os.fstat(peer_fd).st_rdev == os.stat(f"/dev/pts/{pty.number(ptmx_fd)}").st_rdev
    os.write(peer_fd, b"out\n")
    assert os.read(ptmx_fd, 100) == b"out\r\n"


def test_raw_and_back(ends):
    ptmx_fd, peer_fd = ends
    before = pty.make_raw(peer_fd)
    os.write(peer_fd, b"a\n\x03")
    assert os.read(ptmx_fd, 100) == b"a\n\x03"
    os.write(ptmx_fd, b"\x03\r")
    assert os.read(peer_fd, 100) == b"\x03\r"
    pty.restore(peer_fd, before)
    assert pty.get_attributes(peer_fd) == before
    assert termios.tcgetattr(peer_fd)[3] & termios.ECHO


def test_window_size(ends):
    ptmx_fd, peer_fd = ends
    assert pty.get_window_size(peer_fd) == (0, 0)
    pty.set_window_size(ptmx_fd, 50, 132)
    assert os.get_terminal_size(peer_fd) == (132, 50)
    with pytest.raises(OSError, match="out of range") as caught:
        pty.set_window_size(ptmx_fd, 1, 65536)
    assert caught.value.errno == errno.EINVAL


def test_controlling_terminal_gets_signals(devpts_fd):
    def run():
        ptmx_fd, peer_fd = pty.open_in(devpts_fd)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setsid()
            pty.set_controlling(peer_fd)
            os.write(peer_fd, b"ready" if os.ctermid() and os.tcgetpgrp(peer_fd) == os.getpid() else b"wrong")
            signal.pause()
        assert os.read(ptmx_fd, 100) == b"ready"
        os.write(ptmx_fd, b"\x03")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(run) == -signal.SIGINT


def test_a07_what_is_not_devpts_is_refused(tmp_path):
    os.symlink("/dev/ptmx", tmp_path / "ptmx")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError, match="not a devpts") as caught:
        pty.open_in(fd)
    assert caught.value.errno == errno.ENODEV
    os.close(fd)


def test_not_a_terminal():
    read_fd, write_fd = os.pipe()
    for call in (pty.make_raw, pty.get_window_size, pty.set_controlling):
        with pytest.raises(OSError) as caught:
            call(read_fd)
        assert caught.value.errno == errno.ENOTTY
    os.close(read_fd)
    os.close(write_fd)
