"""Applying a tree to a value, in the steps and with the messages of Go's text/template/exec."""

from __future__ import annotations

from hutch.cli.gotemplate.formatting import TEXT_MAX, text
from hutch.cli.gotemplate.lexer import quoted
from hutch.cli.gotemplate.nodes import (
    Action,
    Branch,
    Chain,
    Command,
    Constant,
    Dot,
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
from hutch.cli.gotemplate.values import (
    NIL,
    NO_VALUE,
    Map,
    Nothing,
    RawMap,
    RawSlice,
    Row,
    field,
    items,
    known,
    truth,
    type_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from hutch.cli.gotemplate import functions

STEPS_MAX = 200_000
"""Nodes that one application may visit, those of a loop each time."""
INCLUDES_MAX = 50
"""Templates that may be applied in each other."""

_ABSENT = Nothing("")  # no value was handed on by a command before


class Evaluation:
    """One application of one template.

    Args:
        source: the template's text, for where in it an error is.
        templates: by name.
        functions: by name.
    """

    def __init__(
        self, source: str, templates: Mapping[str, list[Node]], functions: Mapping[str, functions.Function]
    ) -> None:
        self._source, self._templates, self._functions = source, templates, functions
        self._out: list[str] = []
        self._made = self._steps = self._includes = 0
        self._node: Node | None = None
        self._name = ""
        self._variables: list[tuple[str, Any]] = []

    def run(self, value: Any) -> str:
        """What the template makes of `value`.

        Raises:
            TemplateError: it asks for what is not there, or for too much.
        """
        self._variables = [("$", value)]
        try:
            self._walk_all(value, self._templates[""])
        except RecursionError:
            raise self._fail("exceeded maximum template depth") from None
        return self.so_far()

    def so_far(self) -> str:
        """What has been written; of a run that failed, up to there."""
        return "".join(self._out)

    def _fail(self, message: str) -> TemplateError:
        where = ""
        if self._node is not None:
            before = self._source[: self._node.position]
            column = len(before.rpartition("\n")[2].encode("utf-8", "surrogateescape"))
            name = f"at <{self._node}>" if str(self._node) else ""
            where = f"{before.count(chr(10)) + 1}:{column}: executing {quoted(self._name)} {name}: "
        return TemplateError(f"template: :{where}{message}")

    def _at(self, node: Node) -> None:
        self._node = node
        self._step()

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise self._fail(f"more than {STEPS_MAX} steps")

    def _write(self, written: str) -> None:
        self._made += len(written)
        if self._made > TEXT_MAX:
            raise self._fail(f"more than {TEXT_MAX} characters of output")
        self._out.append(written)

    def _walk_all(self, dot: Any, nodes: Sequence[Node]) -> str:
        """Visit nodes in order; `break` or `continue` when one of them ended the loop's turn."""
        for node in nodes:
            jump = self._walk(dot, node)
            if jump:
                return jump
        return ""

    def _walk(self, dot: Any, node: Node) -> str:
        if isinstance(node, Text):
            self._step()
            self._write(node.text)
            return ""
        self._at(node)
        if isinstance(node, Action):
            value = self._pipeline(dot, node.pipe)
            if not node.pipe.variables:
                self._at(node)
                self._write(text(NO_VALUE if value is None else value))
        elif isinstance(node, Branch):
            known_variables = len(self._variables)
            jump = self._range(dot, node) if node.kind == "range" else self._condition(dot, node)
            del self._variables[known_variables:]
            return jump
        elif isinstance(node, Include):
            self._include(dot, node)
        elif isinstance(node, Jump):
            return node.kind
        return ""

    def _condition(self, dot: Any, node: Branch) -> str:
        value = self._pipeline(dot, node.pipe)
        if not truth(value):
            return self._walk_all(dot, node.otherwise)
        return self._walk_all(value if node.kind == "with" else dot, node.body)

    def _range(self, dot: Any, node: Branch) -> str:
        value = self._pipeline(dot, node.pipe)
        mark = len(self._variables)
        empty = True
        for key, item in self._turns(value, node):
            empty = False
            self._step()  # a loop's body may be empty
            self._turn(node.pipe, key, item)
            jump = self._walk_all(item, node.body)
            del self._variables[mark:]
            if jump == "break":
                break
        return self._walk_all(dot, node.otherwise) if empty else ""

    def _turns(self, value: Any, node: Branch) -> Iterable[tuple[Any, Any]]:
        if value is None or value is NO_VALUE:
            return ()
        if isinstance(value, (list, tuple)):
            return ((position, known(item, "")) for position, item in enumerate(value))
        if isinstance(value, Map):
            return items(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.variables) > 1:
                raise self._fail(f"can't use {text(value)} to iterate over more than one variable")
            return ((number, number) for number in range(value))
        raise self._fail(f"range can't iterate over {text(value)}")

    def _turn(self, pipe: Pipe, key: Any, item: Any) -> None:
        """Set the loop's variables: of two the first is the key, one alone is the item."""
        names = [variable.name for variable in pipe.variables]
        for name, value in zip(names, (key, item) if len(names) > 1 else (item,), strict=False):
            self._assign(name, value)

    def _include(self, dot: Any, node: Include) -> None:
        nodes = self._templates.get(node.name)
        if nodes is None:
            raise self._fail(f"template {quoted(node.name)} not defined")
        self._includes += 1
        if self._includes > INCLUDES_MAX:
            raise self._fail(f"exceeded maximum template depth ({INCLUDES_MAX})")
        value = self._pipeline(dot, node.pipe) if node.pipe else None
        kept, self._variables = self._variables, [("$", value)]
        name, self._name = self._name, node.name
        self._walk_all(value, nodes)
        self._variables, self._name = kept, name
        self._includes -= 1

    def _assign(self, name: str, value: Any) -> None:
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == name:
                self._variables[position] = (name, value)
                return
        raise self._fail(f"undefined variable: {name}")

    def _pipeline(self, dot: Any, pipe: Pipe) -> Any:
        self._at(pipe)
        value: Any = _ABSENT
        for command in pipe.commands:
            value = self._command(dot, command, value)
        for variable in pipe.variables:
            if pipe.assigns:
                self._assign(variable.name, value)
            else:
                self._variables.append((variable.name, value))
        return value

    def _command(self, dot: Any, command: Command, final: Any) -> Any:
        first, arguments = command.words[0], command.words[1:]
        if isinstance(first, (Field, Chain, Variable, Function)):
            return self._operand(dot, first, command, arguments, final)
        if isinstance(first, Pipe):
            self._no_arguments(first, arguments, final)
            return self._pipeline(dot, first)
        self._at(first)
        self._no_arguments(first, arguments, final)
        if isinstance(first, Constant) and first.kind == "nil":
            raise self._fail("nil is not a command")
        return dot if isinstance(first, Dot) else first.value if isinstance(first, Constant) else None

    def _no_arguments(self, first: Node, arguments: Sequence[Node], final: Any) -> None:
        if arguments or final is not _ABSENT:
            raise self._fail(f"can't give argument to non-function {first}")

    def _operand(self, dot: Any, node: Node, command: Node, arguments: Sequence[Node], final: Any) -> Any:
        if isinstance(node, Function):
            return self._function(dot, node, command, arguments, final)
        if isinstance(node, Field):
            self._at(node)
            return self._fields(dot, dot, node, node.names, arguments, final)
        if isinstance(node, Variable):
            self._at(node)
            value = next((value for name, value in reversed(self._variables) if name == node.name), NO_VALUE)
            if not node.names:
                self._no_arguments(node, arguments, final)
                return value
            return self._fields(dot, value, node, node.names, arguments, final)
        assert isinstance(node, Chain)
        self._at(node)
        owner = self._argument(dot, node.node, "any")
        return self._fields(dot, owner, node, node.names, arguments, final)

    def _fields(
        self, dot: Any, owner: Any, node: Node, names: Sequence[str], arguments: Sequence[Node], final: Any
    ) -> Any:
        for name in names[:-1]:
            raw = isinstance(owner, RawMap)
            owner = self._field(dot, owner, node, name, (), _ABSENT)
            if raw and not isinstance(owner, dict) and owner is not None:
                raise self._fail(f"can't evaluate field {names[names.index(name) + 1]} in type interface {{}}")
        return self._field(dot, owner, node, names[-1], arguments, final)

    def _field(self, dot: Any, owner: Any, node: Node, name: str, arguments: Sequence[Node], final: Any) -> Any:
        if owner is NO_VALUE:
            return NO_VALUE
        if owner is None or owner is NIL:
            raise self._fail(f"nil pointer evaluating interface {{}}.{name}")
        if not isinstance(owner, dict):
            raise self._fail(f"can't evaluate field {name} in type {type_name(owner)}")
        try:
            value = field(owner, name)
        except KeyError:
            if not isinstance(owner, Row) and (arguments or final is not _ABSENT):
                raise self._fail(f"{name} is not a method but has arguments") from None
            if isinstance(owner, Row):
                problem = self._fail(f"can't evaluate field {name} in type row")
            else:
                problem = self._fail(f"map has no entry for key {quoted(name)}")
            problem.hint = f"fields: {', '.join(map(str, owner))}"
            raise problem from None
        if callable(value):
            return self._method(dot, value, name, node, arguments, final)
        if arguments or final is not _ABSENT:
            raise self._fail(f"{name} is not a method but has arguments")
        return value

    def _method(self, dot: Any, call: Any, name: str, node: Node, arguments: Sequence[Node], final: Any) -> Any:
        """Methods of rows take one string."""
        given = len(arguments) + (final is not _ABSENT)
        if given != 1:
            raise self._fail(f"wrong number of args for {name}: want 1 got {given}")
        if arguments:
            return call(self._argument(dot, arguments[0], "string"))
        self._at(node)
        return call(self._checked(final, "string"))

    def _function(self, dot: Any, node: Function, command: Node, arguments: Sequence[Node], final: Any) -> Any:
        self._at(node)
        function = self._functions[node.name]
        kinds, rest = function.kinds, function.rest
        given = len(arguments) + (final is not _ABSENT)
        if given < len(kinds) if rest else given != len(kinds):
            least = "at least " if rest else ""
            raise self._fail(f"wrong number of args for {node.name}: want {least}{len(kinds)} got {given}")
        if node.name in ("and", "or"):
            return self._until(dot, arguments, final, wanted=node.name == "or")
        values = [
            self._argument(dot, argument, kinds[position] if position < len(kinds) else rest)
            for position, argument in enumerate(arguments)
        ]
        if final is not _ABSENT:
            values.append(self._checked(final, rest if len(values) >= len(kinds) else kinds[len(values)]))
        if node.name == "call":  # of what can be called, a template is given results alone
            kind = f"non-function {arguments[0] if arguments else ''} of type {type_name(values[0])}"
            self._node = command
            raise self._fail(f"error calling call: {'call of nil' if values[0] is None else kind}")
        try:
            value = function.call(*values)
        except TemplateError as error:
            self._node = command
            raise self._fail(f"error calling {node.name}: {error}") from None
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise self._fail(f"{node.name} makes more than {TEXT_MAX} characters")
        return value

    def _until(self, dot: Any, arguments: Sequence[Node], final: Any, *, wanted: bool) -> Any:
        """`and`, `or`: the first value that decides, else the last; what stands behind it is not evaluated."""
        value: Any = final
        for argument in arguments:
            value = self._argument(dot, argument, "any")
            if truth(value) == wanted:
                return value
        return value if final is _ABSENT else final

    def _argument(self, dot: Any, node: Node, kind: str) -> Any:
        self._at(node)
        if isinstance(node, Dot):
            return self._checked(dot, kind)
        if isinstance(node, (Field, Variable, Chain, Function)):
            return self._checked(self._operand(dot, node, node, (), _ABSENT), kind)
        if isinstance(node, Pipe):
            return self._checked(self._pipeline(dot, node), kind)
        assert isinstance(node, Constant)
        if node.kind == "nil":
            if kind in ("string", "int"):
                raise self._fail(f"cannot assign nil to {kind}")
            return [] if kind == "strings" else None
        value = node.value
        if kind == "strings":
            raise self._fail(f"can't handle {node} for arg of type []string")
        if kind == "string" and not isinstance(value, str):
            raise self._fail(f"expected string; found {node}")
        if kind == "int" and type(value) is not int:
            raise self._fail(f"expected integer; found {node}")
        return value

    def _checked(self, value: Any, kind: str) -> Any:
        """`value`, which was computed, if a parameter of `kind` takes it."""
        if kind == "any":
            return None if value is NO_VALUE else value
        wanted = "[]string" if kind == "strings" else kind
        if value is NO_VALUE:
            if kind == "strings":
                return []
            raise self._fail(f"invalid value; expected {wanted}")
        if kind == "strings":
            fits = (
                isinstance(value, (list, tuple))
                and not isinstance(value, RawSlice)
                and all(isinstance(item, str) for item in value)
            )
        else:
            fits = isinstance(value, str) if kind == "string" else type(value) is int
        if not fits:
            raise self._fail(f"wrong type for value; expected {wanted}; got {type_name(value)}")
        return value
