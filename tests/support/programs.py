"""Running other programs: to their end with everything they said on failure, or as a daemon that surely stops."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.support import leaks

_PR_SET_PDEATHSIG = 1


def run(
    argv: Sequence[str],
    *,
    input: bytes | str | None = None,  # noqa: A002 - subprocess's own name for it
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout_s: float = 120,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it wrote is in the result, and in the failure's text."""
    data = input.encode() if isinstance(input, str) else input
    done = subprocess.run(
        list(argv),
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        env=env,
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
    out, err = (stream.decode(errors="backslashreplace") for stream in (done.stdout, done.stderr))
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}\nended with {done.returncode}\n{out}\n{err}")
    return subprocess.CompletedProcess(list(argv), done.returncode, out, err)


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def daemon(
    argv: Sequence[str],
    *,
    log: str,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    patience_s: float = 30,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that serves until the block ends, and that dies with us if we die.

    Args:
        argv: the program and its arguments.
        log: path of a file for its output; its end is shown when it does not come up.
        ready: whether it serves already; asked repeatedly.
        env: its environment, ours by default.
        patience_s: how long it may take to come up, in seconds.
    """
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    with open(log, "ab") as sink:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
    leaks.EXPECTED.add(process.pid)
    try:
        wait_until(ready, patience_s, lambda: process.poll() is not None, lambda: f"{argv[0]}: {_tail(log)}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        leaks.EXPECTED.discard(process.pid)


def wait_until(
    ready: Callable[[], bool],
    patience_s: float,
    hopeless: Callable[[], bool] = lambda: False,
    explain: Callable[[], str] = lambda: "",
) -> None:
    """Ask `ready` with growing pauses until it is true; fail when time is up or it became hopeless."""
    deadline = time.monotonic() + patience_s
    pause = 0.005
    while not ready():
        if hopeless() or time.monotonic() > deadline:
            raise AssertionError(f"did not come up in {patience_s} s: {explain()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def accepts(port: int) -> bool:
    """Whether something listens on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _tail(path: str) -> str:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - 4000))
        return file.read().decode(errors="backslashreplace")
