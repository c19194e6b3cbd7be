"""From text to the tree, in the grammar and with the messages of Go's text/template/parse."""

from __future__ import annotations

from hutch.cli.gotemplate import literals
from hutch.cli.gotemplate.lexer import Lexer, Token, quoted
from hutch.cli.gotemplate.nodes import (
    Action,
    Branch,
    Chain,
    Command,
    Constant,
    Dot,
    End,
    Field,
    Function,
    Include,
    Jump,
    Node,
    Pipe,
    TemplateError,
    Text,
    Variable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

DEPTH_MAX = 50
"""Blocks and parentheses in each other; the parser and the evaluator call themselves once or twice for each."""
SIZE_MAX = 1 << 20
"""Characters of a template."""

_OPERANDS = frozenset("bool constant dot field identifier number nil raw string variable (".split())


class Parser:
    """Parses one text.

    Args:
        text: the template.
        functions: the names that may be called.

    Attributes:
        templates: name → nodes of what the text defines; the empty name is the text itself.
    """

    def __init__(self, text: str, functions: Container[str]) -> None:
        self._tokens = Lexer(text).tokens()
        self._functions = functions
        self._ahead: list[Token] = []
        self._line = 1
        self._variables = ["$"]
        self._loops = self._depth = 0
        self._action_line = 0
        self.templates: dict[str, list[Node]] = {}

    def parse(self) -> None:
        """Fill `templates`.

        Raises:
            TemplateError: not a template.
        """
        nodes: list[Node] = []
        while self._peek().kind != "eof":
            if self._peek().kind == "left":
                delimiter = self._next()
                if self._peek_word().kind == "define":
                    self._next_word()
                    self._define()
                    continue
                self._back(delimiter)
            node = self._text_or_action()
            if isinstance(node, End):
                self._fail(f"unexpected {node}")
            nodes.append(node)
        self.templates.setdefault("", nodes)

    def _fail(self, message: str) -> Exception:
        raise TemplateError(f"template: :{self._line}: {message}")

    def _unexpected(self, token: Token, context: str) -> Exception:
        if token.kind != "error":
            return self._fail(f"unexpected {token} in {context}")
        where = ""
        if self._action_line not in (0, token.line):
            where = f" in action started at :{self._action_line}"
            if token.text.endswith(" action"):
                where = where.removeprefix(" in action")
        return self._fail(f"{token}{where}")

    def _next(self) -> Token:
        token = self._ahead.pop() if self._ahead else next(self._tokens)
        self._line = token.line
        return token

    def _back(self, token: Token) -> None:
        self._ahead.append(token)

    def _peek(self) -> Token:
        token = self._next()
        self._back(token)
        return token

    def _next_word(self) -> Token:
        """The next token but white space."""
        token = self._next()
        return self._next() if token.kind == "space" else token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._back(token)
        return token

    def _expect(self, kind: str, context: str) -> Token:
        token = self._next_word()
        if token.kind != kind:
            raise self._unexpected(token, context)
        return token

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._fail(f"more than {DEPTH_MAX} blocks or parentheses in each other")

    def _string(self, token: Token) -> str:
        try:
            return literals.string(token.text)
        except ValueError as error:
            raise self._fail(str(error)) from None

    def _name(self, token: Token, context: str) -> str:
        if token.kind not in ("string", "raw"):
            raise self._unexpected(token, context)
        return self._string(token)

    def _add(self, name: str, nodes: list[Node]) -> None:
        def empty(found: list[Node]) -> bool:
            return all(isinstance(node, Text) and not node.text.strip() for node in found)

        known = self.templates.get(name)
        if known is None or empty(known):
            self.templates[name] = nodes
        elif not empty(nodes):
            self._fail(f"template: multiple definition of template {quoted(name)}")

    def _define(self) -> None:
        name = self._name(self._next_word(), "define clause")
        self._expect("right", "define clause")
        kept, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        nodes, end = self._list()
        if end.kind != "end":
            self._fail(f"unexpected {end} in define clause")
        self._variables, self._loops = kept, loops
        self._add(name, nodes)

    def _list(self) -> tuple[list[Node], End]:
        """Nodes to the next end or else."""
        nodes: list[Node] = []
        while self._peek_word().kind != "eof":
            node = self._text_or_action()
            if isinstance(node, End):
                return nodes, node
            nodes.append(node)
        raise self._fail("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self._next_word()
        if token.kind == "text":
            return Text(token.position, token.text)
        if token.kind == "left":
            self._action_line = token.line
            node = self._action()
            self._action_line = 0
            return node
        raise self._unexpected(token, "input")

    def _action(self) -> Node:
        token = self._next_word()
        kind = token.kind
        if kind in ("if", "with", "range"):
            return self._branch(token)
        if kind in ("break", "continue"):
            return self._jump(token)
        if kind == "block":
            return self._block(token)
        if kind == "template":
            return self._include()
        if kind == "end":
            return End(self._expect("right", "end").position, "end")
        if kind == "else":
            peeked = self._peek_word()
            if peeked.kind not in ("if", "with"):
                self._expect("right", "else")
            return End(peeked.position, "else")
        self._back(token)
        return Action(token.position, self._pipeline("command", "right"))

    def _jump(self, token: Token) -> Jump:
        following = self._next_word()
        if following.kind != "right":
            raise self._unexpected(following, f"{{{{{token.kind}}}}}")
        if not self._loops:
            self._fail(f"{{{{{token.kind}}}}} outside {{{{range}}}}")
        return Jump(token.position, token.kind)

    def _branch(self, token: Token) -> Branch:
        self._deeper()
        known = len(self._variables)
        kind = token.kind
        pipe = self._pipeline(kind, "right")
        self._loops += kind == "range"
        body, end = self._list()
        self._loops -= kind == "range"
        otherwise: list[Node] = []
        if end.kind == "else":
            if kind in ("if", "with") and self._peek().kind == kind:
                otherwise = [self._branch(self._next())]
            else:
                otherwise, end = self._list()
                if end.kind != "end":
                    self._fail(f"expected end; found {end}")
        del self._variables[known:]
        self._depth -= 1
        return Branch(pipe.position, kind, pipe, body, otherwise)

    def _block(self, token: Token) -> Include:
        self._deeper()
        context = "block clause"
        said = self._next_word()
        name = self._name(said, context)
        pipe = self._pipeline(context, "right")
        kept, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        nodes, end = self._list()
        if end.kind != "end":
            self._fail(f"unexpected {end} in {context}")
        self._variables, self._loops = kept, loops
        self._add(name, nodes)
        self._depth -= 1
        return Include(token.position, name, said.text, pipe)

    def _include(self) -> Include:
        context = "template clause"
        said = self._next_word()
        name = self._name(said, context)
        following = self._next_word()
        pipe = None
        if following.kind != "right":
            self._back(following)
            pipe = self._pipeline(context, "right")
        return Include(said.position, name, said.text, pipe)

    def _pipeline(self, context: str, end: str) -> Pipe:
        self._deeper()
        pipe = Pipe(self._peek_word().position)
        self._declarations(pipe, context)
        while True:
            token = self._next_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                raise self._unexpected(token, context)
            self._back(token)
            pipe.commands.append(self._command())
        if not pipe.commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.words[0], (Constant, Dot)):
                self._fail(f"non executable command in pipeline stage {stage}")
        self._depth -= 1
        return pipe

    def _declarations(self, pipe: Pipe, context: str) -> None:
        while self._peek_word().kind == "variable":
            variable = self._next_word()
            after = self._next()
            sign = self._next() if after.kind == "space" else after
            comma = sign.kind == "char" and sign.text == ","
            if sign.kind not in ("=", ":=") and not comma:
                self._back(sign)
                if sign is not after:
                    self._back(after)  # `$x .A` is not `$x.A`
                self._back(variable)
                return
            pipe.variables.append(Variable(variable.position, variable.text, []))
            self._variables.append(variable.text)
            if not comma:
                pipe.assigns = sign.kind == "="
                return
            if context != "range" or len(pipe.variables) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_word().kind not in ("variable", "right", ")"):
                self._fail("range can only initialize variables")

    def _command(self) -> Command:
        command = Command(self._peek_word().position)
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                command.words.append(operand)
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind in ("right", ")"):
                self._back(token)
            elif token.kind != "|":
                raise self._unexpected(token, "operand")
            break
        if not command.words:
            self._fail("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        position = self._peek().position
        names = []
        while self._peek().kind == "field":
            names.append(self._next().text[1:])
        if isinstance(node, Field):
            return Field(position, node.names + names)
        if isinstance(node, Variable):
            return Variable(position, node.name, node.names + names)
        if isinstance(node, (Constant, Dot)):
            self._fail(f"unexpected . after term {quoted(str(node))}")
        return Chain(position, node, names)

    def _term(self) -> Node | None:
        token = self._next_word()
        kind, position, text = token.kind, token.position, token.text
        if kind == "field":
            return Field(position, [text[1:]])
        if kind == "dot":
            return Dot(position)
        if kind == "identifier":
            if text not in self._functions:
                self._fail(f"function {quoted(text)} not defined")
            return Function(position, text)
        if kind == "variable":
            if text not in self._variables:
                self._fail(f"undefined variable {quoted(text)}")
            return Variable(position, text, [])
        if kind == "(":
            return self._pipeline("parenthesized pipeline", ")")
        if kind in ("string", "raw"):
            return Constant(position, "string", text, self._string(token))
        if kind == "bool":
            return Constant(position, "bool", text, text == "true")
        if kind == "nil":
            return Constant(position, "nil", text, None)
        if kind in ("number", "constant"):
            try:
                value = literals.number(text) if kind == "number" else literals.character(text)
            except ValueError as error:
                raise self._fail(str(error)) from None
            return Constant(position, "number", text, value)
        self._back(token)
        return None
