"""Tables and `--format`: the part of Go's text/template that Docker's users write.

``{{.Name}}``, ``{{.Labels.key}}``, ``{{json .}}``, ``{{json .Labels}}``, ``{{len .X}}``, ``{{upper .X}}``,
``{{lower .X}}``, ``{{join .X ","}}``, ``{{split .X ","}}``, ``table {{.ID}}\\t{{.Names}}``, and the words ``json`` and
``table``. Control structures are refused.
"""

from __future__ import annotations

from hutch.errors import InvalidArgument
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", '\\"': '"', "\\\\": "\\"}
_GAP = "   "


def table(rows: Sequence[Sequence[str]], *, gap: str = _GAP) -> str:
    """Left-aligned columns as wide as their widest cell; nothing trails the last one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(gap.join(cells).rstrip())
    return "\n".join(lines)


def shortened(text: str, width: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def render(
    rows: Sequence[Mapping[str, Any]], template: str, columns: Sequence[tuple[str, str]], *, quiet_key: str = ""
) -> str:
    """Format rows for a list command.

    Args:
        rows: key → value.
        template: --format; empty is the command's table.
        columns: (heading, key) of that table.
        quiet_key: when not empty, print this alone (--quiet).

    Raises:
        InvalidArgument: a template outside the subset, or a field that the rows do not have.
    """
    if quiet_key:
        return "\n".join(str(row[quiet_key]) for row in rows)
    if template in ("", "table"):
        return table([[heading for heading, _ in columns], *([_text(row[key]) for _, key in columns] for row in rows)])
    if template == "json":
        return "\n".join(documents.dump(dict(row)) for row in rows)
    if template.startswith("table "):
        parsed = parse_template(template.removeprefix("table "))
        headings = {key: heading for heading, key in columns}
        first = {key: headings.get(key, _heading(key)) for key in (rows[0] if rows else headings)}
        lines = [parsed(first), *(parsed(row) for row in rows)]
        return table([line.split("\t") for line in lines])
    parsed = parse_template(template)
    return "\n".join(parsed(row) for row in rows)


def _heading(key: str) -> str:
    words = ""
    for before, char in zip(" " + key, key, strict=False):
        words += f" {char}" if char.isupper() and before.islower() else char
    return words.upper()


def parse_template(text: str) -> Callable[[Mapping[str, Any]], str]:
    """Compile a template.

    Returns:
        What turns one row into text.

    Raises:
        InvalidArgument: not in the subset.
    """
    pieces: list[str | Callable[[Mapping[str, Any]], str]] = []
    rest = text
    for escape, char in _ESCAPES.items():
        rest = rest.replace(escape, char) if escape not in ('\\"', "\\\\") else rest
    while rest:
        literal, opening, rest = rest.partition("{{")
        if literal:
            pieces.append(literal)
        if opening:
            action, closing, rest = rest.partition("}}")
            if not closing:
                raise InvalidArgument("template parsing error: unclosed action")
            pieces.append(_action(action.strip(" -")))
    return lambda row: "".join(piece if isinstance(piece, str) else piece(row) for piece in pieces)


def _action(text: str) -> Callable[[Mapping[str, Any]], str]:
    words = _words(text)
    stages: list[list[str]] = []
    stage: list[str] = []
    for word in [*words, "|"]:
        if word == "|":
            stages.append(stage)
            stage = []
        else:
            stage.append(word)
    if not all(stages):
        raise InvalidArgument(f"template parsing error: missing value in {{{{{text}}}}}")

    def evaluate(row: Mapping[str, Any]) -> str:
        value: Any = None
        for index, stage in enumerate(stages):
            arguments = [_value(word, row) for word in stage[1:]]
            if index:
                arguments.append(value)
            first = stage[0]
            value = _call(first, arguments) if first in _FUNCTIONS else _value(first, row)
        return _text(value)

    for stage in stages:
        if stage[0] not in _FUNCTIONS and (len(stage) > 1 or not stage[0].startswith((".", '"'))):
            raise InvalidArgument(f'template parsing error: function "{stage[0]}" not defined')
    return evaluate


def _words(text: str) -> list[str]:
    words, rest = [], text.strip()
    while rest:
        if rest[0] == '"':
            end = rest.find('"', 1)
            if end < 0:
                raise InvalidArgument("template parsing error: unterminated quoted string")
            words.append(rest[: end + 1])
            rest = rest[end + 1 :].lstrip()
        elif rest[0] == "|":
            words.append("|")
            rest = rest[1:].lstrip()
        else:
            end = next((index for index, char in enumerate(rest) if char in ' |"'), len(rest))
            words.append(rest[:end])
            rest = rest[end:].lstrip()
    return words


def _value(word: str, row: Mapping[str, Any]) -> Any:
    if word.startswith('"'):
        return word[1:-1]
    if not word.startswith("."):
        raise InvalidArgument(f'template parsing error: unexpected "{word}"')
    value: Any = row
    for key in word[1:].split(".") if word != "." else ():
        if not hasattr(value, "keys") or key not in value:
            raise InvalidArgument(f"template: can't evaluate field {key}", hint=f"fields: {', '.join(row)}")
        value = value[key]
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return _FUNCTIONS[name](*arguments)
    except TypeError:
        raise InvalidArgument(f"template: wrong number or kind of arguments for {name}") from None


def _join(values: Sequence[Any], separator: str) -> str:
    return separator.join(map(str, values))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": documents.dump,
    "join": _join,
    "len": len,
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "split": lambda text, separator: str(text).split(separator),
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "items"):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def human_size(size: float) -> str:
    """Bytes in Docker's words: four significant digits, powers of 1000 (``4.26MB``)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.4g}{unit}"


def ago(then: str, now_seconds: float) -> str:
    """How long ago an RFC 3339 time was, in Docker's words (``About a minute``, ``3 hours``)."""
    from calendar import timegm
    from time import strptime

    seconds = max(0, int(now_seconds - timegm(strptime(then[:19], "%Y-%m-%dT%H:%M:%S"))))
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes, hours = seconds // 60, (seconds + 1800) // 3600
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"
