"""Reading a container's lines back from systemd's journal, by journalctl: the files' format is systemd's own."""

from __future__ import annotations

import os
import select
import subprocess
import time

import msgspec

from hutch.engine.logs.entries import LogEntry, Times
from hutch.errors import NotSupported, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_LINE_LIMIT = 4 << 20
_READ = 64 << 10
_POLL_S = 0.2
_SETTLED_S = 1.0  # the journal may still be at work on what the container wrote last
_OURS = frozenset(
    "CONTAINER_ID CONTAINER_ID_FULL CONTAINER_NAME CONTAINER_TAG IMAGE_NAME SYSLOG_IDENTIFIER SYSLOG_TIMESTAMP MESSAGE "
    "PRIORITY CONTAINER_PARTIAL_MESSAGE CONTAINER_PARTIAL_ID CONTAINER_PARTIAL_ORDINAL CONTAINER_PARTIAL_LAST".split()
)


def arguments(container_id: str, since_nanos: int, *, tail: int, follow: bool) -> list[str]:
    """The command line of journalctl."""
    argv = ["journalctl", "--output=json", "--all", "--quiet", "--no-pager"]
    if since_nanos:
        argv.append(f"--since=@{since_nanos // 1_000_000_000}")
    if tail >= 0 or follow:  # following alone would show the last ten
        argv.append(f"--lines={tail}" if tail >= 0 else "--no-tail")
    if follow:
        argv.append("--follow")
    return [*argv, f"CONTAINER_ID_FULL={container_id}"]


def read_journal(
    container_id: str,
    since_nanos: int,
    *,
    tail: int,
    follow: bool,
    running: Callable[[], bool],
    where: Sequence[str] = (),
) -> Iterator[list[LogEntry]]:
    """What the journal has of a container, by its full id; the rest as `reading.read_log` has it.

    `where` are journalctl's options that name another journal than this host's.

    Raises:
        NotSupported: there is no journalctl.
        Unavailable: it failed; the message is its own.
    """
    argv = [*arguments(container_id, since_nanos, tail=tail, follow=follow), *where]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
    except FileNotFoundError:
        raise NotSupported("reading logs of journald needs journalctl, which is not installed") from None
    with process:
        try:
            yield from _entries(process, running if follow else None)
        finally:
            process.kill()
    if not follow and process.returncode > 0:
        raise Unavailable(f"journalctl failed with status {process.returncode}")


def _entries(process: subprocess.Popen[bytes], running: Callable[[], bool] | None) -> Iterator[list[LogEntry]]:
    if process.stdout is None or process.stderr is None:
        return
    out_fd, error_fd = process.stdout.fileno(), process.stderr.fileno()
    poll = select.poll()
    for fd in (out_fd, error_fd):
        poll.register(fd, select.POLLIN)
    times, rest, complaint = Times(), b"", b""
    quiet_since = time.monotonic()
    while True:
        ready = {fd for fd, _ in poll.poll(1000 * _POLL_S)}
        if error_fd in ready:
            said = os.read(error_fd, _READ)
            complaint = (complaint + said)[:_READ]
            if not said:
                poll.unregister(error_fd)
        if out_fd in ready:
            quiet_since = time.monotonic()
            data = os.read(out_fd, _READ)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_LIMIT:
                raise Unavailable(f"journalctl wrote a line of more than {_LINE_LIMIT} bytes")
            if found := [entry for line in lines if line and (entry := parsed(line, times)) is not None]:
                yield found
        elif running is not None and time.monotonic() - quiet_since > _SETTLED_S and not running():
            return
    process.wait()
    if process.returncode > 0 and complaint:
        raise Unavailable("journalctl: " + complaint.decode(errors="replace").strip()[:500].lower())


def parsed(line: bytes, times: Times) -> LogEntry | None:
    """The entry in one line of ``journalctl -o json``; None if it has no message.

    A field that is no UTF-8 is a list of bytes there, and one that was given twice a list of values.
    """
    try:
        fields = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.MsgspecError:
        return None
    message = _bytes(fields.get("MESSAGE"))
    if message is None:
        return None
    try:
        time_nanos = times.nanos(str(fields["SYSLOG_TIMESTAMP"]))
    except (KeyError, ValueError):
        stamp = fields.get("__REALTIME_TIMESTAMP")
        time_nanos = int(stamp) * 1000 if isinstance(stamp, str) and stamp.isdecimal() else 0
    return LogEntry(
        time_nanos=time_nanos,
        stream=2 if fields.get("PRIORITY") == "3" else 1,
        data=message if fields.get("CONTAINER_PARTIAL_MESSAGE") == "true" else message + b"\n",
        attributes={
            name: value
            for name, value in fields.items()
            if isinstance(value, str) and name not in _OURS and not name.startswith("_")
        },
    )


def _bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        try:
            return bytes(value)
        except (TypeError, ValueError):
            return None
    return None
