"""The monitor: one process per container that starts it, keeps its streams, and writes down how it ended.

    forked ──▶ create ──▶ start ──▶ running ──▶ ended: recorded first, then everything else
                 ▲                                 │
                 └────────── restart policy ◀──────┴──▶ removed (--rm), or left with its record

It holds the lock of the container's directory for as long as it is responsible, answers on a socket in the state
directory, and outlives every other process of hutch. If it is killed, its container goes on until the next command
finds out, ends it and says so.
"""

from __future__ import annotations

import os

from hutch.engine import events, lifecycle, snapshots
from hutch.engine.accounts import enter, total
from hutch.engine.monitor import protocol, restarting
from hutch.engine.monitor.capturing import fork_capture
from hutch.engine.monitor.health import HealthCheck
from hutch.engine.monitor.loop import Loop, clock
from hutch.engine.monitor.mishaps import as_told, attempt, note
from hutch.engine.monitor.outcome import exit_code_of, freezer_file, oom_killed
from hutch.engine.monitor.process import AttachedProcess
from hutch.engine.monitor.reception import Reception
from hutch.engine.monitor.session import fork_session
from hutch.engine.monitor.starting import Starter, clear_runtime
from hutch.engine.monitor.usage import Meter
from hutch.errors import ContainerNotFound, ContainerSetupFailed, HutchError, InvalidArgument, NoUserNamespaces
from hutch.linux.process import pidfd_open, pidfd_send_signal, set_child_subreaper
from hutch.runtime import signals
from hutch.runtime.state import boot_id, now, process_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.engine.logs.lines import LogWriter
    from hutch.engine.monitor.loop import Timer
    from hutch.linux.seqpacket import Channel
    from hutch.runtime.container import Container

_MISTAKES = 100
_FIRST_TRY_S, _LAST_TRY_S = 0.5, 300.0
"""How an end that could not be saved is tried again: after twice as long each time."""


