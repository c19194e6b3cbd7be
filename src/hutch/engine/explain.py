"""`--explain`: tell each step of the kernel's as it is taken, with the shell command that does the same."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from hutch.runtime.steps import Step


class Narrator:
    """Writes numbered steps.

    Args:
        out: standard error.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._count = 0

    def step(self, actor: str, step: Step) -> None:
        """One step, as it is about to run or would run."""
        self._count += 1
        self._out.write(f"{self._count:3} {actor:6} {step.title}\n           {step.describe()}\n")
        shell = step.shell()
        if shell:
            self._out.write(f"           $ {shell}\n")
        self._out.flush()
