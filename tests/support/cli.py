"""`hutch` as its users start it: the installed script's own start-up, over a private root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.programs import run

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "hutch"


def command(*options: str) -> list[str]:
    """The words that start `hutch` with global `options` by this interpreter, without `site` as installed."""
    return [sys.executable, "-ISE", str(SCRIPT), *options]


class Cli:
    """`hutch` with its global options and environment fixed.

    Args:
        options: global options, such as ``Roots.options``.
        env: added to the environment.
    """

    def __init__(self, options: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.words = command(*options)
        self.env = {**os.environ, **(env or {})}

    def __call__(
        self, *arguments: str, check: bool = True, stdin: bytes | str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run one command line to its end."""
        return run([*self.words, *arguments], input=stdin, env=self.env, check=check, timeout_s=timeout_s)

    def fails(self, *arguments: str, status: int = 1, stdin: bytes | str | None = None) -> str:
        """Run a command line that must end with `status`; what it said on stderr."""
        done = self(*arguments, check=False, stdin=stdin)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stderr
