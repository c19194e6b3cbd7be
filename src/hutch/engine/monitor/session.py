"""An exec session: one more process in a running container, with a process of its own to look after it.

The container's monitor forks it, so that it is where the container may be entered from: in a sealed interpreter, warm,
and in a cgroup next to the container's.
"""

from __future__ import annotations

import os
import resource

from hutch.engine import accounts, events
from hutch.engine.execs import ExecRecord, exec_process_spec, forget, save
from hutch.engine.monitor import protocol
from hutch.engine.monitor.loop import Loop, clock
from hutch.engine.monitor.mishaps import as_told, attempt
from hutch.engine.monitor.outcome import exit_code_of
from hutch.engine.monitor.process import AttachedProcess
from hutch.engine.monitor.usage import of_process
from hutch.errors import ContainerSetupFailed, HutchError, InvalidState
from hutch.linux.process import pidfd_open, pidfd_send_signal, set_child_subreaper
from hutch.runtime import entering, signals
from hutch.runtime.config import check_process
from hutch.runtime.container import Container
from hutch.runtime.exec import exec_process
from hutch.runtime.state import now, process_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.engine.engine import Engine
    from hutch.engine.monitor.monitor import Monitor
    from hutch.linux.seqpacket import Channel


def fork_session(monitor: Monitor, channel: Channel, request: dict[str, Any]) -> int:
    """Start a session.

    Args:
        monitor: of the container.
        channel: the client's connection; the caller closes its copy.
        request: ``args``, ``env``, ``cwd``, ``user``, ``tty``, ``privileged``, ``detach``, ``attach``, ``size``.

    Returns:
        The session's pid, a child of this process.
    """
    monitor.engine.database.close()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        entering.forget_signals()
        entering.close_others({channel.fileno()})
        os.setsid()
        Session(monitor.engine, monitor.directory.record, channel, request).run()
        status = 0
    except BaseException:
        from hutch.engine.forkserver.server import report

        report("exec session")
    finally:
        os._exit(status)


class Session:
    """One exec.

    Args:
        engine: where the container is.
        record: the container's.
        channel: the client's connection.
        request: see `fork_session`.
    """

    def __init__(self, engine: Engine, record: ContainerRecord, channel: Channel, request: dict[str, Any]) -> None:
        self._engine, self._record, self._request = engine, record, request
        self._loop = Loop()
        attach = request.get("attach") or {}
        self._process = AttachedProcess(
            self._loop,
            tty=bool(request.get("tty")),
            interactive=bool(attach.get("stdin")),
            signal=self._signal,
            private=True,
        )
        self._process.on_lifeline = self._lifeline_ended
        self._unwanted = False
        self._pid, self._pidfd = 0, -1
        if size := request.get("size"):
            self._process.resize(int(size[0]), int(size[1]))
        self._client = self._process.attach(channel, attach, starter=True)
        self._client.send(protocol.ACCEPTED)
        self._exec = ExecRecord.new(record.id, request)
        self._began = clock()

    def run(self) -> None:
        """Have it run, and tell how it ended."""
        set_child_subreaper(True)
        with self._loop:
            self._loop.on_signal(signals.SIGCHLD, self._reap)
            self._loop.on_signal(signals.SIGTERM, lambda: self._signal(signals.SIGKILL))
            try:
                self._start()
            except Exception as problem:
                error = as_told(problem)
                self._signal(signals.SIGKILL)
                if isinstance(error, ContainerSetupFailed):
                    error.exit_code = exit_code_of(error)
                    if self._has_container_ended():  # while it was entered
                        message = f"container {self._record.id} is not running"
                        error = InvalidState(message, have="exited", want="running")
                        error.exit_code = 1
                if error.exit_code == 125:  # of `run`; an exec that could not be set up is 126
                    error.exit_code = 126
                self._process.ended()
                self._client.finish(protocol.failure(error))
                self._leave()
            self._loop.run()

    def _start(self) -> None:
        with Container.load(self._engine.runtime_state, self._record.id) as container:
            if container.status() == "paused":
                raise InvalidState(
                    f"container {self._record.name} is paused, unpause the container before exec",
                    have="paused",
                    want="running",
                )
            process = check_process(exec_process_spec(container, self._record, self._request))
            self._pid = self._process.begin(
                lambda stdio, console: exec_process(container, process, stdio=stdio, console_socket=console)
            )
        self._pidfd = pidfd_open(self._pid)
        if self._unwanted:
            self._signal(signals.SIGKILL)
        status = process_status(self._pid)
        self._exec.pid, self._exec.start_time = self._pid, status[1] if status else 0
        self._exec.started, self._exec.running = now(), True
        self._save()
        command = " ".join(process["args"])
        self._publish(f"exec_start: {command}")
        self._client.send(protocol.document(protocol.STARTED, {"pid": self._pid, "id": self._exec.id}))
        if self._request.get("detach"):
            self._client.finish(protocol.document(protocol.ENDED, {"exit_code": 0}))
        self._reap()  # it may have ended before the loop began

    def _has_container_ended(self) -> bool:
        try:
            with Container.load(self._engine.runtime_state, self._record.id) as container:
                return container.status() == "stopped"
        except HutchError:
            return True

    def _lifeline_ended(self, lost: bool) -> None:
        """Who wanted the process for his own lifetime only has gone."""
        self._unwanted = lost
        if lost:
            self._signal(signals.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0 and 1 <= number <= signals.LAST:
            try:
                pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return
        if number == signals.SIGKILL:
            self._kill_rest()

    def _kill_rest(self) -> None:
        """End what the process has started, as far as that has not made sessions of its own."""
        for pid in session_members(self._pid) if self._pid else ():
            try:
                os.kill(pid, signals.SIGKILL)
            except ProcessLookupError:
                continue

    def _reap(self) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while self._pid:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._pid:
                self._ended(signals.exit_status(status), of_process(used, self._began, peak))

    def _ended(self, exit_code: int, used: dict[str, Any]) -> None:
        self._pid = 0
        self._exec.exit_code, self._exec.finished, self._exec.running = exit_code, now(), False
        self._save()
        database, record = self._engine.database, self._record
        if not self._request.get("probe"):
            attempt("account", lambda: accounts.enter(database, record, used, exec_id=self._exec.id))
        self._process.ended()
        os.close(self._pidfd)
        self._pidfd = -1
        self._publish("exec_die", exitCode=str(exit_code))
        attempt("forget", lambda: forget(database, record.id))
        self._process.lifelines.clear()
        self._process.dismiss(protocol.document(protocol.ENDED, {"exit_code": exit_code}))
        self._leave()

    def _save(self) -> None:
        """Remember it; whoever asked for it is told of its end, even if that cannot be written down."""
        attempt("save exec", lambda: save(self._engine.database, self._exec))

    def _publish(self, action: str, **attributes: str) -> None:
        attributes["execID"] = self._exec.id
        attempt("event", lambda: events.publish(self._engine.database, self._record, action, **attributes))

    def _leave(self) -> None:
        """End once the client has taken everything."""
        if self._process.clients:
            self._loop.after(0.01, self._leave)
        else:
            self._loop.stop()


def session_members(leader: int) -> list[int]:
    """The processes of the session that `leader` leads; it has not been waited for, so the number is its own."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    fields = file.read(4096).rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[3]) == leader and int(name) != leader:
                found.append(int(name))
    return found
