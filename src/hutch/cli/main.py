"""`hutch`'s entry: global options, then one command, whose module is imported when it runs.

`main` keeps no state and reads nothing at import time, so that it can be called many times in one process.
"""

from __future__ import annotations

import os
import sys

from hutch.cli.messages import described
from hutch.errors import HutchError, Internal
from hutch.linux import stdio
from hutch.runtime import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from hutch.cli.command import Command
    from hutch.cli.flags import Flag

# command → (module below hutch.cli, with the name in it if that is not COMMAND; one line for the overview)
COMMANDS = {
    "run": ("run", "Create and run a new container from an image"),
    "create": ("create", "Create a new container, to be started later"),
    "start": ("start", "Start one or more containers that do not run"),
    "stop": ("stop", "Stop one or more running containers"),
    "restart": ("stop.RESTART", "Stop one or more containers and start them again"),
    "kill": ("kill", "Kill one or more running containers, or send them another signal"),
    "pause": ("pause", "Freeze every process of one or more containers"),
    "unpause": ("pause.UNPAUSE", "Let paused containers go on"),
    "wait": ("wait", "Wait until one or more containers end, then print their exit codes"),
    "rename": ("rename", "Give a container another name"),
    "attach": ("attach", "Attach standard input, output and error to a running container"),
    "exec": ("exec", "Execute a command in a running container"),
    "logs": ("logs", "Show what a container wrote to its standard output and error"),
    "cp": ("cp", "Copy files between a container and the host"),
    "diff": ("diff", "List what a container changed in its file system"),
    "commit": ("commit", "Make an image of a container's changes"),
    "export": ("export", "Write a container's file system as a tar"),
    "ps": ("ps", "List containers"),
    "top": ("top", "Show the processes of a container"),
    "stats": ("stats", "Show what containers take: CPU, memory, network, disks, processes"),
    "usage": ("usage", "Show what each run of a container and each exec has taken, also of those that are gone"),
    "port": ("port", "Show where a container's ports are published"),
    "update": ("update", "Change the limits and the restart policy of one or more containers"),
    "container prune": ("container_prune", "Remove all containers that do not run"),
    "events": ("events", "Show what happens to containers, images and volumes, as it happens"),
    "rm": ("rm", "Remove one or more containers"),
    "pull": ("pull", "Download an image from a registry"),
    "images": ("images", "List images"),
    "inspect": ("inspect", "Show all that is known of containers, images and volumes"),
    "container inspect": ("inspect.CONTAINER", "Show all that is known of one or more containers"),
    "image inspect": ("image_inspect", "Show all that is known of one or more images"),
    "image prune": ("image_prune", "Remove unused images"),
    "rmi": ("rmi", "Remove one or more images"),
    "tag": ("tag", "Give an image one more name"),
    "history": ("history", "Show the steps that an image was made by"),
    "load": ("load", "Load images from an archive or an OCI directory"),
    "save": ("save", "Save one or more images to an archive"),
    "import": ("import_image", "Make an image from a tar of a root file system"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("logout", "Forget the credentials for a registry"),
    "volume create": ("volume_create", "Create a volume"),
    "volume inspect": ("volume_inspect", "Show all that is known of one or more volumes"),
    "volume ls": ("volume_ls", "List volumes"),
    "volume prune": ("volume_prune", "Remove anonymous volumes that no container uses"),
    "volume rm": ("volume_rm", "Remove one or more volumes and their data"),
    "completion": ("completion", "Print the script by which bash, fish or zsh completes commands, flags and names"),
    "system check": ("system_check", "Find what is damaged or left over, and mend it"),
    "system df": ("system_df", "Show what takes how much of the disk, and what of it can be freed"),
    "system prune": ("system_prune", "Remove stopped containers and unused images"),
    "system recover": ("system_check.RECOVER", "Put everything right after a boot or a crash"),
    "system units": ("system_units", "Make systemd units, for the boot or for containers"),
    "version": ("version", "Show what this is and what it runs on"),
    "info": ("info", "Show what hutch found on this system, and what it chose"),
}
ALIASES = {
    **{
        f"container {name}": name
        for name in (
            "attach commit cp create diff exec export kill pause port rename restart rm run start stats stop top "
            "unpause update wait".split()
        )
    },
    "container logs": "logs",
    "container list": "ps",
    "container ls": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "image ls": "images",
    "image list": "images",
    "image remove": "rmi",
    "image rm": "rmi",
    "image pull": "pull",
    "image tag": "tag",
    "image history": "history",
    "image load": "load",
    "image save": "save",
    "image import": "import",
    "system events": "events",
    "system info": "info",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}
GROUPS = ("container", "image", "system", "volume")
_ANY_TIME = ("info", "login", "logout", "system check", "system recover", "system units", "version")
"""Commands that have nothing to do with containers, or that recover themselves."""
_DEBUG = "HUTCH_DEBUG"
_BUG_TEXT_MAX = 500
_EXAMPLES = """\
Examples:
  hutch run --rm -it @host sh             a shell in a throw-away copy of this system
  hutch run --rm -m 512m debian apt list  an image, with a memory limit
  hutch run --rm --explain busybox true   every kernel step of it"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: without the program's name; None takes the process's own.

    Returns:
        The exit status: the container's, or 125 (126, 127) when it could not be run, 1 for other commands' errors.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    status = 125
    try:
        return _dispatch(words)
    except HutchError as error:
        status = error.exit_code
        _complain(error)
    except BrokenPipeError:
        # Whoever read our output is gone; closing stdout again at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        status = 130
    except Terminated as ended:
        status = 128 + ended.number
    except Exception as error:
        _complain(_bug(error))
    return status


class Terminated(BaseException):
    """A signal that asks a process to end came while something can still be undone; like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, _frame: object) -> NoReturn:
    raise Terminated(number)


