"""Values as text: Go's fmt, as far as the values of templates go."""

from __future__ import annotations

from hutch.cli.gotemplate.lexer import quoted
from hutch.cli.gotemplate.nodes import TemplateError
from hutch.cli.gotemplate.values import Duration, Map, NilSlice, Nothing, items, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TEXT_MAX = 16 << 20
"""Characters that a template may make."""

_WIDTH_MAX = 1_000_000
_DIGITS = "0123456789"


class Directive:
    """One verb of a format, with its flags.

    Attributes:
        verb: its letter.
        flags: of ``+-# 0`` those given.
        width, precision: None when not given.
    """

    __slots__ = ("flags", "precision", "verb", "width")

    def __init__(
        self, verb: str = "v", flags: str = "", width: int | None = None, precision: int | None = None
    ) -> None:
        self.verb, self.flags, self.width, self.precision = verb, flags, width, precision

    def pad(self, text: str) -> str:
        """`text`, as wide as asked for."""
        width = self.width or 0
        if "-" in self.flags:
            return text.ljust(width)
        return text.rjust(width, "0" if "0" in self.flags else " ")

    def pad_number(self, sign: str, digits: str) -> str:
        """A number, with zeros between sign and digits where the flag asks for them."""
        if "0" in self.flags and "-" not in self.flags:
            digits = digits.rjust((self.width or 0) - len(sign), "0")
        return self.pad(sign + digits)

    def sign(self, *, negative: bool) -> str:
        """What stands before the digits."""
        return "-" if negative else "+" if "+" in self.flags else " " if " " in self.flags else ""


_PLAIN = Directive()


def text(value: Any) -> str:
    """`value` as `{{…}}` writes it."""
    return value if isinstance(value, str) else value.text if isinstance(value, Nothing) else formatted(value, _PLAIN)


def sprint(values: Sequence[Any]) -> str:
    """Go's Sprint: a space between two that are no strings."""
    out = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out.append(" ")
        out.append(formatted(value, _PLAIN))
    return "".join(out)


def formatted(value: Any, directive: Directive) -> str:
    """`value` by one directive."""
    verb = directive.verb
    if verb == "T":
        return directive.pad("<nil>" if value is None else type_name(value))
    if verb == "v" and "#" in directive.flags:
        return directive.pad(_source(value))
    if value is None or isinstance(value, Nothing):
        return directive.pad("<nil>") if verb == "v" else f"%!{verb}(<nil>)"
    if isinstance(value, (dict, list, tuple)):
        return _composite(value, directive)
    if verb == "v" and "+" in directive.flags:  # it names the fields of structs, and is no sign
        directive = Directive(verb, directive.flags.replace("+", ""), directive.width, directive.precision)
    if isinstance(value, str):
        found = _string(value, directive)
    elif isinstance(value, bool):
        found = directive.pad(str(value).lower()) if verb in "tv" else None
    elif isinstance(value, Duration) and verb in "vsq":
        found = _string(str(value), directive)
    elif isinstance(value, int):
        found = _integer(value, directive)
    else:
        found = _float(value, directive)
    if found is None:
        plain = formatted(value, Directive("v", directive.flags, directive.width, directive.precision))
        return f"%!{verb}({type_name(value)}={plain})"
    return found


def _composite(value: Any, directive: Directive) -> str:
    if not isinstance(value, dict):
        if directive.verb in "xX" and not value:
            return directive.pad("")
        return "[" + " ".join(formatted(item, directive) for item in value) + "]"
    if isinstance(value, Map):
        pairs = [f"{formatted(key, directive)}:{formatted(item, directive)}" for key, item in items(value)]
        return "map[" + " ".join(pairs) + "]"
    named = "+" in directive.flags and directive.verb == "v"
    return (
        "{"
        + " ".join(
            f"{key}:{formatted(item, directive)}" if named else formatted(item, directive) for key, item in items(value)
        )
        + "}"
    )


def _source(value: Any) -> str:
    """Go's %#v."""
    if value is None or isinstance(value, Nothing):
        return "<nil>"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        pairs = ", ".join(f"{quoted(key)}:{_source(item)}" for key, item in items(value))
        return f"{type_name(value)}{{{pairs}}}"
    if isinstance(value, (list, tuple)):
        if isinstance(value, NilSlice):
            return f"{type_name(value)}(nil)"
        return f"{type_name(value)}{{{', '.join(map(_source, value))}}}"
    return str(value).lower() if isinstance(value, bool) else formatted(value, _PLAIN)


def _string(value: str, directive: Directive) -> str | None:
    verb, flags = directive.verb, directive.flags
    if directive.precision is not None and verb in "svq":
        value = value[: directive.precision]
    if verb in "sv":
        return directive.pad(value)
    if verb == "q":
        if "#" in flags and "`" not in value and value.isprintable():
            return directive.pad(f"`{value}`")
        return directive.pad(ascii_quoted(value) if "+" in flags else quoted(value))
    if verb in "xX":
        data = value.encode("utf-8", "surrogateescape")[: directive.precision]
        digits = data.hex(" ") if " " in flags and data else data.hex()
        if "#" in flags and digits:
            digits = "0x" + (digits.replace(" ", " 0x") if " " in flags else digits)
        return directive.pad(digits.upper() if verb == "X" else digits)
    return None


