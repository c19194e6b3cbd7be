"""What a user sees of a failure: of a bug, of the kernel's, of an interruption."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest

from hutch.cli import main as entry
from hutch.cli.command import Command

Install = Callable[[BaseException, int], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes `hutch ps` raise something, as a command with a bug would."""

    def install(problem: BaseException, exit_code: int) -> None:
        def run(_given: dict[str, object], _arguments: list[str], _general: dict[str, object]) -> int:
            raise problem

        module = types.ModuleType("hutch.cli.failing")
        command = Command("ps", arguments="", summary="", flags=(), run=run, example="x", exit_code=exit_code)
        module.COMMAND = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "hutch.cli.failing", module)
        monkeypatch.setitem(entry.COMMANDS, "ps", ("failing", ""))

    monkeypatch.delenv("HUTCH_DEBUG", raising=False)
    return install


@pytest.mark.parametrize("exit_code", [1, 125])
def test_a_bug_is_two_lines_and_no_traceback(
    failing: Install, capsys: pytest.CaptureFixture[str], exit_code: int
) -> None:
    failing(KeyError("a\nb"), exit_code)
    assert entry.main(["ps"]) == exit_code
    said = capsys.readouterr().err.splitlines()
    assert said[0] == r"hutch: internal error: KeyError: 'a\nb'"
    assert said[1].startswith("hint: ")
    assert "HUTCH_DEBUG=1" in said[1]
    assert len(said) == 2


def test_debugging_shows_where(
    failing: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ZeroDivisionError("division by zero"), 1)
    monkeypatch.setenv("HUTCH_DEBUG", "1")
    assert entry.main(["ps"]) == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "test_main.py" in said
    assert "hutch: internal error: ZeroDivisionError: division by zero" in said


def test_the_kernels_words_are_no_bug(failing: Install, capsys: pytest.CaptureFixture[str]) -> None:
    failing(OSError(28, "x", "/place"), 1)
    assert entry.main(["ps"]) == 1
    assert capsys.readouterr().err == "hutch: /place: no space left on device\n"


def test_an_interruption_says_nothing(failing: Install, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt(), 1)
    assert entry.main(["ps"]) == 130
    assert capsys.readouterr().err == ""