def _open_standard_streams() -> None:
    """Whoever closed one wants no output there, but neither a traceback nor our files in its place."""
    stdio.fill()
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _complain(error: HutchError) -> None:
    text = described(error) + "\n"
    if os.environ.get(_DEBUG):
        import traceback

        text = "".join(traceback.format_exception(error)) + text
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()


def _bug(error: Exception) -> Internal:
    """What a user is told of an exception that nobody expected."""
    what = " ".join(f"{type(error).__name__}: {error}".split())[:_BUG_TEXT_MAX]
    problem = Internal(
        f"internal error: {what}", hint=f"this is a bug in hutch; with {_DEBUG}=1 set it shows where, for a report"
    )
    problem.__cause__ = error
    return problem


def _dispatch(words: list[str]) -> int:
    from hutch.cli import flags

    table = global_flags()
    try:
        given, rest = flags.parse(table, words, interspersed=False)
    except flags.HelpRequested:
        print(_overview(table))
        return 0
    except flags.UsageError as error:
        raise _with_usage(error, "hutch [OPTIONS] COMMAND [ARG...]", "hutch") from None
    if given["version"]:
        from hutch import __version__

        print(f"hutch version {__version__}")
        return 0
    if not rest:
        print(_overview(table))
        return 0
    if rest[0] == "__complete":
        from hutch.cli import completing

        return completing.run(rest[1:], given)
    name, arguments = _command_name(rest)
    return _run(load(name), arguments, given)


def _command_name(words: list[str]) -> tuple[str, list[str]]:
    name = words[0]
    if name in GROUPS and len(words) > 1 and not words[1].startswith("-"):
        name, words = f"{name} {words[1]}", words[1:]
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        from difflib import get_close_matches

        from hutch.cli.refused import refuse

        refuse(name)
        near = get_close_matches(name, COMMANDS, n=1)
        error = HutchError(
            f"unknown command: hutch {name}\n\nRun 'hutch --help' for more information",
            hint=f"did you mean {near[0]}?" if near else "",
        )
        error.exit_code = 1
        raise error
    return name, words[1:]


