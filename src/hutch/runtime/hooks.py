"""Hooks: programs that run at six points of a container's life, with its state on their stdin.

A hook gets the environment its entry names and nothing else, "/" to work in, and no descriptor but 0, 1 and 2: what an
image puts in its own environment must not reach a program of the host (CVE-2025-23266).
OCI runtime-spec config.md#posix-platform-hooks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from hutch.errors import ContainerSetupFailed
from hutch.linux import process
from hutch.runtime import documents
from hutch.runtime.entering import forget_signals, restore_signals
from hutch.runtime.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.spec.runtime import Hook, Hooks, State

POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_LENIENT = ("poststart", "poststop")
_OUTPUT_LIMIT = 16 << 10
_SHOWN = 2048


def run_hooks(hooks: Hooks, kind: str, state: State) -> list[str]:
    """Run the hooks of one point, in order.

    Args:
        hooks: the configuration's.
        kind: of POINTS.
        state: what they read.

    Returns:
        What went wrong, where the specification has the rest go on regardless: after poststart and poststop.

    Raises:
        ContainerSetupFailed: at any other point, a hook failed; later ones are not run.
    """
    warnings = []
    data = documents.dump_bytes(state)
    points: Any = hooks
    entries: list[Hook] = points.get(kind) or []
    for index, hook in enumerate(entries):
        try:
            _run(hook, data, f"run {kind} hook #{index}")
        except ContainerSetupFailed as error:
            if kind not in _LENIENT:
                raise
            warnings.append(str(error))
    return warnings


def _run(hook: Hook, state: bytes, title: str) -> None:
    path = hook["path"]
    in_read, in_write = os.pipe2(os.O_CLOEXEC)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        for fd in (in_read, in_write, out_read, out_write):
            os.close(fd)
        raise
    if not pid:
        _become(hook, in_read, out_write)
    os.close(in_read)
    os.close(out_write)
    pidfd = process.pidfd_open(pid)
    try:
        output, ended = _attend(pidfd, in_write, out_read, state, hook.get("timeout"))
    finally:
        os.close(out_read)
        os.close(pidfd)
    if not ended:
        os.killpg(pid, SIGKILL)  # it leads its session: what it started goes with it
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ended:
        raise ContainerSetupFailed(title, 0, path, f"timed out after {hook.get('timeout')} s")
    if status:
        cause = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        said = output[-_SHOWN:].decode("utf-8", "backslashreplace").strip().replace("\n", "; ")
        raise ContainerSetupFailed(title, 0, path, f"{cause}: {said}" if said else cause)


def _become(hook: Hook, stdin: int, output: int) -> None:
    """In the child: turn into the hook."""
    try:
        forget_signals()
        restore_signals()
        os.setsid()
        os.chdir("/")
        # 0, 1 or 2 may have been closed, and be these very pipes.
        stdin_fd, output_fd = (fcntl.fcntl(fd, fcntl.F_DUPFD, 3) for fd in (stdin, output))
        os.dup2(stdin_fd, 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        process.close_range(3)
        entries = (os.fsencode(entry).partition(b"=") for entry in hook.get("env") or [])
        env = {name: value for name, _, value in entries}
        os.execve(hook["path"], hook.get("args") or [hook["path"]], env)
    except OSError as error:
        os.write(2, os.strerror(error.errno or errno.EIO).lower().encode())
    finally:
        os._exit(127)


def _attend(pidfd: int, in_write: int, out_read: int, state: bytes, timeout_s: int | None) -> tuple[bytes, bool]:
    """Feed and listen until the hook ends or its time is up: (what it said, whether it ended). Closes `in_write`.

    A hook may leave daemons behind that hold its output open: its own end is what counts.
    """
    os.set_blocking(in_write, False)
    os.set_blocking(out_read, False)
    deadline = time.monotonic() + timeout_s if timeout_s else None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(out_read, select.POLLIN)
    poll.register(in_write, select.POLLOUT)
    output, unsent = b"", memoryview(state)
    try:
        while True:
            left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            events = dict(poll.poll(left))
            if in_write in events:
                unsent = _feed(in_write, unsent)
                if not unsent:
                    poll.unregister(in_write)
                    os.close(in_write)
                    in_write = -1
            if out_read in events:
                said = os.read(out_read, 65536)
                output = (output + said)[-_OUTPUT_LIMIT:]
                if not said:
                    poll.unregister(out_read)
            if pidfd in events:
                return output + _rest(out_read), True
            if not events and deadline is not None and time.monotonic() >= deadline:
                return output, False
    finally:
        if in_write >= 0:
            os.close(in_write)


def _feed(fd: int, data: memoryview) -> memoryview:
    """What is left of `data` after writing some of it; nothing when nobody reads any more."""
    try:
        return data[os.write(fd, data[:65536]) :]
    except BrokenPipeError:
        return data[:0]


def _rest(fd: int) -> bytes:
    try:
        return os.read(fd, _OUTPUT_LIMIT)
    except BlockingIOError:
        return b""
