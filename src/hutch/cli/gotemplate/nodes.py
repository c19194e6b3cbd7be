"""The tree of a parsed template. A node's text is how messages show it."""

from __future__ import annotations

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TemplateError(InvalidArgument):
    """A template that cannot be parsed, or not be applied to what it was given; worded as Go does."""


class Node:
    """Anything of a template; `position` is where messages say it is."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Constant(Node):
    """A literal, or nil.

    Attributes:
        kind: bool number string nil.
    """

    __slots__ = ("kind", "text", "value")

    def __init__(self, position: int, kind: str, text: str, value: Any) -> None:
        super().__init__(position)
        self.kind, self.text, self.value = kind, text, value

    def __str__(self) -> str:
        return self.text


class Dot(Node):
    """`.`: what the template or the block is applied to."""

    __slots__ = ()

    def __str__(self) -> str:
        return "."


class Field(Node):
    """`.A.B`."""

    __slots__ = ("names",)

    def __init__(self, position: int, names: list[str]) -> None:
        super().__init__(position)
        self.names = names

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


class Variable(Node):
    """`$x.A.B`; `name` has the dollar."""

    __slots__ = ("name", "names")

    def __init__(self, position: int, name: str, names: list[str]) -> None:
        super().__init__(position)
        self.name, self.names = name, names

    def __str__(self) -> str:
        return ".".join([self.name, *self.names])


class Chain(Node):
    """Fields of a pipeline in parentheses, or of a function without arguments."""

    __slots__ = ("names", "node")

    def __init__(self, position: int, node: Node, names: list[str]) -> None:
        super().__init__(position)
        self.node, self.names = node, names

    def __str__(self) -> str:
        return "".join([_operand(self.node), *(f".{name}" for name in self.names)])


class Function(Node):
    """The name of a function."""

    __slots__ = ("name",)

    def __init__(self, position: int, name: str) -> None:
        super().__init__(position)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Command(Node):
    """A function, method or value, and its arguments."""

    __slots__ = ("words",)

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.words: list[Node] = []

    def __str__(self) -> str:
        return " ".join(map(_operand, self.words))


class Pipe(Node):
    """Commands, each given the value of the one before, and the variables that take the last value."""

    __slots__ = ("assigns", "commands", "variables")

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.commands: list[Command] = []
        self.variables: list[Variable] = []
        self.assigns = False

    def __str__(self) -> str:
        names = ", ".join(map(str, self.variables))
        sign = " = " if self.assigns else " := "
        return (names + sign if names else "") + " | ".join(map(str, self.commands))


def _operand(node: Node) -> str:
    return f"({node})" if isinstance(node, Pipe) else str(node)


class Text(Node):
    """What stands outside of the actions."""

    __slots__ = ("text",)

    def __init__(self, position: int, text: str) -> None:
        super().__init__(position)
        self.text = text


class Action(Node):
    """A pipeline whose value is written, unless it goes to a variable."""

    __slots__ = ("pipe",)

    def __init__(self, position: int, pipe: Pipe) -> None:
        super().__init__(position)
        self.pipe = pipe

    def __str__(self) -> str:
        return "{{" + str(self.pipe) + "}}"


class Branch(Node):
    """if, with or range.

    Attributes:
        kind: which.
    """

    __slots__ = ("body", "kind", "otherwise", "pipe")

    def __init__(self, position: int, kind: str, pipe: Pipe, body: list[Node], otherwise: list[Node]) -> None:
        super().__init__(position)
        self.kind, self.pipe, self.body, self.otherwise = kind, pipe, body, otherwise

    def __str__(self) -> str:
        return f"{{{{{self.kind} {self.pipe}}}}}"


class Jump(Node):
    """break or continue."""

    __slots__ = ("kind",)

    def __init__(self, position: int, kind: str) -> None:
        super().__init__(position)
        self.kind = kind


class Include(Node):
    """`{{template "name" pipeline}}`, and what a block leaves in its place."""

    __slots__ = ("name", "pipe", "said")

    def __init__(self, position: int, name: str, said: str, pipe: Pipe | None) -> None:
        super().__init__(position)
        self.name, self.said, self.pipe = name, said, pipe

    def __str__(self) -> str:
        return "{{template " + self.said + (f" {self.pipe}" if self.pipe else "") + "}}"


class End(Node):
    """`{{end}}` or `{{else}}`: where a list of nodes ends."""

    __slots__ = ("kind",)

    def __init__(self, position: int, kind: str) -> None:
        super().__init__(position)
        self.kind = kind

    def __str__(self) -> str:
        return f"{{{{{self.kind}}}}}"
