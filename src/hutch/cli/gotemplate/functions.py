"""The functions that templates call: Go's own and Docker's. `and` and `or` are the evaluator's, as they stop early."""

from __future__ import annotations

from hutch.cli.gotemplate.formatting import TEXT_MAX, sprint, sprintf, text
from hutch.cli.gotemplate.nodes import TemplateError
from hutch.cli.gotemplate.values import (
    NO_VALUE,
    Map,
    NilMap,
    NilSlice,
    Nothing,
    RawMap,
    Row,
    entry,
    items,
    known,
    truth,
    type_name,
)
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Function:
    """A function and what it takes.

    Attributes:
        kinds: of its parameters: any, string, int or strings.
        rest: kind of any number of further arguments, or an empty string.
    """

    __slots__ = ("call", "kinds", "rest")

    def __init__(self, call: Callable[..., Any], kinds: str = "", rest: str = "") -> None:
        self.call, self.kinds, self.rest = call, kinds.split(), rest


def _fail(message: str) -> TemplateError:
    return TemplateError(message)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (list, tuple, Map)):
        return len(value)
    if value is None or isinstance(value, Nothing):
        raise _fail("len of nil pointer")
    raise _fail(f"len of type {type_name(value)}")


def _index(value: Any, *keys: Any) -> Any:
    if value is None or isinstance(value, Nothing):
        raise _fail("index of untyped nil")
    for key in keys:
        if value is None or isinstance(value, Nothing):
            raise _fail("index of nil pointer")
        if isinstance(value, Map):
            if not isinstance(key, str) or value.key != "string":
                raise _fail(f"value has type {type_name(key)}; should be {value.key}")
            value = entry(value, key) if key in value else _zero(value)
        elif isinstance(value, (list, tuple)):
            value = known(value[_position(key, len(value))], "")
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogateescape")
            value = data[_position(key, len(data), what="string")]
        else:
            raise _fail(f"can't index item of type {type_name(value)}")
    return value


def _zero(value: Map) -> Any:
    """What a map has for a key that it has not."""
    if (
        value.zero is None
        and not isinstance(value, RawMap)
        and value
        and all(isinstance(item, str) for item in value.values())
    ):
        return ""
    return value.zero


