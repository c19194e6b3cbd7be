"""The fork server: one warm process per user and state directory, from which the monitors of containers are forked.

It has every module loaded, so that a monitor starts in a millisecond and shares its memory, and it runs sealed (see
`hutch.runtime.seal`), so that a monitor may enter containers. It knows nothing: kill it at any time, and nothing is
lost. It ends by itself when its files have changed, when its socket has gone, and when it has been idle for a while.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LISTENER_FD = 3
SOCKET = "fork-server.sock"
_IDLE_S = 60.0
_LOOK_S = 2.0
_BREATH_S = 0.1
_FILES = 1024
_MODULES = (
    "hutch.engine.apparmor",
    "hutch.engine.configuration",
    "hutch.engine.delegation",
    "hutch.engine.explain",
    "hutch.engine.forkserver.serving",
    "hutch.engine.healthchecks",
    "hutch.engine.host",
    "hutch.engine.idranges",
    "hutch.engine.lifecycle",
    "hutch.engine.logs.drivers",
    "hutch.engine.logs.jsonfile",
    "hutch.engine.logs.localfile",
    "hutch.engine.logs.rotation",
    "hutch.engine.monitor.health",
    "hutch.engine.monitor.monitor",
    "hutch.engine.mountrecord",
    "hutch.engine.mounts",
    "hutch.engine.mountspec",
    "hutch.engine.options",
    "hutch.engine.rootview",
    "hutch.engine.storage",
    "hutch.image.image",
    "hutch.runtime.cgroups.devices",
    "hutch.runtime.cgroups.manager",
    "hutch.runtime.cgroups.oom",
    "hutch.runtime.cgroups.systemd",
    "hutch.runtime.cgroups.v1",
    "hutch.runtime.cgroups.v1_knobs",
    "hutch.runtime.cgroups.v1_stats",
    "hutch.runtime.cgroups.v2",
    "hutch.runtime.cgroups.v2_knobs",
    "hutch.runtime.cgroups.v2_stats",
    "hutch.runtime.classic_bpf",
    "hutch.runtime.create",
    "hutch.runtime.devices",
    "hutch.runtime.exec",
    "hutch.runtime.seccomp",
    "hutch.runtime.syscalls",
    "hutch.snapshot.choose",
    "hutch.snapshot.copy",
    "hutch.snapshot.duplicate",
    "hutch.snapshot.overlay",
    "hutch.snapshot.removal",
    "hutch.volume.store",
    "traceback",
)


def main() -> NoReturn:
    """Serve until there is no more reason to; argv has the data root and the state directory."""
    from hutch.linux.process import close_range
    from hutch.runtime.seal import ensure_sealed

    close_range(LISTENER_FD + 1)
    os.set_inheritable(LISTENER_FD, True)
    ensure_sealed()
    os.set_inheritable(LISTENER_FD, False)
    root, state = sys.argv[1:3]
    import gc

    fit = _shed_limits()
    for name in _MODULES:
        __import__(name)
    from hutch.runtime.syscalls import numbers

    numbers(os.uname().machine)
    gc.collect()
    gc.freeze()
    _Server(root, state, fit=fit).run()
    os._exit(0)


def _shed_limits() -> bool:
    """Free us of the resource limits and the niceness of whoever came first.

    Returns:
        Whether others may be served, too: a hard limit that we cannot raise would be theirs.
    """
    from hutch.linux import rlimits

    fit = True
    without = dict.fromkeys(("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE"), rlimits.INFINITY)
    for name, enough in {**without, "RLIMIT_NOFILE": _FILES}.items():
        _, hard = rlimits.get(name)
        try:
            rlimits.set(name, max(hard, enough), max(hard, enough))
        except PermissionError:
            rlimits.set(name, hard, hard)
            fit = fit and hard >= enough
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    return fit


def report(what: str) -> None:
    """Write the exception that is being handled to the log, which is standard error."""
    import traceback

    text = "".join(traceback.format_exc()).replace("\n", f"\n{os.getpid()} ")
    os.write(2, f"{os.getpid()} {what}: {text}\n".encode("utf-8", "backslashreplace"))


class _Server:
    def __init__(self, root: str, state: str, *, fit: bool) -> None:
        self._root, self._state, self._fit = root, state, fit
        self._children: set[int] = set()
        self._own_inode = self._inode()
        self._files = _loaded_files()

    def run(self) -> None:
        import select

        from hutch.engine.monitor.loop import clock
        from hutch.runtime import signals

        wake_fd, wakeup_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        signals.handle(signals.SIGCHLD, lambda *_: None)
        for number in (signals.SIGINT, signals.SIGQUIT, signals.SIGHUP):
            signals.handle(number, signals.SIG_IGN)
        signals.handle(signals.SIGTERM, signals.SIG_DFL)
        signals.pthread_sigmask(signals.SIG_SETMASK, ())
        poll = select.poll()
        poll.register(LISTENER_FD, select.POLLIN)
        poll.register(wake_fd, select.POLLIN)
        os.set_blocking(LISTENER_FD, False)
        last = clock()
        while True:
            ready = dict(poll.poll(int(_LOOK_S * 1000)))
            if wake_fd in ready:
                os.read(wake_fd, 4096)
                self._reap()
            if LISTENER_FD in ready:
                last = clock()
                if not self._accept():
                    return
            elif self._inode() != self._own_inode or (not self._children and clock() - last > _IDLE_S):
                return

    def _inode(self) -> tuple[int, int]:
        """Which file the socket is, by its name: another one, or none, is nobody's way to us."""
        try:
            found = os.stat(f"{self._state}/{SOCKET}")
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def _reap(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)

    def _accept(self) -> bool:
        """Fork for one connection; False when what comes should be served by newer code than ours."""
        from hutch.engine.forkserver.serving import serve
        from hutch.engine.monitor import protocol
        from hutch.engine.monitor.mishaps import as_told, attempt
        from hutch.linux import seqpacket

        try:
            channel = seqpacket.accept(LISTENER_FD)
        except (BlockingIOError, ConnectionAbortedError):
            return True
        except OSError:  # no descriptors, or no memory; it stays in line
            report("accept")
            time.sleep(_BREATH_S)
            return True
        with channel:
            if channel.peer()[1] not in (0, os.geteuid()):
                return True
            if _loaded_files() != self._files:
                os.unlink(f"{self._state}/{SOCKET}")
                channel.send(protocol.STALE)
                return False
            try:
                pid = os.fork()
            except OSError as error:  # no more processes
                told = protocol.failure(as_told(error))
                attempt("answer", lambda: channel.send(told))
                return True
            if pid:
                self._children.add(pid)
                if not self._fit:  # the next one gets a server of his own
                    os.unlink(f"{self._state}/{SOCKET}")
                return self._fit
            try:
                os.close(LISTENER_FD)
                serve(channel, self._root, self._state)
            except BaseException:
                report("monitor")
            finally:
                os._exit(0)


def _loaded_files() -> dict[str, int]:
    """When each file of ours that is loaded was last changed."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and (name == "hutch" or name.startswith("hutch.")):
            try:
                found[path] = os.stat(path).st_mtime_ns
            except OSError:
                found[path] = 0
    return found
