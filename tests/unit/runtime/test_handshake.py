"""The handshake's messages and their order, without a container."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import ContainerSetupFailed, Internal
from hutch.linux.seqpacket import Channel, pair
from hutch.runtime import handshake as hs


@pytest.fixture
def ends() -> Iterator[tuple[hs.Parent, Channel, list[object]]]:
    ours, theirs = pair()
    told: list[object] = []
    with ours, theirs:
        yield hs.Parent(ours, lambda actor, index: told.append((actor, index)), told.append), theirs, told


def send(channel: Channel, kind: int, number: int = 0, *texts: str) -> None:
    channel.send(hs.encode(hs.Message(kind, number, texts)))


@given(st.sampled_from(sorted(hs.NAMES)), st.integers(-(2**31), 2**31 - 1), st.text(max_size=300))
def test_what_is_encoded_is_decoded(kind: int, number: int, text: str) -> None:
    texts = (text.encode("utf-8", "replace").decode(),) * {hs.STEP: 1, hs.WARNING: 1, hs.FAILED: 3}.get(kind, 0)
    found = hs.decode(hs.encode(hs.Message(kind, number, texts)))
    assert (found.kind, found.number, found.texts) == (kind, number, texts)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = hs.decode(data)
    except Internal:
        return
    assert hs.encode(message) == data or message.kind in (hs.STEP, hs.WARNING, hs.FAILED)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\1", b"\xff\0\0\0\0", b"\1\0\0\0\0x", hs.encode(hs.Message(hs.FAILED, 1, ("a", "b", "c")))[:-1]],
)
def test_malformed_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(Internal, match="handshake"):
        hs.decode(frame)


def test_the_whole_conversation(ends: tuple[hs.Parent, Channel, list[object]]) -> None:
    parent, child, told = ends
    for kind in (hs.PLACE, hs.INIT, hs.HOST, hs.LIMITS, hs.LISTENER, hs.READY):
        send(child, hs.STEP, 3, "init")
        send(child, hs.WARNING, 0, "mind this")
        send(child, kind, 42)
        message = parent.receive()
        assert message is not None
        assert (message.kind, message.number) == (kind, 42)
        if kind in hs.ANSWERED:
            parent.go()
            assert hs.decode(child.recv(100)[0]).kind == hs.GO
    child.close()
    assert parent.receive() is None
    assert parent.last == hs.READY
    assert told == [("init", 3), "mind this"] * 6


@pytest.mark.parametrize(
    "kinds", [(hs.INIT,), (hs.PLACE, hs.HOST), (hs.PLACE, hs.PLACE), (hs.PLACE, hs.GO), (hs.READY,)]
)
def test_no_other_order(ends: tuple[hs.Parent, Channel, list[object]], kinds: tuple[int, ...]) -> None:
    parent, child, _ = ends
    for kind in kinds:
        send(child, kind)
    for _ in kinds[:-1]:
        parent.receive()
    with pytest.raises(Internal, match="after"):
        parent.receive()


def test_a_failure_is_raised_with_step_errno_and_path(ends: tuple[hs.Parent, Channel, list[object]]) -> None:
    parent, child, _ = ends
    hs.Child(child).fail("mount proc at /proc", PermissionError(1, os.strerror(1), "/proc"))
    with pytest.raises(ContainerSetupFailed, match="^mount proc at /proc: /proc: operation not permitted$") as caught:
        parent.receive()
    assert (caught.value.errno, caught.value.step, caught.value.path) == (1, "mount proc at /proc", "/proc")


def test_descriptors_that_nobody_asked_for_are_refused(ends: tuple[hs.Parent, Channel, list[object]]) -> None:
    parent, child, _ = ends
    before = len(os.listdir("/proc/self/fd"))
    child.send(hs.encode(hs.Message(hs.PLACE)), [0])
    with pytest.raises(Internal, match="more than agreed"):
        parent.receive()
    assert len(os.listdir("/proc/self/fd")) == before


def test_endless_talk_is_cut(ends: tuple[hs.Parent, Channel, list[object]]) -> None:
    parent, child, _ = ends
    parent._count = 4095
    send(child, hs.WARNING, 0, "x")
    send(child, hs.WARNING, 0, "x")
    with pytest.raises(Internal, match="more than agreed"):
        parent.receive()


def test_texts_are_cut_not_refused() -> None:
    message = hs.decode(hs.encode(hs.Message(hs.WARNING, 0, ("x" * 100_000,))))
    assert len(message.texts[0]) == 4096
