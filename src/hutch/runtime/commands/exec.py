"""exec: another process in a container, from a process.json or from flags over the container's own process."""

from __future__ import annotations

import os

from hutch.errors import InvalidArgument
from hutch.runtime import config, documents
from hutch.runtime.arguments import BOOLEAN, NUMBER, TEXT, TEXTS, Command, Flag
from hutch.runtime.commands.process import ConsoleSocket, inherited, write_pid_file
from hutch.runtime.container import Container
from hutch.runtime.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context
    from hutch.spec.runtime import Process

_ID_LIMIT = (1 << 32) - 2
_CAPABILITY_SETS = ("bounding", "effective", "permitted")


def _id(text: str, what: str) -> int:
    """A numeric id as the kernel has them; 2**32 - 1 means "no change" to setresuid, so it is none."""
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _ID_LIMIT:
        return int(text)
    raise InvalidArgument(f"{what}: {text!r} is not a number from 0 to {_ID_LIMIT}")


def parse_user(text: str) -> tuple[int, int | None]:
    """UID and GID of ``uid[:gid]``; names are not looked up.

    Raises:
        InvalidArgument: anything else (CVE-2026-30892: what is no number must not become 0).
    """
    uid, colon, gid = text.partition(":")
    return _id(uid, "--user"), _id(gid, "--user") if colon else None


def process_of(options: Options, arguments: list[str], container: Container) -> Process:
    """The process asked for.

    Raises:
        InvalidArgument, InvalidConfig: it does not hold together.
    """
    if options.given("process"):
        if arguments:
            raise InvalidArgument("--process takes the place of a command", hint="give one of them")
        given = documents.read_object(options.text("process"))
        return config.check_process(given)
    if not arguments:
        raise InvalidArgument("process args cannot be empty")
    process: Any = dict(container.config.get("process") or {"cwd": "/"})
    process["args"] = arguments
    process["terminal"] = options.on("tty")
    process["env"] = [*process.get("env", []), *options.texts("env")]
    for flag, field in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(flag):
            process[field] = options.text(flag)
    if options.given("no-new-privs"):
        process["noNewPrivileges"] = options.on("no-new-privs")
    _set_user(process, options)
    _add_capabilities(process, options.texts("cap"))
    return config.check_process(process)


def _set_user(process: Process, options: Options) -> None:
    user: Any = dict(process.get("user") or {})
    if options.text("user"):
        uid, gid = parse_user(options.text("user"))
        user["uid"] = uid
        if gid is not None:
            user["gid"] = gid
    groups = [_id(text, "--additional-gids") for text in options.texts("additional-gids")]
    if groups:
        user["additionalGids"] = [*user.get("additionalGids", ()), *groups]
    process["user"] = user


def _add_capabilities(process: Process, names: list[str]) -> None:
    """Never into the inheritable set: a file's own inheritable capabilities would come with it (CVE-2022-29162)."""
    if not names:
        return
    sets: Any = dict(process.get("capabilities") or {})
    for kind in _CAPABILITY_SETS:
        held: list[str] = list(sets.get(kind) or [])
        sets[kind] = held + [name for name in dict.fromkeys(names) if name not in held]
    process["capabilities"] = sets


def _exec(context: Context, options: Options, arguments: list[str]) -> int:
    from hutch.runtime.seal import ensure_sealed

    ensure_sealed()
    with Container.load(context.state_dir, arguments[0]) as container:
        process = process_of(options, arguments[1:], container)
        terminal, detached = bool(process.get("terminal")), options.on("detach")
        with ConsoleSocket(options.text("console-socket"), terminal, detached=detached) as console:
            execution = _Execution(context, options, container, process)
            if detached:
                execution.start(console)
                return 0
            return execution.foreground(console)


class _Execution:
    """One `exec`, all of whose options are known."""

    def __init__(self, context: Context, options: Options, container: Container, process: Process) -> None:
        self.context, self.options, self.container, self.process = context, options, container, process

    def start(self, console: ConsoleSocket) -> int:
        """Start the process and write the pid file; returns its pid."""
        from hutch.runtime.exec import exec_process

        options = self.options
        pid = exec_process(
            self.container,
            self.process,
            console_socket=console.fd,
            preserve_fds=inherited(options.number("preserve-fds"), {"process": self.process}),
            ignore_paused=options.on("ignore-paused"),
            cgroup=options.texts("cgroup"),
            warn=self.context.warn,
        )
        if options.given("pid-file"):
            try:
                write_pid_file(options.text("pid-file"), pid)
            except BaseException:
                os.kill(pid, SIGKILL)
                raise
        return pid

    def foreground(self, console: ConsoleSocket) -> int:
        """Start it and stay until it ends; returns its exit status."""
        from hutch.linux.process import set_child_subreaper
        from hutch.runtime.relay import SignalPipe, foreground

        set_child_subreaper(True)  # the process's first parent ends at once
        if self.process.get("terminal"):
            _give_size(self.process)
        with SignalPipe() as pipe:
            pid = self.start(console)
            return foreground(pid, pipe, console.receive() if self.process.get("terminal") else -1)


def _give_size(process: Process) -> None:
    """Begin with our terminal's size: it would come too late for a program that asks at once."""
    from hutch.linux.pty import get_window_size

    if "consoleSize" not in process and os.isatty(0):
        rows, columns = get_window_size(0)
        process["consoleSize"] = {"height": rows, "width": columns}


COMMANDS = {
    "exec": Command(
        "<container-id> <command> [args...]  || -p process.json <container-id>",
        _exec,
        flags=(
            Flag("process", TEXT, "file with the process object", letter="p"),
            Flag("console-socket", TEXT, "AF_UNIX socket that is sent the controlling end of the terminal"),
            Flag("tty", BOOLEAN, "give the process a terminal", letter="t"),
            Flag("cwd", TEXT, "working directory in the container"),
            Flag("env", TEXTS, "NAME=VALUE for its environment", letter="e"),
            Flag("user", TEXT, "UID[:GID]", letter="u"),
            Flag("additional-gids", TEXTS, "a further group id", letter="g"),
            Flag("detach", BOOLEAN, "do not wait for the process", letter="d"),
            Flag("pid-file", TEXT, "file to write the pid to"),
            Flag("process-label", TEXT, "SELinux label of the process"),
            Flag("apparmor", TEXT, "AppArmor profile of the process"),
            Flag("no-new-privs", BOOLEAN, "let it gain no privileges"),
            Flag("cap", TEXTS, "a capability to add, such as CAP_NET_ADMIN", letter="c"),
            Flag("preserve-fds", NUMBER, "pass N more file descriptors, after stdio and $LISTEN_FDS", default="0"),
            Flag("cgroup", TEXTS, "[controller,...:]path of an existing cgroup below the container's"),
            Flag("ignore-paused", BOOLEAN, "also in a paused container, where it waits to be resumed"),
        ),
        maximum=-1,
        interleaved=False,
        failure=255,
    ),
}