def load(name: str) -> Command:
    """The command called `name`; imports its module."""
    # Not importlib's import_module: that takes a millisecond to import itself.
    module, _, attribute = COMMANDS[name][0].partition(".")
    command: Command = getattr(__import__(f"hutch.cli.{module}", fromlist=["COMMAND"]), attribute or "COMMAND")
    return command


def _run(command: Command, arguments: list[str], given: dict[str, Any]) -> int:
    from hutch.cli import flags

    try:
        values, rest = flags.parse(command.flags, arguments, interspersed=command.interspersed)
    except flags.HelpRequested:
        print(command.help())
        return 0
    except flags.UsageError as error:
        raise _with_usage(error, command.usage, f"hutch {command.name}") from None
    numbers = [n for n in (signals.SIGHUP, signals.SIGTERM) if signals.disposition(n) == signals.SIG_DFL]
    for number in numbers:  # nohup's stays ignored
        signals.handle(number, _terminate)
    try:
        command.check_arguments(rest)
        if command.name not in _ANY_TIME:
            _after_boot(given)
        return command.run(values, rest, given)
    except BrokenPipeError:
        raise
    except OSError as error:
        problem = HutchError(_in_words(error))
        problem.exit_code = command.exit_code
        raise problem from error
    except HutchError as error:
        error.exit_code = max(error.exit_code, command.exit_code) if error.exit_code != 125 else command.exit_code
        raise
    except Exception as error:
        bug = _bug(error)
        bug.exit_code = command.exit_code
        raise bug from error
    finally:
        for number in numbers:  # `main` may be called by a program that goes on
            signals.handle(number, signals.SIG_DFL)


def _after_boot(given: dict[str, Any]) -> None:
    """The first command after a boot puts right what the boot left, and starts what is to run."""
    from hutch.cli.messages import warn
    from hutch.engine import boot
    from hutch.engine.engine import Engine

    for problem in boot.notice(Engine(given["root"], given["state"])):
        warn(problem)


def _in_words(error: OSError) -> str:
    """What the kernel said, and of what, for a failure that nobody expected: a full disk, a broken one."""
    reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return ": ".join([*names, reason])


def _with_usage(error: HutchError, usage: str, name: str) -> HutchError:
    message = f"{error}\n\nUsage:  {usage}\n\nRun '{name} --help' for more information"
    return type(error)(message, hint=error.hint)


def global_flags() -> tuple[Flag, ...]:
    """What may stand before a command."""
    from hutch.cli.flags import Flag

    return (
        Flag("root", "dir", "where images, containers and volumes are kept"),
        Flag("state", "dir", "where what runs is kept; may vanish in a reboot"),
        Flag("version", "", "print the version", short="v"),
    )


def _overview(table: tuple[Flag, ...]) -> str:
    from hutch.cli.flags import describe

    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name.ljust(width)}  {text}" for name, (_, text) in sorted(COMMANDS.items()))
    return (
        "Usage:  hutch [OPTIONS] COMMAND [ARG...]\n\nA complete container engine, without a daemon\n\n"
        f"Commands:\n{commands}\n\nOptions:\n{describe(table)}\n\n{_EXAMPLES}\n\n"
        "Run 'hutch COMMAND --help' for more information on a command"
    )


def run() -> NoReturn:
    """The launcher's entry: run the process's own command line and end, without tearing the interpreter down."""
    signals.listen_to_interrupts()
    status = 130
    try:
        status = main()
        signals.handle(signals.SIGINT, signals.SIG_IGN)  # nothing is left to interrupt
    except KeyboardInterrupt:
        pass  # outside of all that could be interrupted
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = status or 1
    except OSError as error:
        os.write(2, f"hutch: cannot write the output: {os.strerror(error.errno or 0).lower()}\n".encode())
        status = status or 1
    os._exit(status)
