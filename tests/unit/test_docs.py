"""The documentation that is made from the code is as the code is now."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hutch.cli.main import COMMANDS, load

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts"))
    import reference

    yield reference
    for name in ("reference", "compared"):
        sys.modules.pop(name, None)


def test_the_pages_of_commands_are_current(reference):
    assert reference.outdated() == [], "make docs"


def test_the_comparison_is_current(reference):
    import compared

    assert (CHECKOUT / "docs/user/compared.md").read_text(encoding="utf-8") == compared.page(), "make docs"


def test_a_page_that_is_not_current_is_noticed(reference, monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "commands")
    assert len(reference.write()) == len(COMMANDS) + 2
    assert reference.outdated() == []
    (tmp_path / "commands/ps.md").write_text("old", encoding="utf-8")
    (tmp_path / "commands/gone.md").write_text("of a command that is no more", encoding="utf-8")
    assert sorted(path.name for path in reference.write()) == ["gone.md", "ps.md"]
    assert reference.outdated() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_itself(name):
    command = load(name)
    assert f"hutch {name}" in command.example or any(
        f"hutch {alias}" in command.example for alias in _names_of(name)
    ), command.example


def _names_of(name):
    from hutch.cli.main import ALIASES

    return [alias for alias, target in ALIASES.items() if target == name]
