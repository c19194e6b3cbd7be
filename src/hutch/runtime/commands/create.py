"""create and run: a bundle becomes a container."""

from __future__ import annotations

import os

from hutch.runtime import config
from hutch.runtime.arguments import BOOLEAN, NUMBER, TEXT, Command, Flag
from hutch.runtime.commands.process import ConsoleSocket, inherited, write_pid_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context
    from hutch.runtime.container import Container
    from hutch.spec.runtime import Spec

_FLAGS = (
    Flag("bundle", TEXT, "the bundle's directory (default: the current one)", letter="b"),
    Flag("console-socket", TEXT, "AF_UNIX socket that is sent the controlling end of the terminal"),
    Flag("pid-file", TEXT, "file to write the pid to"),
    Flag("no-pivot", BOOLEAN, "move the root mount and chroot, where pivot_root cannot work (a ramdisk)"),
    Flag("no-new-keyring", BOOLEAN, "keep the caller's session keyring"),
    Flag("preserve-fds", NUMBER, "pass N more file descriptors, after stdio and $LISTEN_FDS", default="0"),
)


class _Request:
    """One `create` or `run`: its options, and the bundle they name."""

    def __init__(self, context: Context, options: Options, container_id: str) -> None:
        self.context, self.options, self.container_id = context, options, container_id
        self.bundle = os.path.abspath(options.text("bundle") or ".")
        self.spec: Spec = config.load(self.bundle)
        self.terminal = bool(self.spec.get("process", {}).get("terminal"))
        if _joins_pid_namespace(self.spec):
            from hutch.runtime.seal import ensure_sealed

            ensure_sealed()  # whoever is in that namespace already sees init before it has executed its program

    def console(self, *, detached: bool) -> ConsoleSocket:
        """Where the terminal goes; InvalidArgument if the options do not fit together."""
        return ConsoleSocket(self.options.text("console-socket"), self.terminal, detached=detached)

    def create(self, console_socket: int | None) -> Container:
        """Create the container and write the pid file; if that fails, nothing is left."""
        from hutch.runtime.create import create

        options = self.options
        preserved = inherited(options.number("preserve-fds"), self.spec)
        container = create(
            self.spec,
            container_id=self.container_id,
            bundle=self.bundle,
            state_dir=self.context.state_dir,
            console_socket=console_socket,
            preserve_fds=preserved,
            systemd_cgroup=self.context.systemd_cgroup,
            no_pivot=options.on("no-pivot"),
            no_new_keyring=options.on("no-new-keyring"),
            warn=self.context.warn,
        )
        if options.given("pid-file"):
            with _Doomed(container):
                write_pid_file(options.text("pid-file"), container.pid)
        return container


def _joins_pid_namespace(spec: Spec) -> bool:
    namespaces = spec.get("linux", {}).get("namespaces") or []
    return any(entry["type"] == "pid" and entry.get("path") for entry in namespaces)


class _Doomed:
    """A context in which every error deletes the container."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.container.delete(force=True)


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    request = _Request(context, options, arguments[0])
    with request.console(detached=True) as console:
        request.create(console.fd).close()
    return 0


def _run(context: Context, options: Options, arguments: list[str]) -> int:
    request = _Request(context, options, arguments[0])
    if not options.on("detach"):
        return _foreground(request)
    with request.console(detached=True) as console, request.create(console.fd) as container, _Doomed(container):
        container.start(warn=context.warn)
    return 0


def _foreground(request: _Request) -> int:
    from hutch.linux.process import set_child_subreaper
    from hutch.runtime.relay import SignalPipe, foreground

    # Init's first parent exits as soon as it has forked it: only a subreaper inherits init, and with it the status.
    set_child_subreaper(True)
    with (
        request.console(detached=False) as console,
        SignalPipe() as pipe,
        request.create(console.fd) as container,
    ):
        if request.options.on("no-subreaper"):
            set_child_subreaper(False)

        def begin() -> None:
            container.start(warn=request.context.warn)

        with _Doomed(container):
            status = foreground(container.pid, pipe, console.receive() if request.terminal else -1, begin)
        if not request.options.on("keep"):
            container.delete(force=True, warn=request.context.warn)
    return status


COMMANDS = {
    "create": Command("<container-id>", _create, flags=_FLAGS),
    "run": Command(
        "<container-id>",
        _run,
        flags=(
            *_FLAGS,
            Flag("detach", BOOLEAN, "do not wait for the container's process", letter="d"),
            Flag("keep", BOOLEAN, "keep the container after its process has ended"),
            Flag("no-subreaper", BOOLEAN, "do not adopt the container's orphans"),
        ),
    ),
}