def ascii_quoted(value: str) -> str:
    """Go's QuoteToASCII."""
    out = []
    for char in quoted(value):
        code = ord(char)
        out.append(char if code < 0x80 else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    return "".join(out)


def _integer(value: int, directive: Directive) -> str | None:
    verb, flags = directive.verb, directive.flags
    sign, size = directive.sign(negative=value < 0), abs(int(value))
    if verb in "cqU":
        valid = 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000
        char = chr(value) if valid else "\ufffd"
        if verb == "U":
            return directive.pad(f"U+{size:04X}" + (f" '{char}'" if "#" in flags and char.isprintable() else ""))
        inner = char if verb == "c" or char == '"' else "\\'" if char == "'" else quoted(char)[1:-1]
        return directive.pad(inner if verb == "c" else f"'{inner}'")
    form = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if form is None:
        return None
    digits = format(size, form)
    if directive.precision is not None:
        digits = "" if not size and not directive.precision else digits.rjust(directive.precision, "0")
        flags = flags.replace("0", "")
    prefix = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}.get(verb, "") if "#" in flags else ""
    plain = Directive(verb, flags, directive.width)
    return plain.pad_number(sign + (prefix or ("0o" if verb == "O" else "")), digits)


def _float(value: float, directive: Directive) -> str | None:
    verb, precision = directive.verb, directive.precision
    if verb not in "veEfFgG":
        return None
    sign, size = directive.sign(negative=str(value).startswith("-")), abs(value)
    if size - size != 0:
        return Directive(verb, directive.flags.replace("0", ""), directive.width).pad((sign or "+") + "Inf")
    if verb in "vgG" and precision is None:
        digits = _shortest(size)
        return directive.pad_number(sign, digits.upper() if verb == "G" else digits)
    form = {"v": "g"}.get(verb, verb)
    sharp = "#" if "#" in directive.flags else ""
    return directive.pad_number(sign, format(size, f"{sharp}.{6 if precision is None else precision}{form}"))


def _shortest(size: float) -> str:
    """As few digits as tell the number from every other, with an exponent from a million on."""
    mantissa = repr(size).partition("e")[0].replace(".", "").lstrip("0").rstrip("0")
    scientific = format(size, f".{max(len(mantissa) - 1, 0)}e")
    exponent = int(scientific.partition("e")[2])
    if size and not -4 <= exponent < 6:
        return scientific
    return format(size, f".{max(len(mantissa) - 1 - exponent, 0)}f")


def sprintf(pattern: str, values: Sequence[Any]) -> str:
    """Go's Sprintf; what is wrong with the format stands in the result, as there."""
    out: list[str] = []
    made = 0
    reader = _Format(pattern, values)
    for piece in reader.pieces():
        out.append(piece)
        made += len(piece)
        if made > TEXT_MAX:
            raise TemplateError(f"printf makes more than {TEXT_MAX} characters")
    return "".join(out)


class _Format:
    """Reads a format and takes the values that it asks for."""

    def __init__(self, pattern: str, values: Sequence[Any]) -> None:
        self._pattern, self._values = pattern, values
        self._at = self._taken = 0
        self._reordered = False
        self._good_index = True

    def pieces(self) -> Any:
        """The result, in pieces."""
        end = len(self._pattern)
        while self._at < end:
            found = self._pattern.find("%", self._at)
            literal = self._pattern[self._at : found if found >= 0 else end]
            if literal:
                yield literal
            if found < 0:
                break
            self._at = found + 1
            yield self._directive()
        if not self._reordered and self._taken < len(self._values):
            extra = [
                "<nil>" if value is None or isinstance(value, Nothing) else f"{type_name(value)}={text(value)}"
                for value in self._values[self._taken :]
            ]
            yield f"%!(EXTRA {', '.join(extra)})"

    def _char(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _directive(self) -> str:
        flags = ""
        self._good_index = True
        while self._char() and self._char() in "+-# 0":
            flags += self._char()
            self._at += 1
        self._index()
        bad: list[str] = []
        width = self._count(said_as="WIDTH", out=bad)
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        precision = None
        if self._char() == ".":
            self._at += 1
            self._index()
            precision = self._count(said_as="PREC", out=bad)
            if precision is None:
                precision = 0
            elif precision < 0:
                precision = None
                bad.append("%!(BADPREC)")
        self._index()
        said = "".join(bad)
        verb = self._char()
        self._at += 1
        if not verb:
            return said + "%!(NOVERB)"
        if verb == "%":
            return said + "%"
        if not self._good_index:
            return f"{said}%!{verb}(BADINDEX)"
        if self._taken >= len(self._values):
            return f"{said}%!{verb}(MISSING)"
        value = self._values[self._taken]
        self._taken += 1
        return said + formatted(value, Directive(verb, flags, width, precision))

    def _count(self, *, said_as: str, out: list[str]) -> int | None:
        """A width or a precision: digits, or a value where there is a star."""
        if self._char() == "*":
            self._at += 1
            value = self._values[self._taken] if self._taken < len(self._values) else None
            self._taken += 1
            if type(value) is int and abs(value) <= _WIDTH_MAX:
                return value
            out.append(f"%!(BAD{said_as})")
            return None
        digits = ""
        while self._char() and self._char() in _DIGITS and len(digits) < 8:
            digits += self._char()
            self._at += 1
        if digits and int(digits) > _WIDTH_MAX:
            self._at = len(self._pattern)
            return None
        return int(digits) if digits else None

    def _index(self) -> None:
        """`[3]`: which value is next."""
        if self._char() != "[":
            return
        self._reordered = True
        end = self._pattern.find("]", self._at)
        number = self._pattern[self._at + 1 : end] if end > 0 else ""
        self._at = end + 1 if end > 0 else self._at + 1
        if number.isdecimal() and len(number) < 8 and 0 < int(number) <= len(self._values):
            self._taken = int(number) - 1
        else:
            self._good_index = False
