"""Commands that do the same with each of their arguments, and go on after one that fails."""

from __future__ import annotations

from hutch.cli.messages import complain
from hutch.errors import HutchError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def for_each(arguments: Iterable[str], action: Callable[[str], object], *, missing_is_fine: bool = False) -> int:
    """Do it, print what it was done with, and complain of what could not be.

    Args:
        arguments: names or ids.
        action: raises HutchError; what it returns, if anything, is printed instead of the argument.
        missing_is_fine: NotFound is nothing to complain of.

    Returns:
        1 if anything failed, else 0.
    """
    status = 0
    for text in arguments:
        try:
            done = action(text)
        except HutchError as error:
            if missing_is_fine and isinstance(error, NotFound):
                continue
            complain(error)
            status = 1
        else:
            print(text if done is None else done, flush=True)
    return status
