from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from hutch.linux import seqpacket


@pytest.fixture
def ends():
    left, right = seqpacket.pair()
    with left, right:
        yield left, right


def test_messages_keep_their_boundaries(ends):
    left, right = ends
    left.send(b"one")
    left.send(b"two")
    assert right.recv(100) == (b"one", [])
    assert right.recv(100) == (b"two", [])


def test_descriptors_arrive_close_on_exec(ends):
    left, right = ends
    read_fd, write_fd = os.pipe()
    left.send(b"x", (read_fd, write_fd))
    _, fds = right.recv(10)
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(read_fd).st_ino] * 2
    for fd in (read_fd, write_fd, *fds):
        os.close(fd)


def test_ends_are_close_on_exec(ends):
    assert [os.get_inheritable(end.fileno()) for end in ends] == [False, False]


def test_inherited_end_becomes_close_on_exec(ends):
    left, right = ends
    fd = left.detach()
    os.set_inheritable(fd, True)
    with seqpacket.Channel(fd) as channel:
        assert not os.get_inheritable(fd)
        channel.send(b"x")
    assert right.recv(1) == (b"x", [])


def test_too_long_a_message_is_an_error_and_its_descriptors_are_closed(ends):
    left, right = ends
    before = os.listdir("/proc/self/fd")
    left.send(b"four", (0, 1))
    with pytest.raises(OSError, match="larger than 3") as caught:
        right.recv(3)
    assert caught.value.errno == errno.EMSGSIZE
    assert os.listdir("/proc/self/fd") == before


def test_descriptors_without_a_message_are_closed(ends):
    left, right = ends
    before = os.listdir("/proc/self/fd")
    sender = socket.socket(fileno=left.detach())
    with sender:
        sender.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))])
        with pytest.raises(OSError, match="without a message"):
            right.recv(3)
        assert os.listdir("/proc/self/fd") == before


def test_end_and_gone(ends):
    left, right = ends
    left.close()
    assert right.recv(1) == (b"", [])
    with pytest.raises(BrokenPipeError):
        right.send(b"x")


def test_what_cannot_be_told_apart_or_sent_is_refused(ends):
    left, _ = ends
    for data, fds in ((b"", ()), (b"x", (0,) * 254)):
        with pytest.raises(OSError, match=r"empty|more than 253") as caught:
            left.send(data, fds)
        assert caught.value.errno == errno.EINVAL


def test_as_many_descriptors_as_the_kernel_takes(ends):
    left, right = ends
    left.send(b"x", (0,) * 253)
    _, fds = right.recv(1)
    assert len(fds) == 253
    for fd in fds:
        os.close(fd)


def test_what_was_sent_before_a_reset_is_read() -> None:
    left, right = seqpacket.pair()
    with left:
        with right:
            left.send(b"never read")
            right.send(b"last words")
        assert left.recv(100) == (b"last words", [])
        assert left.recv(100) == (b"", [])
