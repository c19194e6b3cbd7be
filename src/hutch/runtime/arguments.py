"""The command line as runc reads it, without argparse (9 ms of the start-up path).

Go's conventions: ``--name value``, ``--name=value``, one dash or two, ``-n`` for the short form, booleans alone or as
``--name=false``, ``--`` ends the flags. Flags may follow the container id, except where the rest of the line is
another program's (`exec`, `ps`).
"""

from __future__ import annotations

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hutch.runtime.commands.context import Context

BOOLEAN, TEXT, TEXTS, NUMBER = "boolean", "text", "texts", "number"

_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


class Flag:
    """One flag of a command.

    Args:
        name: long form without dashes.
        kind: BOOLEAN, TEXT, TEXTS (may be repeated) or NUMBER.
        help: one line.
        letter: short form, or an empty string.
        default: what `text` gives when the flag is not there.
    """

    __slots__ = ("default", "help", "kind", "letter", "name")

    def __init__(self, name: str, kind: str, help: str, *, letter: str = "", default: str = "") -> None:  # noqa: A002
        self.name = name
        self.kind = kind
        self.help = help
        self.letter = letter
        self.default = default


class Options:
    """The flags that were given, by long name; asking for a flag the command does not have is a KeyError."""

    __slots__ = ("_flags", "_given")

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._given: dict[str, list[str]] = {}

    def add(self, flag: Flag, value: str) -> None:
        """Take one value from the command line; InvalidArgument when it is not of the flag's kind."""
        if flag.kind == BOOLEAN and value not in _TRUE + _FALSE:
            raise InvalidArgument(f"invalid boolean value {value!r} for -{flag.name}")
        if flag.kind == NUMBER:
            _integer(flag.name, value)
        self._given.setdefault(flag.name, []).append(value)

    def given(self, name: str) -> bool:
        """Whether the flag was on the command line at all."""
        return self._flags[name].name in self._given

    def on(self, name: str) -> bool:
        """A boolean's value."""
        return self._last(name) in _TRUE

    def text(self, name: str) -> str:
        """The last value, or the flag's default."""
        return self._last(name)

    def texts(self, name: str) -> list[str]:
        """Every value, in order."""
        return list(self._given.get(self._flags[name].name, ()))

    def number(self, name: str) -> int:
        """The last value as a number, or the flag's default."""
        return _integer(name, self._last(name) or "0")

    def _last(self, name: str) -> str:
        flag = self._flags[name]
        return self._given[name][-1] if name in self._given else flag.default


class Command:
    """One command: what it is called with, and what it does.

    Args:
        usage: its arguments, for --help.
        run: takes the context, the flags and the arguments; returns the exit status.
        flags: beside --help.
        minimum: how many arguments it needs.
        maximum: how many it takes; -1 is any number.
        interleaved: whether flags may follow the first argument.
        failure: the exit status when it raises.
    """

    __slots__ = ("failure", "flags", "interleaved", "maximum", "minimum", "run", "usage")

    def __init__(
        self,
        usage: str,
        run: Callable[[Context, Options, list[str]], int],
        *,
        flags: Sequence[Flag] = (),
        minimum: int = 1,
        maximum: int = 1,
        interleaved: bool = True,
        failure: int = 1,
    ) -> None:
        self.usage = usage
        self.run = run
        self.flags = flags
        self.minimum = minimum
        self.maximum = maximum
        self.interleaved = interleaved
        self.failure = failure


def parse(flags: Sequence[Flag], words: Sequence[str], *, interleaved: bool) -> tuple[Options, list[str]]:
    """Sort a command line into flags and the rest.

    Args:
        flags: those there are.
        words: the command line after the command's name.
        interleaved: whether flags may follow the first argument.

    Raises:
        InvalidArgument: an unknown flag, which is named, or a flag without its value.
    """
    known = {flag.name: flag for flag in flags} | {flag.letter: flag for flag in flags if flag.letter}
    options = Options(flags)
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            rest += words[at:]
            break
        if word == "-" or not word.startswith("-"):
            rest.append(word)
            if interleaved:
                continue
            rest += words[at:]
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        flag = known.get(name)
        if flag is None:
            raise InvalidArgument(f"flag provided but not defined: -{name}")
        if not equals:
            if flag.kind == BOOLEAN:
                value = "true"
            elif at == len(words):
                raise InvalidArgument(f"flag needs an argument: -{name}")
            else:
                value = words[at]
                at += 1
        options.add(flag, value)
    return options, rest


def count(command: str, arguments: Sequence[str], minimum: int, maximum: int) -> None:
    """Check how many arguments there are; InvalidArgument if it is the wrong number."""
    if len(arguments) < minimum:
        raise InvalidArgument(f'"{command}" requires a minimum of {minimum} argument(s)')
    if maximum >= 0 and len(arguments) > maximum:
        raise InvalidArgument(f'"{command}" requires a maximum of {maximum} argument(s)')


def _integer(name: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise InvalidArgument(f"invalid value {text!r} for flag -{name}: not a number")
    return int(text)


def help_text(title: str, usage: str, flags: Sequence[Flag], more: str = "") -> str:
    """The text of --help, in runc's shape."""
    lines = ["NAME:", f"   {title}", "", "USAGE:", f"   {usage}", ""]
    if more:
        lines += [more, ""]
    if flags:
        left = [
            ", ".join(f"{dashes}{word}{'' if flag.kind == BOOLEAN else ' value'}" for dashes, word in _forms(flag))
            for flag in flags
        ]
        width = max(map(len, left))
        lines += ["OPTIONS:"]
        lines += [f"   {form.ljust(width)}  {flag.help}" for form, flag in zip(left, flags, strict=True)]
    return "\n".join(lines) + "\n"


def _forms(flag: Flag) -> list[tuple[str, str]]:
    return [("--", flag.name)] + ([("-", flag.letter)] if flag.letter else [])