class Monitor:
    """The life of one container, from its start to the last thing to do for it.

    Args:
        engine: where it is.
        directory: locked; the lock is given up when nothing is left to do.
        channel: who wants it started; attached as `request` says.
        request: ``attach`` and its streams, ``explain``, ``lifeline``, ``size``.
    """

    def __init__(
        self, engine: Engine, directory: ContainerDirectory, channel: Channel, request: dict[str, Any]
    ) -> None:
        self.engine, self.directory = engine, directory
        self._request = request
        self.loop = Loop()
        record = directory.record
        self.process = AttachedProcess(
            self.loop,
            tty=record.tty,
            interactive=record.interactive,
            signal=self.signal,
            log=self._open_log(),
            private=record.auto_remove,
        )
        self.process.on_lifeline = self._lifeline_ended
        self._explain = bool(request.get("explain"))
        if size := request.get("size"):
            self.process.resize(int(size[0]), int(size[1]))
        attach = {**(request.get("attach") or {}), "lifeline": request.get("lifeline")}
        self._starter = self.process.attach(channel, attach, starter=True)
        self._creator = Starter(engine, directory)
        self._restarts = restarting.Backoff()
        self._health: HealthCheck | None = None
        self.container: Container | None = None
        self._pidfd = -1
        self._reception = Reception(self.loop, engine, record.id, self.answer)
        self.sessions: set[int] = set()
        self._kill_timer: Timer | None = None
        self._restart_timer: Timer | None = None
        self._again = self._unwanted = self._over = self._unsaved = False
        self._reset = ""
        self._began = 0.0
        self._meter: Meter | None = None

    def _open_log(self) -> LogWriter | None:
        from hutch.engine.logs.drivers import LogSource, open_writer

        record = self.directory.record
        if record.log_driver == "none":
            return None
        source = LogSource(
            container_id=record.id,
            name=record.name,
            image=record.image,
            image_id=record.image_id,
            command=tuple(record.command),
            created=record.created,
            labels=record.labels,
            env=tuple(record.environment),
        )
        return open_writer(record.log_driver, record.log_options, self.directory.path, source)

    def run(self) -> None:
        """Live; returns when nothing is left to do and every client has its last message."""
        set_child_subreaper(True)
        with self.loop:
            self.loop.on_signal(signals.SIGCHLD, self._reap)
            self.loop.on_signal(signals.SIGTERM, lambda: self.stop(None, None))
            self._reception.open()
            self._try_to_start()
            if self.process.clients or self.container or self._restart_timer:
                self._live()

    def _live(self) -> None:
        """Wait in the loop; what nobody expected must not leave a container without its monitor."""
        for _ in range(_MISTAKES):
            try:
                self.loop.run()
            except Exception:
                if self.container is None and self._restart_timer is None:
                    raise
                note("monitor")
                self.loop.after(0.1, self._reap)  # it may have been kept from that
            else:
                return
        self.signal(signals.SIGKILL)

    # -- starting

    def _try_to_start(self) -> bool:
        try:
            self._start()
        except Exception as error:
            self._failed(as_told(error))
            return False
        return True

    def _start(self) -> None:
        record = self.directory.record
        self._pidfd = -1
        warn = lambda text: self._starter.send(protocol.WARNING + text.encode())
        narrator = None
        if self._explain:
            from hutch.engine.explain import Narrator

            narrator = Narrator(lambda text: self._starter.send(protocol.STEP + text[: protocol.CHUNK]))
        container = self.process.begin(
            lambda stdio, console: self._creator.create(
                stdio, console, warn=warn, explain=narrator.step if narrator else None
            )
        )
        self.container = container
        self._meter = Meter(container)
        try:
            self._pidfd = pidfd_open(container.pid)
            status = process_status(container.pid)
            record.pid, record.boot_id = container.pid, boot_id()
            record.start_time = status[1] if status else 0
            record.status, record.started, record.error = "running", now(), ""
            record.freezer = freezer_file(container.record.cgroup_paths)
            record.stopped = record.oom_killed = False
            self._save()
            container.start(warn)
        except BaseException:
            self._discard()
            raise
        self._began = clock()
        attempt("event", lambda: events.publish_volumes(self.engine.database, self.directory, "mount"))
        self.publish("start")
        self.process.tell(protocol.document(protocol.STARTED, {"pid": container.pid}))
        if record.healthcheck:
            self._health = HealthCheck(self)
        if self._unwanted:
            self.signal(signals.SIGKILL)

    def publish(self, action: str, **attributes: str) -> None:
        """Enter an event; that the disk is full shall not be the end of the container."""
        attempt("event", lambda: events.publish(self.engine.database, self.directory.record, action, **attributes))

    def _save(self) -> None:
        self.directory.save(durable=not self.directory.record.auto_remove)

    def _failed(self, error: HutchError) -> None:
        """It could not be started: note why, and whose fault that is."""
        if isinstance(error, ContainerSetupFailed):
            error.exit_code = exit_code_of(error)
            if error.step == "create user namespace":
                error.hint = NoUserNamespaces.because(error.errno).hint
        record = self.directory.record
        self.process.ended()
        # It may have been created, and what came after failed.
        attempt("clear", lambda: clear_runtime(self.engine, record.id))
        record.status = "exited" if record.finished else "created"
        record.pid = record.start_time = 0
        record.exit_code, record.error = error.exit_code, str(error)[:4096]
        if self._restart_timer is None and record.restart_count:
            record.status, record.finished = "exited", now()
        self._finish(protocol.failure(error))

    # -- running

    def signal(self, number: int) -> None:
        """Send the container's init a signal; one that has ended needs none."""
        if self._pidfd < 0 or not 1 <= number <= signals.LAST:
            return
        try:
            pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def _thaw(self) -> None:
        """A paused process would not see what it is sent."""
        if self.container is not None and self.container.frozen():
            self.container.resume()
            self.publish("unpause")

    def stop(self, number: int | None, timeout_s: int | None) -> None:
        """Ask init to end, and kill it when it has not after `timeout_s`; -1 waits for ever."""
        record = self.directory.record
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self._restart_timer = None
            if self._again:
                self._again = False
                self._restart(self._last_words(restarting=True))
            else:
                self._conclude()
            return
        if timeout_s is None:
            timeout_s = record.stop_timeout if record.stop_timeout >= 0 else lifecycle.DEFAULT_STOP_TIMEOUT_S
        self.signal(number or signals.number(record.stop_signal or "TERM"))
        self._thaw()
        if timeout_s >= 0:
            self._kill_later(timeout_s)

    def _lifeline_ended(self, lost: bool) -> None:
        """Who wanted the container for his own lifetime only has gone, or lets it live on without him."""
        record = self.directory.record
        if self._over:
            if lost:
                try:
                    lifecycle.remove(self.engine, record.id, force=True, volumes=True)
                except ContainerNotFound:
                    pass  # he removed it himself, or somebody else did
            self._linger()
        elif lost:
            self._unwanted, self._again = True, False
            record.auto_remove = record.stopped = True
            self._save()
            if self._restart_timer is not None:
                self.stop(None, None)
            else:
                self.signal(signals.SIGKILL)
                self._thaw()

    def _kill_later(self, timeout_s: float) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = self.loop.after(timeout_s, lambda: self.signal(signals.SIGKILL))

    # -- requests of other processes

    def answer(self, channel: Channel, request: dict[str, Any]) -> None:
        """Do what a client's first message asks for. The channel is the receiver's to close.

        Raises:
            Exception: what the client is told; the connection has not been taken over then.
        """
        if self._over:  # it came too late; what it should know is on the record
            channel.close()
            return
        operation = request.get("op")
        if operation in ("exec", "capture"):
            fork = fork_session if operation == "exec" else fork_capture
            self.sessions.add(fork(self, channel, request))
            channel.close()
            return
        if operation not in ("attach", "stop", "restart", "kill"):
            raise InvalidArgument(f"unknown operation {str(operation)[:32]!r}")
        number, timeout_s = _number(request, "signal"), _number(request, "timeout")
        if operation == "kill" and number is None:
            raise InvalidArgument("malformed request: no signal")
        client = self.process.attach(channel, request)
        client.send(protocol.ACCEPTED)
        if operation == "kill" and number is not None:
            self._kill(number)
            if number != signals.SIGKILL:  # after that one the end is waited for, as docker does
                client.finish(protocol.document(protocol.ENDED, {}))
        elif operation in ("stop", "restart"):
            self._again = operation == "restart"
            self._reset = str(request.get("reset") or "")
            self._note_stopped(stopped=not self._again)
            self.stop(number, timeout_s)

    def _kill(self, number: int) -> None:
        record = self.directory.record
        if number in (signals.SIGKILL, signals.number(record.stop_signal or "TERM")):
            self._note_stopped(stopped=True)
        if self._restart_timer is not None:
            self.stop(None, None)
            return
        self.publish("kill", signal=str(number))
        self.signal(number)
        self._thaw()

    def _note_stopped(self, *, stopped: bool) -> None:
        self.directory.record.stopped = stopped
        attempt("save", self._save)  # it is known here, and will be saved with what comes

    # -- ending

    def _reap(self) -> None:
        """Wait for every child that has ended: init, sessions, probes, and orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self.container is not None and pid == self.container.pid:
                self._ended(signals.exit_status(status))
                continue
            self.sessions.discard(pid)
            if self._health is not None:
                self._health.reaped(pid, signals.exit_status(status))

    def _ended(self, exit_code: int) -> None:
        """Init has ended. What is known of that is written down before anything else is done."""
        container = self.container
        assert container is not None
        before = self.directory.record
        attempt("refresh", self.directory.refresh)
        if self.directory.record.status == "dead":
            self.directory.record = before  # what is stored was damaged meanwhile; saving mends it
        record = self.directory.record
        record.stopped = before.stopped
        record.exit_code, record.finished = exit_code, now()
        record.oom_killed = oom_killed(container)
        used = self._meter.read() if self._meter else {}
        record.usage = total([record.usage, used])
        record.status = "restarting" if self._comes_back() else ("removing" if record.auto_remove else "exited")
        record.pid = record.start_time = 0
        attempt("save the end", self._save)
        attempt("account", lambda: enter(self.engine.database, record, used))
        self.process.ended()
        if self._health is not None:
            self._health.close()
            self._health = None
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None
        self._discard()
        if record.oom_killed:
            self.publish("oom")
        self.publish("die", exitCode=str(exit_code))
        attempt("event", lambda: events.publish_volumes(self.engine.database, self.directory, "unmount"))
        if record.status == "restarting":
            self._restart_later()
        else:
            self._conclude()

    def _discard(self) -> None:
        """Take the runtime's part of the container away."""
        container, self.container = self.container, None
        if self._meter is not None:
            self._meter.close()
            self._meter = None
        if container is not None:
            attempt("delete", lambda: container.delete(force=True))
            container.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _comes_back(self) -> bool:
        record = self.directory.record
        if self._again:
            return True
        ran_s = clock() - self._began
        return not record.stopped and self._restarts.wants(
            record.restart, record.exit_code, record.restart_count, ran_s
        )

    def _restart_later(self) -> None:
        message = self._last_words(restarting=True)
        if self._again:
            self._again = False
            self._restart(message)
            return
        self.process.dismiss(message)
        self._restart_timer = self.loop.after(self._restarts.delay_s, self._restart)
        self.publish("restarting")

    def _restart(self, message: bytes = b"") -> None:
        self._restart_timer = None
        reset, self._reset = self._reset, ""
        try:
            if reset:
                snapshots.put_back(self.engine, self.directory, reset)
            self.directory.refresh()
        except Exception as error:
            self._failed(as_told(error))
            return
        record = self.directory.record
        if message:
            record.restart_count = 0
        else:
            record.restart_count += 1
        if self._try_to_start() and message:
            self.publish("restart")
            self.process.dismiss(message)

    def _last_words(self, *, restarting: bool = False) -> bytes:
        record = self.directory.record
        return protocol.document(
            protocol.ENDED,
            {"exit_code": record.exit_code, "oom_killed": record.oom_killed, "restarting": restarting},
        )

    def _conclude(self) -> None:
        record = self.directory.record
        if record.status == "restarting":
            record.status = "removing" if record.auto_remove else "exited"
        self._finish(self._last_words())

    def _finish(self, message: bytes) -> None:
        """Nothing runs any more: remove or release the container, then tell everybody."""
        record = self.directory.record
        if self.process.log is not None:
            attempt("log", self.process.log.close)
            self.process.log = None
        attempt("socket", self._reception.close)
        self._over = True
        if record.auto_remove:
            attempt("remove", lambda: lifecycle.remove_parts(self.engine, self.directory, volumes=True))
            self._let_go()
        else:
            self._save_at_last(_FIRST_TRY_S)
        if record.auto_remove:
            self.process.lifelines.clear()
        self.process.dismiss(message)
        self._linger()

    def _save_at_last(self, delay_s: float) -> None:
        """Save how it ended and give the lock up; if the disk is full, when there is room again."""
        try:
            self.directory.save()
        except OSError:
            note("save")
            self._unsaved = delay_s <= _LAST_TRY_S
            if self._unsaved:
                self.loop.after(delay_s, lambda: self._save_at_last(2 * delay_s))
                return
        except HutchError:
            note("save")  # the row has been removed, or the store is damaged
        self._unsaved = False
        self._let_go()
        self._linger()

    def _let_go(self) -> None:
        self.directory.close()

    def _linger(self) -> None:
        """Clients have not taken everything yet; they may be slow, and are waited for. So are the lifelines' ends."""
        if not self.process.clients:
            if not self._unsaved:
                self.loop.stop()
        elif len(self.process.clients) > len(self.process.lifelines):
            self.loop.after(0.01, self._linger)


def _number(request: dict[str, Any], name: str) -> int | None:
    found = request.get(name)
    if found is not None and type(found) is not int:
        raise InvalidArgument(f"malformed request: {name} is not a number")
    return found
