"""The tokens of Go's text/template, made one at a time: a fault behind the one that the parser finds is not reported.

By hand and not by regular expressions: importing `re` costs more than a table of containers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT, RIGHT = "{{", "}}"
SPACES = " \t\r\n"
KEYWORDS = frozenset("block break continue define else end if nil range template with".split())
_DIGITS = "0123456789_"
_BASES = {"x": "0123456789abcdefABCDEF_", "o": "01234567_", "b": "01_"}
_ENDS = frozenset(" \t\r\n.,|:()")
_SINGLE = {"=": "=", "|": "|", "(": "(", ")": ")"}


class Token:
    """One token.

    Attributes:
        kind: text left right space = := | ( ) char variable field identifier bool number string raw constant error eof,
            a keyword, or a dot.
        position: of its first character in the template.
        text: as written; of an error the message.
        line: from 1.
    """

    __slots__ = ("kind", "line", "position", "text")

    def __init__(self, kind: str, position: int, text: str, line: int) -> None:
        self.kind, self.position, self.text, self.line = kind, position, text, line

    def __str__(self) -> str:
        """As messages name it."""
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind in KEYWORDS or self.kind == "dot":
            return f"<{self.text}>"
        size = len(self.text.encode("utf-8", "surrogateescape"))
        return f"{quoted(self.text[:10])}..." if size > 10 else quoted(self.text)


def quoted(text: str) -> str:
    """`text` as a Go string literal (strconv.Quote)."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        elif char in _ESCAPED:
            out.append(_ESCAPED[char])
        elif "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif char < "\x80":
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}")
    return f'"{"".join(out)}"'


_ESCAPED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


class _Fault(Exception):
    """Why the rest of the template cannot be read."""


