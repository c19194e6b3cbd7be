"""`Command`: what a module of `hutch.cli` offers to `hutch.cli.main`; one command, one module."""

from __future__ import annotations

from hutch.cli.flags import Flag, UsageError, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Run = Callable[[dict[str, Any], list[str], dict[str, Any]], int]


class Command:
    """One command of the command line.

    Args:
        name: what the user types after ``hutch``.
        arguments: how the usage line shows what follows the options.
        summary: one line.
        flags: its options.
        run: takes the options by key, the arguments and the global options; returns the exit status.
        example: at least one line that works.
        least, most: how many arguments it takes; None is any number.
        interspersed: whether options may follow an argument.
        exit_code: the status when it fails for a reason of hutch's.
    """

    def __init__(
        self,
        name: str,
        *,
        arguments: str,
        summary: str,
        flags: Sequence[Flag],
        run: Run,
        example: str,
        least: int = 0,
        most: int | None = None,
        interspersed: bool = True,
        exit_code: int = 1,
    ) -> None:
        self.name, self.summary, self.example = name, summary, example
        self.flags, self.run = flags, run
        self.least, self.most = least, most
        self.interspersed, self.exit_code = interspersed, exit_code
        self.usage = f"hutch {name} [OPTIONS] {arguments}".rstrip()

    def check_arguments(self, arguments: Sequence[str]) -> None:
        """Check how many there are.

        Raises:
            UsageError: too few or too many.
        """
        count, what = len(arguments), f"'hutch {self.name}'"
        if self.most == 0 and count:
            problem = f"{what} accepts no arguments"
        elif count < self.least:
            problem = f"{what} requires at least {self.least} argument{'s' if self.least > 1 else ''}"
        elif self.most is not None and count > self.most:
            problem = f"{what} requires at most {self.most} argument{'s' if self.most > 1 else ''}"
        else:
            return
        raise UsageError(f"{problem}\n\nUsage:  {self.usage}\n\nSee 'hutch {self.name} --help' for more information")

    def help(self) -> str:
        """The text of --help."""
        return (
            f"Usage:  {self.usage}\n\n{self.summary}\n\nOptions:\n{describe(self.flags)}\n\n"
            f"Example:\n{_indent(self.example)}"
        )


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
