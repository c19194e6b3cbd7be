"""What others wrote does not command the terminal, wherever it is told."""

from __future__ import annotations

import pytest

from hutch.cli import messages
from hutch.errors import HutchError


def test_control_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    messages.complain(HutchError("image \x1b[2Jx: no", hint="try\x07 again"))
    messages.warn("mirror \x9b31m: gone")
    said = capsys.readouterr().err
    assert said == "hutch: image \\x1b[2Jx: no\nhint: try\\x07 again\nhutch: warning: mirror \\x9b31m: gone\n"
