"""hutch.runtime.signals against the public signal module."""

from __future__ import annotations

import signal

import pytest

from hutch.errors import InvalidArgument
from hutch.runtime import signals


def test_numbers_are_this_machine_s() -> None:
    for name in signals.NAMES:
        assert signals.number(name) == getattr(signal, f"SIG{name}"), name
    assert signals.number("RTMIN") == signal.SIGRTMIN
    assert signals.number("SIGRTMAX-1") == signal.SIGRTMAX - 1
    for name in ("SIGHUP", "SIGKILL", "SIGCHLD", "SIGWINCH", "SIGRTMAX"):
        assert getattr(signals, name) == getattr(signal, name)


@pytest.mark.parametrize(("text", "number"), [("15", 15), ("term", 15), ("SIGTERM", 15), ("RTMIN+3", 37), ("CLD", 17)])
def test_a_signal_is_named_in_many_ways(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-9", "FOO", "SIG", "RTMIN+40", "RTMIN+x", "RTMAX+1", "９", "9 ", "1e1"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown signal"):
        signals.number(text)


def test_statuses_are_a_shell_s() -> None:
    assert signals.exit_status(3 << 8) == 3
    assert signals.exit_status(9) == 137
    assert signals.exit_status(0x80 | 11) == 139
