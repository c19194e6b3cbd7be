"""Command-line flags, in the grammar of Go's pflag that Docker's users' fingers know.

``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, ``-it`` for two switches, ``--rm=false``, and ``--`` to
end the flags. A command says whether flags may follow its first argument. The messages are Docker's.

A table and 100 lines, because importing click costs 30 ms, which is more than the container (docs/adr).
"""

from __future__ import annotations

from hutch.engine.values import parse_bool
from hutch.errors import HutchError, InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_SHOWN = 256
"""Characters of a wrong argument that are repeated to whoever gave it."""


class UsageError(HutchError):
    """The command line itself is wrong; `usage` is the line to show with it."""

    http_status = 400


class HelpRequested(Exception):
    """--help was given."""


class Flag:
    """One flag of one command.

    Args:
        name: long name without dashes.
        kind: what the help says the value is; ``""`` is a switch, a trailing ``...`` collects a tuple.
        text: its line in the help.
        short: one letter, or an empty string.
        parse: text to value; raises InvalidArgument. None keeps the text.
        default: what an absent flag yields (a collecting flag yields an empty tuple).
        bare: for a flag whose value is optional, what it yields without ``=value``.
    """

    __slots__ = ("bare", "collects", "default", "kind", "name", "parse", "short", "text")

    def __init__(
        self,
        name: str,
        kind: str = "",
        text: str = "",
        *,
        short: str = "",
        parse: Callable[[str], Any] | None = None,
        default: Any = None,
        bare: str | None = None,
    ) -> None:
        self.name, self.text, self.short = name, text, short
        self.collects = kind.endswith("...")
        self.kind = kind.removesuffix("...")
        self.parse = parse if self.kind or parse else parse_bool
        self.bare = bare if self.kind else "true"
        if default is None:
            default = () if self.collects else None if self.kind else False
        self.default = default

    @property
    def key(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")

    @property
    def spelling(self) -> str:
        """As messages and help write it: ``-m, --memory``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    def convert(self, text: str) -> Any:
        """The value of `text`, or an error that names the flag."""
        if self.parse is None:
            return text
        try:
            return self.parse(text)
        except InvalidArgument as error:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            message = f'invalid argument "{shown}" for "{self.spelling}" flag: {error}'
            raise UsageError(message, hint=error.hint) from None
        except NotSupported as error:
            raise UsageError(f"{self.spelling}: {error}", hint=error.hint) from None


HELP = Flag("help", "", "print usage")


def parse(flags: Sequence[Flag], argv: Sequence[str], *, interspersed: bool = True) -> tuple[dict[str, Any], list[str]]:
    """Split `argv` into values by key and the remaining arguments.

    Args:
        flags: the command's table.
        argv: what follows the command's name.
        interspersed: whether a flag may follow an argument; `run` says no, for the container's command has its own.

    Raises:
        UsageError: an unknown flag, a missing or a wrong value.
        HelpRequested: --help.
    """
    table = (*flags, HELP)
    by_name = {flag.name: flag for flag in table}
    by_short = {flag.short: flag for flag in table if flag.short}
    values: dict[str, Any] = {flag.key: flag.default for flag in flags}
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            rest += words
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not interspersed:
                rest += words
                break
        elif word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            flag = by_name.get(name)
            if flag is None:
                raise UsageError(f"unknown flag: --{name}", hint=_nearest(name, by_name))
            _take(flag, text if equals else None, words, values, f"--{name}")
        else:
            _take_short(word[1:], by_short, words, values)
    return values, rest


def _take_short(letters: str, by_short: dict[str, Flag], words: list[str], values: dict[str, Any]) -> None:
    cluster = letters
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = by_short.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{cluster}")
        if flag.bare is not None and not letters.startswith("="):
            _take(flag, None, words, values, "")
            continue
        text = letters.removeprefix("=") if letters else None
        _take(flag, text, words, values, f"'{letter}' in -{cluster}")
        return


def _take(flag: Flag, text: str | None, words: list[str], values: dict[str, Any], said: str) -> None:
    if flag is HELP:
        raise HelpRequested
    if text is None:
        text = flag.bare
    if text is None:
        if not words:
            raise UsageError(f"flag needs an argument: {said}")
        text = words.pop(0)
    value = flag.convert(text)
    values[flag.key] = (*values[flag.key], value) if flag.collects else value


def _nearest(name: str, names: dict[str, Flag]) -> str:
    """A hint naming the flag that was probably meant."""
    from difflib import get_close_matches

    found = get_close_matches(name, names, n=1, cutoff=0.75)
    return f"did you mean --{found[0]}?" if found else ""


def describe(flags: Sequence[Flag]) -> str:
    """The options section of a command's help."""
    rows = []
    for flag in sorted((*flags, HELP), key=lambda flag: flag.name):
        left = f"  {'-' + flag.short + ', ' if flag.short else '    '}--{flag.name}"
        rows.append((f"{left} {flag.kind}" if flag.kind else left, flag.text))
    width = min(max(len(left) for left, _ in rows), 36)
    return "\n".join(f"{left.ljust(width)}  {text}" for left, text in rows)
