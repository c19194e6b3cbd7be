"""Health checks: a probe now and then, in an exec session of its own, and what comes of it on the record.

A probe is bounded: in time, after which it is killed with everything it holds, and in output, of which 4 KiB are kept.
"""

from __future__ import annotations

import os

from hutch.engine.monitor import protocol
from hutch.engine.monitor.loop import READ, clock
from hutch.engine.monitor.mishaps import as_told, attempt
from hutch.engine.monitor.session import fork_session
from hutch.errors import HutchError
from hutch.linux.seqpacket import pair
from hutch.runtime import signals
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.monitor.loop import Timer
    from hutch.engine.monitor.monitor import Monitor
    from hutch.linux.seqpacket import Channel

_S = 1_000_000_000
_INTERVAL_NANOS, _TIMEOUT_NANOS, _START_INTERVAL_NANOS, _RETRIES = 30 * _S, 30 * _S, 5 * _S, 3
_OUTPUT_BYTES, _LOG_ENTRIES = 4096, 5
_DEATH_S = 2.0


class HealthCheck:
    """The probes of one run.

    Args:
        monitor: of the container, whose record has a healthcheck; it has just been started.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        check = monitor.directory.record.healthcheck
        self._args = probe_command(check)
        self._interval_s = (check.get("Interval") or _INTERVAL_NANOS) / _S
        self._timeout_s = (check.get("Timeout") or _TIMEOUT_NANOS) / _S
        self._grace_s = (check.get("StartPeriod") or 0) / _S
        self._start_interval_s = (check.get("StartInterval") or _START_INTERVAL_NANOS) / _S
        self._retries = check.get("Retries") or _RETRIES
        self._began = clock()
        self._timer: Timer | None = None
        self._probe: _Probe | None = None
        if self._args:
            self._note({"Status": "starting", "FailingStreak": 0, "Log": []})
            self._schedule()

    def close(self) -> None:
        """No more probes; one that runs is killed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.abandon()
            self._probe = None
        health = self._monitor.directory.record.health
        if health.get("Status") == "starting":
            health["Status"] = "unhealthy"

    def reaped(self, pid: int, _exit_code: int) -> None:
        """A child of the monitor has ended, perhaps the probe's session."""
        if self._probe is not None and self._probe.pid == pid:
            self._probe.pid = 0

    def _schedule(self) -> None:
        starting = self._in_grace() and self._status() == "starting"
        delay_s = self._start_interval_s if starting else self._interval_s
        self._timer = self._monitor.loop.after(delay_s, self._run)

    def _in_grace(self) -> bool:
        return clock() - self._began < self._grace_s

    def _status(self) -> str:
        return str(self._monitor.directory.record.health.get("Status", ""))

    def _run(self) -> None:
        try:
            self._probe = _Probe(self._monitor, self._args, self._timeout_s, self._done)
        except OSError as error:  # no process, or no descriptor, is to be had
            self._done(-1, str(as_told(error)), now())

    def _done(self, exit_code: int, output: str, started: str) -> None:
        self._probe = None
        health = self._monitor.directory.record.health
        entry = {"Start": started, "End": now(), "ExitCode": exit_code, "Output": output}
        before, streak = self._status(), int(health.get("FailingStreak", 0))
        status = before
        if exit_code == 0:
            status, streak = "healthy", 0
        elif not (before == "starting" and self._in_grace()):
            streak += 1
            if streak >= self._retries:
                status = "unhealthy"
        log = [*health.get("Log", []), entry][-_LOG_ENTRIES:]
        self._note({"Status": status, "FailingStreak": streak, "Log": log})
        if status != before:
            self._monitor.publish(f"health_status: {status}")
        self._schedule()

    def _note(self, health: dict[str, Any]) -> None:
        self._monitor.directory.record.health = health
        attempt("note health", lambda: self._monitor.directory.save(durable=False))


class _Probe:
    """One probe: an exec session whose client is the monitor."""

    def __init__(self, monitor: Monitor, args: list[str], timeout_s: float, done: Any) -> None:
        self._monitor, self._done = monitor, done
        self._started = now()
        self._output = b""
        self._timeout_s = timeout_s
        self._timed_out = False
        ours, theirs = pair()
        self._channel: Channel = ours
        self.pid = fork_session(
            monitor, theirs, {"args": args, "attach": {"stdout": True, "stderr": True}, "probe": True}
        )
        theirs.close()
        monitor.sessions.add(self.pid)
        monitor.loop.watch(ours.fileno(), READ, self._readable)
        self._timer = monitor.loop.after(timeout_s, self._too_late)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._timer.cancel()
        self._monitor.loop.forget(self._channel.fileno())
        self._channel.close()
        self._kill()

    def _kill(self) -> None:
        if self.pid and self.pid in self._monitor.sessions:  # not waited for yet, so the pid is its own
            os.kill(self.pid, signals.SIGTERM)

    def _too_late(self) -> None:
        self._timed_out = True
        self._kill()
        self._timer = self._monitor.loop.after(_DEATH_S, lambda: self._finish(-1))

    def _readable(self, _events: int) -> None:
        try:
            message, _ = self._channel.recv(protocol.REQUEST_LIMIT)
        except OSError:
            message = b""
        kind, content = message[:1], message[1:]
        if kind in (protocol.STDOUT, protocol.STDERR):
            self._output = (self._output + content)[:_OUTPUT_BYTES]
        elif kind == protocol.FAILED:
            self._output = str(protocol.as_error(content)).encode("utf-8", "replace")
            self._finish(-1)
        elif kind == protocol.ENDED:
            try:
                code = int(protocol.parse(content).get("exit_code", -1))
            except HutchError:
                code = -1
            self._finish(code)
        elif not message:
            self._finish(-1)

    def _finish(self, exit_code: int) -> None:
        self._timer.cancel()
        self._monitor.loop.forget(self._channel.fileno())
        self._channel.close()
        output = self._output.decode("utf-8", "replace")
        if self._timed_out:
            exit_code, output = -1, f"Health check exceeded timeout ({self._timeout_s:g}s): {output}"
        self._done(exit_code, output, self._started)


def probe_command(check: dict[str, Any]) -> list[str]:
    """What to execute: of ``["CMD", …]`` the rest, of ``["CMD-SHELL", text]`` a shell with it, of ``NONE`` nothing."""
    test = [str(word) for word in check.get("Test") or []]
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD-SHELL":
        return [*(check.get("Shell") or ["/bin/sh", "-c"]), " ".join(test[1:])]
    return test[1:] if test[0] == "CMD" else test
