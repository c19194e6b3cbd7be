"""What hutch-oci says of a bug: one line, and where it is only when asked."""

from __future__ import annotations

import sys
import types

import pytest

from hutch.runtime import main as entry
from hutch.runtime.arguments import Command


@pytest.fixture(autouse=True)
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `hutch-oci list` raise what no command raises on purpose."""

    def run(*_: object) -> int:
        raise KeyError("nowhere")

    module = types.ModuleType("hutch.runtime.commands.failing")
    module.COMMANDS = {"list": Command("", run, minimum=0)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hutch.runtime.commands.failing", module)
    monkeypatch.setitem(entry.COMMANDS, "list", ("failing", ""))
    monkeypatch.delenv("HUTCH_DEBUG", raising=False)


def test_a_bug_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["list"]) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "internal error: KeyError: 'nowhere'" in said[0]
    assert "HUTCH_DEBUG=1" in said[0]


def test_debugging_shows_where(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUTCH_DEBUG", "1")
    assert entry.main(["list"]) == 1
    said = capfd.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "test_failures.py" in said