class Lexer:
    """Tokens of one template; the last is an error or eof."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._start = 0
        self._line = 1
        self._parens = 0

    def tokens(self) -> Iterator[Token]:
        """All of them, in order."""
        try:
            while True:
                literal, opened = self._literal()
                if literal.text:
                    yield literal
                if not opened:
                    break
                if self._comment():
                    continue
                yield self._token("left")
                while True:
                    token = self._inside()
                    yield token
                    if token.kind == "right":
                        break
                self._after_right(token)
        except _Fault as fault:
            yield Token("error", self._start, str(fault), self._line)
            return
        yield Token("eof", len(self._text), "", self._line)

    def _token(self, kind: str, text: str | None = None) -> Token:
        taken = self._text[self._start : self._at]
        token = Token(kind, self._start, taken if text is None else text, self._line)
        self._line += taken.count("\n")
        self._start = self._at
        return token

    def _literal(self) -> tuple[Token, bool]:
        """What stands before the next action, without the white space that the action's marker takes."""
        found = self._text.find(LEFT, self._at)
        self._at = len(self._text) if found < 0 else found
        token = self._token("text")
        if found < 0:
            return token, False
        self._at += len(LEFT)
        if self._text[self._at : self._at + 1] == "-" and self._is_space(self._at + 1):
            token.text = token.text.rstrip(SPACES)
        return token, True

    def _comment(self) -> bool:
        marker = self._text[self._at : self._at + 1] == "-" and self._is_space(self._at + 1)
        start = self._at + 2 * marker
        if not self._text.startswith("/*", start):
            if marker:
                self._at = start
            return False
        end = self._text.find("*/", start)
        if end < 0:
            raise _Fault("unclosed comment")
        self._at = end + 2
        size = self._right_delimiter()
        if not size:
            raise _Fault("comment ends before closing delimiter")
        self._at += size
        self._after_right(self._token("right"))
        return True

    def _right_delimiter(self) -> int:
        """Characters of the right delimiter here, 0 if there is none."""
        if self._text.startswith(RIGHT, self._at):
            return len(RIGHT)
        marked = self._is_space(self._at) and self._text.startswith("-" + RIGHT, self._at + 1)
        return 2 + len(RIGHT) if marked else 0

    def _after_right(self, token: Token) -> None:
        """Leave out the white space after an action that ends in a marker."""
        if len(token.text) > len(RIGHT) and token.text.endswith("-" + RIGHT):
            while self._is_space(self._at):
                self._at += 1
            self._token("space")
        token.text = RIGHT

    def _is_space(self, position: int) -> bool:
        return self._text[position : position + 1] in (" ", "\t", "\r", "\n")

    def _inside(self) -> Token:
        size = self._right_delimiter()
        if size:
            if self._parens:
                raise _Fault("unclosed left paren")
            self._at += size
            return self._token("right")
        if self._at >= len(self._text):
            raise _Fault("unclosed action")
        char = self._text[self._at]
        self._at += 1
        if char in SPACES:
            while self._is_space(self._at) and not self._right_delimiter():
                self._at += 1
            return self._token("space")
        if char in _SINGLE:
            return self._single(char)
        if char == ":":
            if not self._text.startswith("=", self._at):
                raise _Fault("expected :=")
            self._at += 1
            return self._token(":=")
        if char in "\"'`":
            return self._quote(char)
        if char == "$":
            self._word()
            return self._token("variable")
        if char == "." and not ("0" <= (self._text[self._at : self._at + 1] or "0") <= "9"):
            self._word()
            token = self._token("field")
            token.kind = "dot" if token.text == "." else "field"
            return token
        if char in "+-." or "0" <= char <= "9":
            self._at -= 1
            return self._number()
        if _is_letter(char):
            return self._identifier()
        if char.isascii() and char.isprintable():
            return self._token("char")
        raise _Fault(f"unrecognized character in action: {_named(char)}")

    def _single(self, char: str) -> Token:
        self._parens += {"(": 1, ")": -1}.get(char, 0)
        if self._parens < 0:
            raise _Fault("unexpected right paren")
        return self._token(_SINGLE[char])

    def _word(self) -> None:
        """Go on to the end of a word, which must be the end of the operand."""
        text, end = self._text, len(self._text)
        while self._at < end and _is_letter(text[self._at]):
            self._at += 1
        if self._at < end and text[self._at] not in _ENDS and not text.startswith(RIGHT, self._at):
            raise _Fault(f"bad character {_named(text[self._at])}")

    def _identifier(self) -> Token:
        self._word()
        token = self._token("identifier")
        if token.text in KEYWORDS:
            token.kind = token.text
        elif token.text in ("true", "false"):
            token.kind = "bool"
        return token

    def _quote(self, quote: str) -> Token:
        kind, what = {
            '"': ("string", "unterminated quoted string"),
            "'": ("constant", "unterminated character constant"),
            "`": ("raw", "unterminated raw quoted string"),
        }[quote]
        while True:
            char = self._text[self._at : self._at + 1]
            if char == "\\" and quote != "`":
                self._at += 1
                char = self._text[self._at : self._at + 1]
                if char not in ("", "\n"):
                    self._at += 1
                    continue
            if not char or (char == "\n" and quote != "`"):
                raise _Fault(what)
            self._at += 1
            if char == quote:
                return self._token(kind)

    def _number(self) -> Token:
        scanned = self._scan_number()
        if scanned and self._text[self._at : self._at + 1] in ("+", "-"):  # 1+2i
            scanned = self._scan_number() and self._text[self._at - 1] == "i"
        if not scanned:
            raise _Fault(f"bad number syntax: {quoted(self._text[self._start : self._at])}")
        return self._token("number")

    def _scan_number(self) -> bool:
        self._accept("+-")
        digits = _DIGITS
        if self._accept("0"):
            digits = _BASES.get(self._text[self._at : self._at + 1].lower(), _DIGITS)
            self._at += digits is not _DIGITS
        self._run(digits)
        if self._accept("."):
            self._run(digits)
        if digits is _DIGITS and self._accept("eE"):
            self._accept("+-")
            self._run(_DIGITS)
        self._accept("i")
        if self._at < len(self._text) and _is_letter(self._text[self._at]):
            self._at += 1
            return False
        return True

    def _accept(self, chars: str) -> bool:
        found = self._at < len(self._text) and self._text[self._at] in chars
        self._at += found
        return found

    def _run(self, chars: str) -> None:
        while self._accept(chars):
            pass


def _is_letter(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()


def _named(char: str) -> str:
    """Go's %#U."""
    return f"U+{ord(char):04X}" + (f" '{char}'" if char.isprintable() else "")
