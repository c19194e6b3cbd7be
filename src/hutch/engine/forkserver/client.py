"""Asking the fork server, which is started when there is none."""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from hutch.engine.forkserver.server import LISTENER_FD, SOCKET
from hutch.engine.monitor import protocol
from hutch.errors import Unavailable
from hutch.linux import seqpacket
from hutch.linux.namespaces import namespace_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hutch.linux.seqpacket import Channel

LOG = "fork-server.log"
_ATTEMPTS = 5
_WORDS_BYTES = 2000
_PASSED_ON = ("PATH", "HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS")
_START = "import sys; sys.path[:0] = {path!r}; from hutch.engine.forkserver.server import main; main()"


def ask(root: str, state: str, request: dict[str, Any], fds: Sequence[int] = ()) -> Channel:
    """Send a request and have it taken.

    Args:
        root: the data root.
        state: the state directory, 0700; there.
        request: see `hutch.engine.forkserver.serving`.
        fds: passed on with it.

    Returns:
        The connection, for what comes then; the caller closes it.

    Raises:
        Unavailable: no fork server can be had.
        HutchError: it refused.
    """
    message = documents_of({**request, "namespaces": own_namespaces()})
    for _ in range(_ATTEMPTS):
        channel = _connect(root, state)
        try:
            channel.send(message, fds)
            kind, content = protocol.receive(channel)
        except OSError as error:
            channel.close()
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            continue  # it ended just now, being idle
        if kind == protocol.ACCEPTED:
            return channel
        channel.close()
        if kind == protocol.FAILED:
            raise protocol.as_error(content)
    raise Unavailable(f"the fork server does not answer: {_last_words(state)}", hint=f"see {state}/{LOG}")


def _last_words(state: str) -> str:
    """The last line of its log."""
    try:
        with open(f"{state}/{LOG}", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _WORDS_BYTES))
            lines = file.read(_WORDS_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return "it said nothing"
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def end(state: str) -> None:
    """Have the fork server end, if there is one; containers go on."""
    try:
        dir_fd = _directory(state)
    except FileNotFoundError:
        return
    try:
        with seqpacket.connect(dir_fd, SOCKET) as channel:
            channel.send(documents_of({"op": "end"}))
            channel.recv(1)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EPIPE, errno.ECONNRESET):
            raise
    finally:
        os.close(dir_fd)


def own_namespaces() -> list[list[int]]:
    """What a container inherits from whoever starts it, if it gets none of its own: as ids that can be compared."""
    return [list(namespace_id("self", kind)) for kind in ("mount", "user", "network", "pid", "ipc", "uts")]


def documents_of(request: dict[str, Any]) -> bytes:
    """A request as it is sent."""
    return protocol.document(b"", request)


def _directory(state: str) -> int:
    return os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _connect(root: str, state: str) -> Channel:
    dir_fd = _directory(state)
    try:
        try:
            return seqpacket.connect(dir_fd, SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        lock_fd = os.open("fork-server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            try:
                return seqpacket.connect(dir_fd, SOCKET)  # somebody else was faster
            except FileNotFoundError:
                pass
            except ConnectionRefusedError:
                os.unlink(SOCKET, dir_fd=dir_fd)
            _start(root, state, dir_fd)
            return seqpacket.connect(dir_fd, SOCKET)
        finally:
            os.close(lock_fd)
    finally:
        os.close(dir_fd)


def _start(root: str, state: str, dir_fd: int) -> None:
    """Start one, with its socket listening already: whoever connects is answered once it is up.

    A shell puts it in the background, so that it is not a child of a program that may not expect one.
    """
    listener_fd = seqpacket.listen(dir_fd, SOCKET)
    try:
        code = _START.format(path=_import_path())
        words = ["/bin/sh", "-c", 'cd /; "$@" &', "sh", sys.executable, "-I", "-S", "-c", code, root, state]
        environment = {
            name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("HUTCH_")
        }
        environment["LC_ALL"] = "C.UTF-8"
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        actions = [
            (os.POSIX_SPAWN_DUP2, listener_fd, LISTENER_FD),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, f"{state}/{LOG}", log_flags, 0o600),
        ]
        if listener_fd == LISTENER_FD:
            os.set_inheritable(listener_fd, True)
            actions.pop(0)
        pid = os.posix_spawn(words[0], words, environment, file_actions=actions, setsid=True)
        os.waitpid(pid, 0)
    except BaseException:
        os.unlink(SOCKET, dir_fd=dir_fd)
        raise
    finally:
        os.close(listener_fd)


def _import_path() -> list[str]:
    """Where hutch and what it needs is imported from, without what the caller's program has added for itself."""
    import hutch

    own = os.path.dirname(os.path.dirname(os.path.abspath(hutch.__file__ or "")))
    others = [path for path in sys.path if os.path.isabs(path) and path.endswith(("-packages", ".zip"))]
    return list(dict.fromkeys([own, *others]))
