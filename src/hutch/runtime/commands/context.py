"""What every command is given: the global options, the log and standard output."""

from __future__ import annotations

import os
import time

from hutch.errors import HutchError, InvalidArgument
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.arguments import Options


class Log:
    """Where messages go: to stderr as runc writes them, or to a file and errors to stderr as well.

    Args:
        path: the file, appended to; an empty string is stderr.
        json: one JSON object per line, rather than logfmt text.
        debug: whether debug messages are kept.
    """

    __slots__ = ("_fd", "_json", "_to_file", "debugging")

    def __init__(self, path: str, *, json: bool, debug: bool) -> None:
        self._json = json
        self._to_file = bool(path) and path != "/dev/stderr"
        self.debugging = debug
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        self._fd = os.open(path, flags, 0o644) if self._to_file else 2

    def error(self, message: str) -> None:
        """Say why the command failed."""
        self._write("error", message)
        if self._to_file:
            _write_all(2, _line(message).encode("utf-8", "surrogateescape") + b"\n")

    def warning(self, message: str) -> None:
        """Say what was done otherwise than asked."""
        self._write("warning", message)

    def debug(self, message: str) -> None:
        """Say what is being done, under --debug."""
        if self.debugging:
            self._write("debug", message)

    def _write(self, level: str, message: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = documents.dump_bytes({"level": level, "msg": message, "time": stamp})
        else:
            line = b'time="%b" level=%b msg=%b' % (stamp.encode(), level.encode(), documents.dump_bytes(message))
        _write_all(self._fd, line + b"\n")


def _line(message: str) -> str:
    return message.replace("\n", " ")


class Context:
    """The global options, digested.

    Attributes:
        state_dir: --root.
        log: --log, --log-format and --debug.
        systemd_cgroup: --systemd-cgroup.
        rootless: --rootless: True, False, or None for "find out".
    """

    __slots__ = ("log", "rootless", "state_dir", "systemd_cgroup")

    def __init__(self, options: Options) -> None:
        log_format = options.text("log-format")
        if log_format not in ("text", "json"):
            raise InvalidArgument(f"unknown log-format {log_format!r}")
        self.log = Log(options.text("log"), json=log_format == "json", debug=options.on("debug"))
        self.state_dir = options.text("root") or default_root()
        self.systemd_cgroup = options.on("systemd-cgroup")
        rootless = options.text("rootless")
        if rootless not in ("true", "false", "auto"):
            raise InvalidArgument(f"--rootless: {rootless!r} is not true, false or auto")
        self.rootless = None if rootless == "auto" else rootless == "true"

    def warn(self, message: str) -> None:
        """Say what was done otherwise than asked."""
        self.log.warning(message)

    def out(self, text: str) -> None:
        """Write to standard output."""
        _write_all(1, text.encode("utf-8", "surrogateescape"))


def default_root() -> str:
    """Where containers are recorded unless --root says otherwise: a tmpfs of the user's."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 and os.environ.get("USER", "root") == "root":
        return "/run/hutch-oci"
    return f"{runtime_dir or f'/run/user/{os.geteuid()}'}/hutch-oci"


def message_of(error: BaseException) -> str:
    """One line on an error: object, cause, and what to do about it."""
    if isinstance(error, HutchError):
        return f"{error} ({error.hint})" if error.hint else str(error)
    if isinstance(error, OSError) and error.errno:
        cause = os.strerror(error.errno).lower()
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        return ": ".join([" -> ".join(names), cause] if names else [cause])
    return f"internal error: {type(error).__name__}: {error} (a bug; with HUTCH_DEBUG=1 set it shows where)"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
