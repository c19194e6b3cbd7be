"""`--format '{{…}}'`: a parsed template, to be applied to any number of values."""

from __future__ import annotations

from hutch.cli.gotemplate.evaluate import Evaluation
from hutch.cli.gotemplate.functions import FUNCTIONS, HEADING_FUNCTIONS
from hutch.cli.gotemplate.nodes import TemplateError
from hutch.cli.gotemplate.parser import SIZE_MAX, Parser
from hutch.cli.gotemplate.values import Row, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX = "template parsing error: "


class Template:
    """A template.

    Args:
        text: in the language of Go's text/template, with Docker's functions. The user's own, so trusted not to be
            hostile, but bounded in depth, steps and output.

    Raises:
        TemplateError: it cannot be parsed.
    """

    def __init__(self, text: str) -> None:
        if len(text) > SIZE_MAX:
            raise TemplateError(f"{_PREFIX}template: : more than {SIZE_MAX} characters")
        self._text = text
        parser = Parser(text, FUNCTIONS)
        try:
            parser.parse()
        except TemplateError as error:
            raise TemplateError(f"{_PREFIX}{error}") from None
        self._templates = parser.templates

    def apply(self, value: Any) -> str:
        """What it makes of `value`: of dicts, lists, strings, numbers, booleans and None.

        Raises:
            TemplateError: it asks for a field that is not there, or a function cannot do what it asks for.
        """
        evaluation = Evaluation(self._text, self._templates, FUNCTIONS)
        try:
            return _printable(evaluation.run(value))
        except TemplateError as error:
            problem = error
        if isinstance(value, dict) and not isinstance(value, Row):
            # As docker inspect does: what its types cannot do may do with the bare JSON, or fails in simpler words.
            try:
                return _printable(Evaluation(self._text, self._templates, FUNCTIONS).run(raw(value)))
            except TemplateError as error:
                problem = error
        raise TemplateError(f"{_PREFIX}{problem}", hint=problem.hint)

    def headings(self, headings: Any) -> str:
        """What it makes of a table's headings; as much as can be made of them, for Docker's users see no more."""
        evaluation = Evaluation(self._text, self._templates, HEADING_FUNCTIONS)
        try:
            return _printable(evaluation.run(headings))
        except TemplateError:
            return _printable(evaluation.so_far())


def _printable(text: str) -> str:
    """`text` in UTF-8: a template can name bytes that are none."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
