from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading

import pytest

from hutch.linux.abi import NR
from hutch.linux.libc import c_string, syscall

_GETPID = {"x86_64": 39, "aarch64": 172}[os.uname().machine]
_READ = {"x86_64": 0, "aarch64": 63}[os.uname().machine]
_LSEEK = {"x86_64": 8, "aarch64": 62}[os.uname().machine]


def test_result_is_the_kernels():
    assert syscall(_GETPID) == os.getpid()


def test_failure_is_an_os_error_with_its_path():
    with pytest.raises(FileNotFoundError) as caught:
        syscall(NR.umount2, "/no/such/place", 0, path="/no/such/place")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/no/such/place")


def test_integers_keep_64_bits(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        assert syscall(_LSEEK, file.fileno(), 5 << 32 | 7, os.SEEK_SET) == 5 << 32 | 7


def test_c_strings_hold_no_nul():
    assert c_string("/ä") == "/ä".encode()
    assert c_string("\udcff") == b"\xff"
    for hidden in ("/proc\0/x", b"/proc\0"):
        with pytest.raises(OSError, match="embedded NUL") as caught:
            syscall(NR.umount2, hidden, 0)
        assert caught.value.errno == errno.EINVAL


@pytest.fixture
def interrupted():
    """A pipe into which a signal handler writes, so that a read is interrupted and then succeeds."""
    read_fd, write_fd = os.pipe()
    before = signal.signal(signal.SIGUSR1, lambda *_: os.write(write_fd, b"x"))
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.start()
    yield read_fd
    timer.join()
    signal.signal(signal.SIGUSR1, before)
    os.close(read_fd)
    os.close(write_fd)


def test_interrupted_call_is_repeated_after_the_handler_ran(interrupted):
    buffer = ctypes.create_string_buffer(1)
    # SA_RESTART is off under Python: the kernel really returns EINTR.
    assert syscall(_READ, interrupted, buffer, 1) == 1
    assert buffer.raw == b"x"


def test_interrupted_call_is_reported_where_asked_for(interrupted):
    with pytest.raises(InterruptedError):
        syscall(_READ, interrupted, ctypes.create_string_buffer(1), 1, restart=False)
