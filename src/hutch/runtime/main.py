"""`hutch-oci`: the OCI runtime as a command, in runc's words, for podman, containerd and dockerd.

It starts cold, so this module imports one command's module and nothing it can do without. A command's failure is one
line on stderr (and in the log) and exit status 1; 255 from `exec`, whose other statuses are the process's own.
"""

from __future__ import annotations

import os
import sys

from hutch.linux import stdio
from hutch.runtime import signals
from hutch.runtime.arguments import BOOLEAN, TEXT, Flag, count, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from hutch.runtime.arguments import Command
    from hutch.runtime.commands.context import Context

GLOBALS = (
    Flag("debug", BOOLEAN, "log what is done"),
    Flag("log", TEXT, "file for messages, instead of stderr"),
    Flag("log-format", TEXT, "'text' (default) or 'json'", default="text"),
    Flag("root", TEXT, "directory for the state of containers, in a tmpfs (default: /run/hutch-oci)"),
    Flag("criu", TEXT, "accepted for runc's sake; checkpoints are not supported"),
    Flag("systemd-cgroup", BOOLEAN, 'let systemd make cgroups: cgroupsPath is "slice:prefix:name"'),
    Flag("rootless", TEXT, "ignore cgroup permission errors: 'true', 'false' or 'auto' (default)", default="auto"),
    Flag("help", BOOLEAN, "show help", letter="h"),
    Flag("version", BOOLEAN, "print the version", letter="v"),
)

_HELP = Flag("help", BOOLEAN, "show help", letter="h")

# command: (module below hutch.runtime.commands, what it does)
COMMANDS = {
    "checkpoint": ("checkpoint", "checkpoint a running container (not supported)"),
    "create": ("create", "create a container"),
    "delete": ("lifecycle", "delete what a container holds"),
    "events": ("resources", "show resource usage and out-of-memory notifications"),
    "exec": ("exec", "execute another process in a container"),
    "features": ("features", "show what this runtime supports"),
    "kill": ("lifecycle", "send a signal (default: SIGTERM) to a container's init process"),
    "list": ("listing", "list containers"),
    "pause": ("lifecycle", "suspend all processes of a container"),
    "ps": ("listing", "show the processes of a container"),
    "restore": ("checkpoint", "restore a container from a checkpoint (not supported)"),
    "resume": ("lifecycle", "resume all processes of a container"),
    "run": ("create", "create and start a container"),
    "spec": ("spec", "write a new config.json"),
    "start": ("lifecycle", "execute the program of a created container"),
    "state": ("listing", "show the state of a container"),
    "update": ("resources", "change the limits of a container"),
}


def main(words: list[str]) -> int:
    """Run one command line.

    Args:
        words: the arguments, without the program's name.

    Returns:
        The exit status.
    """
    context: Context | None = None
    failure = 1
    try:
        options, rest = parse(GLOBALS, words, interleaved=False)
        if options.on("version"):
            from hutch.runtime.commands.version import version_text

            _out(version_text())
            return 0
        if options.on("help") or not rest or rest[0] in ("help", "h"):
            _out(_global_help())
            return 0
        from hutch.runtime.commands.context import Context

        context = Context(options)
        name = rest[0]
        command = _command(name)
        failure = command.failure
        own, arguments = parse((*command.flags, _HELP), rest[1:], interleaved=command.interleaved)
        if own.on("help"):
            title = f"hutch-oci {name} - {COMMANDS[name][1]}"
            _out(help_text(title, f"hutch-oci {name} [command options] {command.usage}", command.flags))
            return 0
        count(name, arguments, command.minimum, command.maximum)
        return command.run(context, own, arguments)
    except Exception as error:
        _report(context, error)
        return failure
    except KeyboardInterrupt:
        return 130


def _command(name: str) -> Command:
    if name not in COMMANDS:
        from hutch.errors import InvalidArgument

        raise InvalidArgument(f"no such command: {name}", hint="hutch-oci --help lists them")
    module = COMMANDS[name][0]
    found: Command = __import__(f"hutch.runtime.commands.{module}", fromlist=["COMMANDS"]).COMMANDS[name]
    return found


def _report(context: Context | None, error: Exception) -> None:
    from hutch.runtime.commands.context import Log, message_of

    if context is None:
        # The global options themselves are wrong, or name a log that cannot be written.
        Log("", json=False, debug=False).error(message_of(error))
        return
    context.log.error(message_of(error))
    if context.log.debugging or os.environ.get("HUTCH_DEBUG"):
        import traceback

        text = "".join(traceback.format_exception(error))
        context.log.debug(text)
        if os.environ.get("HUTCH_DEBUG"):
            os.write(2, text.encode("utf-8", "backslashreplace"))


def _global_help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"   {name.ljust(width)}  {what}" for name, (_, what) in COMMANDS.items())
    title = "hutch-oci - Open Container Initiative runtime"
    usage = "hutch-oci [global options] command [command options] [arguments...]"
    return help_text(title, usage, GLOBALS, f"COMMANDS:\n{commands}").replace("OPTIONS:", "GLOBAL OPTIONS:", 1)


def _out(text: str) -> None:
    os.write(1, text.encode())


def run() -> NoReturn:
    """The launcher's entry: run the process's own command line and end, without tearing the interpreter down."""
    signals.listen_to_interrupts()
    stdio.fill()
    os._exit(main(sys.argv[1:]))
