"""start, kill, delete, pause and resume."""

from __future__ import annotations

from hutch.errors import ContainerNotFound, Internal
from hutch.runtime import signals
from hutch.runtime.arguments import BOOLEAN, Command, Flag
from hutch.runtime.container import Container, remove_remains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context


def _start(context: Context, options: Options, arguments: list[str]) -> int:
    del options
    with Container.load(context.state_dir, arguments[0]) as container:
        container.start(warn=context.warn)
    return 0


def _kill(context: Context, options: Options, arguments: list[str]) -> int:
    signal = signals.number(arguments[1] if len(arguments) > 1 else "TERM")
    with Container.load(context.state_dir, arguments[0]) as container:
        container.kill(signal, everyone=options.on("all"))
    return 0


def _delete(context: Context, options: Options, arguments: list[str]) -> int:
    force = options.on("force")
    try:
        container = Container.load(context.state_dir, arguments[0])
    except (ContainerNotFound, Internal):
        # Without a readable record there is at most a directory, left by a create or a delete that crashed.
        if force:
            remove_remains(context.state_dir, arguments[0])
            return 0
        raise
    with container:
        container.delete(force=force, warn=context.warn)
    return 0


def _pause(context: Context, options: Options, arguments: list[str]) -> int:
    del options
    with Container.load(context.state_dir, arguments[0]) as container:
        container.pause()
    return 0


def _resume(context: Context, options: Options, arguments: list[str]) -> int:
    del options
    with Container.load(context.state_dir, arguments[0]) as container:
        container.resume()
    return 0


COMMANDS = {
    "start": Command("<container-id>", _start),
    "kill": Command(
        "<container-id> [signal]",
        _kill,
        flags=(Flag("all", BOOLEAN, "signal every process of the container", letter="a"),),
        maximum=2,
    ),
    "delete": Command(
        "<container-id>",
        _delete,
        flags=(Flag("force", BOOLEAN, "kill the container first, if it has not stopped", letter="f"),),
    ),
    "pause": Command("<container-id>", _pause),
    "resume": Command("<container-id>", _resume),
}