def _position(key: Any, size: int, *, what: str = "slice", beyond: bool = False) -> int:
    if key is None:
        raise _fail("cannot index slice/array with nil")
    if isinstance(key, bool) or not isinstance(key, int):
        raise _fail(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= size:
        raise _fail(f"index out of range: {key}")
    if key == size and not beyond:
        raise _fail(f"reflect: {what} index out of range")
    return key


def _slice(value: Any, *bounds: Any) -> Any:
    if value is None or isinstance(value, Nothing):
        raise _fail("slice of untyped nil")
    if len(bounds) > 3:
        raise _fail(f"too many slice indexes: {len(bounds)}")
    if isinstance(value, str):
        if len(bounds) == 3:
            raise _fail("cannot 3-index slice a string")
        data: Any = value.encode("utf-8", "surrogateescape")
    elif isinstance(value, (list, tuple)):
        data = value
    else:
        raise _fail(f"can't slice item of type {type_name(value)}")
    found = [_position(bound, len(data), beyond=True) for bound in bounds]
    start, end = [*found, 0][0], [*found, 0, len(data)][1] if len(found) > 1 else len(data)
    if start > end:
        raise _fail(f"invalid slice index: {start} > {end}")
    if len(found) == 3 and end > found[2]:
        raise _fail(f"invalid slice index: {end} > {found[2]}")
    data = data[start:end]
    return data.decode("utf-8", "replace") if isinstance(value, str) else list(data)


def _basic(value: Any) -> str:
    """The kind that comparisons go by; empty for what has no order and no simple equality."""
    if isinstance(value, bool):
        return "bool"
    return {int: "int", float: "float", str: "string"}.get(type(value), "int" if isinstance(value, int) else "")


def _is_nil(value: Any) -> bool:
    return value is None or isinstance(value, (Nothing, NilSlice, NilMap))


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise _fail("missing argument for comparison")
    kind = _basic(first)
    for other in others:
        if kind != _basic(other) and not _is_nil(first) and not _is_nil(other):
            raise _fail("incompatible types for comparison")
        if kind and not _is_nil(other):
            if first == other:
                return True
        elif _is_nil(first) or _is_nil(other):
            if _is_nil(first) and _is_nil(other):
                return True
        else:
            raise _fail(f"non-comparable type {sprint([first])}: {type_name(first)}")
    return False


def _less(first: Any, second: Any) -> bool:
    kinds = _basic(first), _basic(second)
    if "" in kinds:
        raise _fail("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise _fail("incompatible types for comparison")
    if kinds[0] == "bool":
        raise _fail("invalid type for comparison")
    return bool(first < second)


def _less_or_equal(first: Any, second: Any) -> bool:
    return _less(first, second) or _equal(first, second)


_HTML = {'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _printable(values: Sequence[Any]) -> str:
    return sprint([text(NO_VALUE) if value is None else value for value in values])


def _html(*values: Any) -> str:
    return "".join(_HTML.get(char, char) for char in _printable(values))


def _js(*values: Any) -> str:
    return "".join(
        _JS.get(char) or (f"\\u{ord(char):04X}" if char < " " or not (char.isprintable() or char == "\x7f") else char)
        for char in _printable(values)
    )


_URL_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


def _urlquery(*values: Any) -> str:
    data = _printable(values).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _URL_PLAIN else "+" if byte == 0x20 else f"%{byte:02X}" for byte in data)


def _println(*values: Any) -> str:
    return " ".join(sprint([value]) for value in values) + "\n"


def plain(value: Any, name: str = "") -> Any:
    """`value` as JSON has it in Go: maps sorted by key, no fraction where there is none, nothing that can be called."""
    if isinstance(value, (Nothing, NilSlice, NilMap)):
        return None
    if isinstance(value, dict):
        found = known(value, name)
        pairs = ((key, value[key]) for key in ([key for key, _ in items(found)]))
        return {key: plain(item, key) for key, item in pairs if not callable(item)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _Float(value) if isinstance(value, float) else value


class _Float(float):
    def __repr__(self) -> str:
        """As Go's encoding/json writes it."""
        size = abs(self)
        found = float.__repr__(self)
        if not size or 1e-6 <= size < 1e21:
            return f"{self:.0f}" if self.is_integer() else found if "e" not in found else f"{self:.20f}".rstrip("0")
        return found.replace("e-0", "e-")


_HTML_IN_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def json(value: Any, indent: str = "") -> str:
    """Docker's `json`."""
    found = documents.dump(plain(value), indent).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    if isinstance(value, Row):
        for char, escape in _HTML_IN_JSON.items():
            found = found.replace(char, escape)
    return found


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _join(texts: list[str], separator: str) -> str:
    if len(texts) * len(separator) > TEXT_MAX:
        raise _fail(f"join makes more than {TEXT_MAX} characters")
    return separator.join(texts)


def _cased(text: str, case: Callable[[str], str]) -> str:
    """Letter by letter; one that would become several stays, as in Go."""
    return "".join(changed if len(changed := case(char)) == 1 else char for char in text)


def _title(text: str) -> str:
    out, before = [], " "
    for char in text:
        starts = not (before.isalnum() or before == "_") if before.isascii() else before.isspace()
        out.append(char.upper() if starts and len(char.upper()) == 1 else char)
        before = char
    return "".join(out)


def _pad(text: str, before: int, after: int) -> str:
    if min(before, after) < 0:
        raise _fail("strings: negative Repeat count")
    if max(before, after) > TEXT_MAX:
        raise _fail(f"pad makes more than {TEXT_MAX} characters")
    return f"{' ' * before}{text}{' ' * after}" if text else text


def _truncate(text: str, length: int) -> str:
    """In bytes, as Docker's; a character that is cut in the middle goes."""
    data = text.encode("utf-8", "surrogateescape")
    if length < 0:
        raise _fail(f"runtime error: slice bounds out of range [:{length}]")
    return text if len(data) < length else data[:length].decode("utf-8", "ignore")


FUNCTIONS: Mapping[str, Function] = {
    "and": Function(truth, "any", "any"),
    "or": Function(truth, "any", "any"),
    "not": Function(lambda value: not truth(value), "any"),
    "len": Function(_length, "any"),
    "index": Function(_index, "any", "any"),
    "slice": Function(_slice, "any", "any"),
    "call": Function(type_name, "any", "any"),
    "eq": Function(_equal, "any", "any"),
    "ne": Function(lambda first, second: not _equal(first, second), "any any"),
    "lt": Function(_less, "any any"),
    "le": Function(_less_or_equal, "any any"),
    "gt": Function(lambda first, second: not _less_or_equal(first, second), "any any"),
    "ge": Function(lambda first, second: not _less(first, second), "any any"),
    "print": Function(lambda *values: sprint(values), "", "any"),
    "printf": Function(lambda pattern, *values: sprintf(pattern, values), "string", "any"),
    "println": Function(_println, "", "any"),
    "html": Function(_html, "", "any"),
    "js": Function(_js, "", "any"),
    "urlquery": Function(_urlquery, "", "any"),
    "json": Function(json, "any"),
    "prettyjson": Function(lambda value: json(value, "    "), "any"),
    "split": Function(_split, "string string"),
    "join": Function(_join, "strings string"),
    "title": Function(_title, "string"),
    "lower": Function(lambda text: _cased(text, str.lower), "string"),
    "upper": Function(lambda text: _cased(text, str.upper), "string"),
    "pad": Function(_pad, "string int int"),
    "truncate": Function(_truncate, "string int"),
}

# Applied to headings, which stay as they are; `pad` keeps them above their columns.
HEADING_FUNCTIONS: Mapping[str, Function] = {
    **FUNCTIONS,
    "json": Function(lambda text: text, "string"),
    "prettyjson": Function(lambda text: text, "string"),
    "split": Function(lambda text, _: text, "string string"),
    "join": Function(lambda text, _: text, "string string"),
    "title": Function(lambda text: text, "string"),
    "lower": Function(lambda text: text, "string"),
    "upper": Function(lambda text: text, "string"),
    "truncate": Function(lambda text, _: text, "string int"),
}
