"""The D-Bus client's wire format, and its manners with a bus that misbehaves."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.runtime.cgroups import dbus, systemd


@pytest.mark.parametrize(
    ("signature", "types"),
    [
        ("", []),
        ("su", ["s", "u"]),
        ("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]),
        ("aa{sv}(i(yy))v", ["aa{sv}", "(i(yy))", "v"]),
    ],
)
def test_signatures_split_into_complete_types(signature, types) -> None:
    assert dbus.split(signature) == types


@given(
    st.integers(0, 255),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(st.text("abc", max_size=9), st.integers(0, 2**32 - 1)), max_size=4),
)
def test_values_come_back_as_they_went(byte, text, number, pairs) -> None:
    data = bytearray()
    kinds = ("y", "s", "t", "a(sv)", "b")
    for kind, value in zip(kinds, (byte, text, number, [(n, ("u", v)) for n, v in pairs], True), strict=True):
        dbus.marshal(data, kind, value)
    reader = dbus.Reader(bytes(data))
    assert [reader.take(kind) for kind in kinds] == [byte, text, number, pairs, True]


def test_the_wire_format_is_the_specifications() -> None:
    data = bytearray()
    dbus.marshal(data, "a(yv)", [(1, ("o", "/a")), (3, ("s", "Hi"))])
    assert data.hex() == "1b0000000000000001016f00020000002f610000000000000301730002000000486900"


def serve(path, script) -> threading.Thread:
    """A bus that accepts one client and then does what `script` says."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)

    def run() -> None:
        peer, _ = listener.accept()
        with listener, peer:
            script(peer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def read_auth(peer) -> None:
    while not peer.recv(4096).endswith(b"\r\n"):
        pass


def wait_for_end(peer) -> None:
    """Read until the client closes: a bus that closed first would be another error."""
    while peer.recv(4096):
        pass


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (lambda peer: peer.close(), Unavailable, "connection was closed|pipe|reset"),
        (
            lambda peer: (read_auth(peer), peer.sendall(b"REJECTED EXTERNAL\r\n"), wait_for_end(peer)),
            PermissionDenied,
            "not authenticated",
        ),
        (
            lambda peer: (read_auth(peer), peer.sendall(b"x" * 9000), wait_for_end(peer)),
            Unavailable,
            "during authentication",
        ),
        (
            lambda peer: (
                read_auth(peer),
                peer.sendall(b"OK 1\r\n"),
                peer.sendall(struct.pack("<BBBBIII", ord("l"), 2, 0, 1, 1 << 30, 1, 8)),
                wait_for_end(peer),
            ),
            Unavailable,
            "longer than 1 MiB",
        ),
        (
            lambda peer: (
                read_auth(peer),
                peer.sendall(b"OK 1\r\n"),
                peer.sendall(struct.pack("<BBBBIII", ord("l"), 2, 0, 1, 0, 1, 8) + b"\xff" * 8),
                wait_for_end(peer),
            ),
            Unavailable,
            "not a message",
        ),
        (
            lambda peer: (read_auth(peer), peer.sendall(b"OK 1\r\n"), wait_for_end(peer)),
            Unavailable,
            "timed out",
        ),
    ],
)
def test_a_bus_that_misbehaves_is_an_error_in_time(tmp_path, script, error, message) -> None:
    path = str(tmp_path / "bus")

    def guarded(peer) -> None:
        try:
            script(peer)
        except OSError:
            return

    thread = serve(path, guarded)
    with pytest.raises(error, match=message):
        dbus.Connection(path, timeout_s=0.3).close()
    thread.join(5)
    assert not thread.is_alive()


def test_no_bus_is_not_supported(tmp_path) -> None:
    with pytest.raises(NotSupported, match="no such file or directory"):
        dbus.Connection(str(tmp_path / "none"))


# --- names and properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "rootless", "names"),
    [
        ("machine.slice:hutch:abc", False, ("machine.slice", "hutch-abc.scope")),
        (":hutch:abc", False, ("system.slice", "hutch-abc.scope")),
        ("::abc", True, ("user.slice", "abc.scope")),
        ("a-b.slice:libpod:x_1.2", True, ("a-b.slice", "libpod-x_1.2.scope")),
    ],
)
def test_paths_name_a_slice_and_a_scope(path, rootless, names) -> None:
    assert systemd.unit_names(path, rootless=rootless) == names


@pytest.mark.parametrize(
    "path", ["/abc", "a:b", "a.slice:b:", "x:y:z", "a/b.slice:c:d", "a.slice:b:c d", ":..:x", ":a:b\n"]
)
def test_other_paths_are_refused(path) -> None:
    with pytest.raises(InvalidArgument, match="cgroup path"):
        systemd.unit_names(path, rootless=False)


def test_slices_nest_by_their_dashes() -> None:
    assert systemd.expand_slice("-.slice") == ""
    assert systemd.expand_slice("a.slice") == "/a.slice"
    assert systemd.expand_slice("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    for bad in ("a", "a--b.slice", "-a.slice", ".slice"):
        with pytest.raises(InvalidArgument, match="not a slice"):
            systemd.expand_slice(bad)


def test_limits_become_properties() -> None:
    resources = {
        "memory": {"limit": 1000, "swap": 1500, "reservation": 10},
        "cpu": {"shares": 1024, "quota": 25000, "period": 50000, "cpus": "0-1,9", "mems": "0"},
        "pids": {"limit": -1},
        "blockIO": {"weight": 1000},
    }
    assert dict(systemd.resource_properties(resources)) == {
        "MemoryMax": ("t", 1000),
        "MemoryLow": ("t", 10),
        "MemorySwapMax": ("t", 500),
        "TasksMax": ("t", 2**64 - 1),
        "CPUWeight": ("t", 100),
        "CPUQuotaPeriodUSec": ("t", 50000),
        "CPUQuotaPerSecUSec": ("t", 500000),
        "AllowedCPUs": ("ay", b"\x03\x02"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
        "IOWeight": ("t", 10000),
    }
    assert systemd.resource_properties({}) == []
    unified = {
        "memory.high": "5",
        "pids.max": "max",
        "cpu.max": "5000 10000",
        "cpuset.cpus": "1",
        "io.max": "8:0 rbps=1",
    }
    assert dict(systemd.resource_properties({"unified": unified})) == {
        "MemoryHigh": ("t", 5),
        "TasksMax": ("t", 2**64 - 1),
        "CPUQuotaPeriodUSec": ("t", 10000),
        "CPUQuotaPerSecUSec": ("t", 500000),
        "AllowedCPUs": ("ay", b"\x02"),
    }
    assert dict(systemd.resource_properties({"memory": {"limit": 5, "swap": 5}}))["MemorySwapMax"] == ("t", 0)


def test_the_bus_of_a_user_is_found(monkeypatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/tmp/x,guid=1")
    assert systemd.user_bus() == "/tmp/x"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/u")
    assert systemd.user_bus() == "/run/u/bus"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert systemd.user_bus() == f"/run/user/{os.geteuid()}/bus"
