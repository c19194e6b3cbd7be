"""Tables, and rows through `--format`: a table, JSON, or a template of Go's text/template."""

from __future__ import annotations

from hutch.engine.moments import utc_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_GAP, _LEAST = 3, 10
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns as Docker has them: three spaces apart, ten wide at the least, but for the last cell.

    A column ends with a row that has no cell in it, and begins anew, as in Go's text/tabwriter.
    """
    lines = [""] * len(rows)
    for column in range(max(map(len, rows), default=0)):
        start = 0
        while start < len(rows):
            end = start
            while end < len(rows) and len(rows[end]) > column + 1:
                end += 1
            width = max([_LEAST, *(len(row[column]) + _GAP for row in rows[start:end])])
            for position in range(start, end):
                lines[position] += rows[position][column].ljust(width)
            if end < len(rows) and len(rows[end]) == column + 1:
                lines[end] += rows[end][column]
            start = end + 1
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
        InvalidArgument: not a template, or a field that the rows do not have.
    """
    if quiet_key:
        return "\n".join(str(row[quiet_key]) for row in rows)
    if template in ("", "table"):
        return table([[heading for heading, _ in columns], *([_text(row[key]) for _, key in columns] for row in rows)])
    from hutch.cli.gotemplate.template import Template
    from hutch.cli.gotemplate.values import Row

    is_table = template.startswith("table")
    text = "{{json .}}" if template == "json" else template.removeprefix("table").strip(" ")
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    parsed = Template(text)
    made = [parsed.apply(Row(_fields(row))) for row in rows]
    if is_table:
        made.insert(0, parsed.headings(_headings({key: heading for heading, key in columns})))
        return table([line.split("\t") for line in "\n".join(made).split("\n")])
    return "\n".join(made)


def parse_template(text: str) -> Callable[[Mapping[str, Any]], str]:
    """Compile the `--format` of a command that shows things whole, such as `image inspect`; `json` is one line.

    Returns:
        What turns one document into text.

    Raises:
        InvalidArgument: not a template. What is returned raises it for a field that is not there.
    """
    from hutch.cli.gotemplate.template import Template

    return Template("{{json .}}" if text == "json" else text).apply


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a template sees of a row: text, as in Docker, and its labels one by one."""
    fields: dict[str, Any] = {key: _text(value) for key, value in row.items()}
    labels = row.get("Labels")
    if isinstance(labels, dict):
        fields["Label"] = lambda name: labels.get(name, "")
    return fields


def _headings(given: Mapping[str, str]) -> Any:
    from hutch.cli.gotemplate.values import Map

    class Headings(Map):
        """A heading for every field that may be asked for."""

        def __contains__(self, key: object) -> bool:
            return True

        def __getitem__(self, key: str) -> Any:
            if key == "Label":
                return lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")
            return given.get(key) or _heading(key)

    return Headings()


def _heading(key: str) -> str:
    words = ""
    for before, char in zip(" " + key, key, strict=False):
        words += f" {char}" if char.isupper() and before.islower() else char
    return words.upper()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "items"):
        return ",".join(f"{key}={value[key]}" for key in sorted(value))
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def human_size(size: float, digits: int = 4) -> str:
    """Bytes in Docker's words: significant digits, powers of 1000 (``4.26MB``)."""
    return _scaled(size, 1000, ("B", "kB", "MB", "GB", "TB"), digits)


def binary_size(size: float) -> str:
    """The same in powers of 1024 (``4.26MiB``), as Docker shows memory."""
    return _scaled(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB"), 4)


def _scaled(size: float, base: int, units: Sequence[str], digits: int) -> str:
    for unit in units:
        text = f"{size:.{digits}g}"
        if float(text) < base or unit == units[-1]:
            break
        size /= base
    return f"{text}{unit}"


def ago(then: str, now_seconds: float) -> str:
    """How long ago an RFC 3339 time was, in Docker's words (``About a minute``, ``3 hours``)."""
    seconds = max(0, int(now_seconds - utc_seconds(then)))
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
