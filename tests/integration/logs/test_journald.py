"""The journald driver: its datagrams on a real socket, and the journal itself where there is one."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import subprocess
import threading
import time
import uuid

import pytest

from hutch.engine.logs import journalctl, reading
from hutch.engine.logs.drivers import LogSource
from hutch.engine.logs.entries import Times
from hutch.engine.logs.journald import SOCKET, Journal
from hutch.engine.logs.lines import PIECE, LineWriter
from tests.support.host import requires
from tests.support.programs import wait_until

ID = "e5" * 32
BUSY = os.strerror(errno.EAGAIN).lower()
NANOS = 1_790_000_000_123_456_700
SOURCE = LogSource(
    container_id=ID, name="web", image="busybox:1", labels={"com.example/Role": "x\ny", "_odd": "1"}, env=("FOO=bar",)
)


class Journald(socket.socket):
    """A datagram socket that remembers where it is bound."""

    path = ""


@pytest.fixture(name="journal")
def _journal(tmp_path):
    with Journald(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.path = f"{tmp_path}/socket"
        found.bind(found.path)
        found.settimeout(5)
        yield found


def fields(entry):
    """What systemd's protocol says an entry is: NAME=value lines, or NAME, a length and any bytes."""
    found = {}
    while entry:
        name, _, rest = entry.partition(b"\n")
        if b"=" in name:
            name, _, value = name.partition(b"=")
            entry = rest
        else:
            (length,) = struct.unpack_from("<Q", rest)
            value, entry = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value
    return found


def test_the_fields_of_lines_and_pieces(journal):
    options = {"labels": "com.example/Role,_odd", "env": "FOO", "tag": "{{.Name}}!"}
    writer = LineWriter(Journal(options, SOURCE, journal.path))
    writer.write(1, b"out \xff\n" + b"x" * (PIECE + 1) + b"\n", NANOS)
    writer.write(2, b"err", NANOS)
    writer.flush()
    got = [fields(journal.recv(1 << 20)) for _ in range(4)]
    writer.close()
    assert got[0] == {
        "CONTAINER_ID": ID[:12].encode(),
        "CONTAINER_ID_FULL": ID.encode(),
        "CONTAINER_NAME": b"web",
        "CONTAINER_TAG": b"web!",
        "IMAGE_NAME": b"busybox:1",
        "SYSLOG_IDENTIFIER": b"web!",
        "SYSLOG_TIMESTAMP": b"2026-09-21T14:13:20.1234567Z",
        "COM_EXAMPLE_ROLE": b"x\ny",
        "ODD": b"1",
        "FOO": b"bar",
        "PRIORITY": b"6",
        "MESSAGE": b"out \xff",
    }
    assert [(len(one["MESSAGE"]), one.get("CONTAINER_PARTIAL_MESSAGE")) for one in got[1:]] == [
        (PIECE, b"true"), (1, None), (3, b"true"),
    ]  # fmt: skip
    assert [one["CONTAINER_PARTIAL_ORDINAL"] for one in got[1:]] == [b"1", b"2", b"1"]
    assert got[1]["CONTAINER_PARTIAL_ID"] == got[2]["CONTAINER_PARTIAL_ID"] != got[3]["CONTAINER_PARTIAL_ID"]
    assert [one["PRIORITY"] for one in got] == [b"6", b"6", b"6", b"3"]


def test_what_no_datagram_holds_comes_in_a_sealed_file(journal):
    source = LogSource(container_id=ID, labels={"BIG": "b" * 400_000})
    writer = LineWriter(Journal({"labels": "BIG"}, source, journal.path))
    writer.write(1, b"hello\n", NANOS)
    data, rights, _, _ = journal.recvmsg(4096, socket.CMSG_SPACE(4))
    writer.close()
    (fd,) = array.array("i", rights[0][2])
    try:
        assert data == b""
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        found = fields(os.pread(fd, 1 << 20, 0))
    finally:
        os.close(fd)
    assert found["MESSAGE"] == b"hello" and len(found["BIG"]) == 400_000


def test_a_journal_that_takes_nothing_is_waited_for_once(journal):
    writer = LineWriter(Journal({}, SOURCE, journal.path))
    began = time.monotonic()
    for number in range(5000):
        writer.write(1, b"line %d\n" % number, NANOS)
    assert 0.5 < time.monotonic() - began < 4
    got = drained(journal)
    time.sleep(1.1)
    writer.write(1, b"back\n", NANOS)
    got += drained(journal)
    writer.close()
    assert got[-1] == b"back"
    lost = 5000 - (len(got) - 2)
    assert got[-2] == f"hutch: {lost} lines of output were not logged: the journal: {BUSY}".encode()


def drained(journal):
    journal.settimeout(0)
    got = []
    while True:
        try:
            got.append(fields(journal.recv(1 << 20))["MESSAGE"])
        except BlockingIOError:
            return got


def test_a_journal_that_was_started_anew_is_found(tmp_path):
    path = f"{tmp_path}/socket"
    old = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    old.bind(path)
    writer = LineWriter(Journal({}, SOURCE, path))
    old.close()
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as new:
        new.bind(path)
        new.settimeout(5)
        writer.write(1, b"hello\n", NANOS)
        assert fields(new.recv(4096))["MESSAGE"] == b"hello"
    writer.close()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            b'{"MESSAGE":"hi","PRIORITY":"6","SYSLOG_TIMESTAMP":"2026-09-21T14:13:20.5Z","FOO":"bar","_PID":"1"}',
            (1_790_000_000_500_000_000, 1, b"hi\n", {"FOO": "bar"}),
        ),
        (
            b'{"MESSAGE":[104,255],"PRIORITY":"3","__REALTIME_TIMESTAMP":"1790000000000001"}',
            (1_790_000_000_000_001_000, 2, b"h\xff\n", {}),
        ),
        (
            b'{"MESSAGE":"a","CONTAINER_PARTIAL_MESSAGE":"true","__REALTIME_TIMESTAMP":"1"}',
            (1000, 1, b"a", {}),
        ),
        (b'{"PRIORITY":"6"}', None),
        (b'{"MESSAGE":[1,"x"]}', None),
        (b"not json", None),
    ],
)
def test_what_journalctl_prints(line, found):
    entry = journalctl.parsed(line, Times())
    assert (entry and (entry.time_nanos, entry.stream, entry.data, entry.attributes)) == found


JOURNALD = "/lib/systemd/systemd-journald"
ALONE = (
    "mount -t tmpfs none /run && mkdir -p /run/systemd/journal /run/log/journal && mount --bind $1 $2 && exec "
    + JOURNALD
)


@pytest.fixture
def private_journal(tmp_path):
    """A journald of our own in a mount namespace of its own; yields its root directory as we see it."""
    if not os.path.exists(JOURNALD):
        pytest.skip(f"{JOURNALD} is not installed")
    conf = "/etc/systemd/journald.conf"
    if not os.path.exists(conf):
        pytest.skip(f"there is no {conf} to put another in the place of")
    ours = tmp_path / "journald.conf"
    ours.write_text("[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitBurst=0\n")
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ALONE, "sh", str(ours), conf]

    def root():
        return f"/proc/{process_id[0]}/root"

    process_id = [0]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        process_id[0] = process.pid
        try:
            wait_until(lambda: os.path.exists(root() + SOCKET), 10, lambda: process.poll() is not None)
            yield root()
        finally:
            process.terminate()
            process.wait(10)


@requires("root", "program:journalctl", "program:unshare")
def test_a_real_journal_takes_and_gives_back_what_was_written(private_journal):
    where = ["--directory", f"{private_journal}/run/log/journal"]
    writer = LineWriter(Journal({"labels": "ROLE_X"}, LABELLED, private_journal + SOCKET))
    for line in SENT:
        writer.write(1, line, NANOS)
    writer.write(2, b"z" * (PIECE + 2) + b"\nraw \xff\nlast", NANOS + 1)
    writer.close()

    def read(**more):
        more = {"tail": -1, "follow": False, "running": lambda: False, "where": where, **more}
        return [entry for batch in journalctl.read_journal(ID, 0, **more) for entry in batch]

    wait_until(lambda: len(read()) == len(SENT) + 4, 15)
    found = read()
    tail = [b"z" * PIECE, b"zz\n", b"raw \xff\n", b"last"]
    assert [entry.data for entry in found] == [*SENT, *tail]
    assert [(entry.stream, entry.time_nanos) for entry in found] == [(1, NANOS)] * len(SENT) + [(2, NANOS + 1)] * 4
    assert found[0].attributes == {"ROLE_X": "y"}
    assert [entry.data for entry in read(tail=2)] == tail[2:]
    assert [entry.data for entry in read(follow=True)] == [entry.data for entry in found]


LABELLED = LogSource(container_id=ID, labels={"ROLE_X": "y"})
SENT = [b"line %d\n" % number for number in range(300)]


@pytest.mark.host
@requires("systemd", "program:journalctl")
def test_the_journal_of_this_host():
    """Written as a container's monitor does, and read back as `hutch logs` does, also while it is written."""
    assert os.path.exists(SOCKET)
    container_id = uuid.uuid4().hex * 2
    source = LogSource(container_id=container_id, name="hutch-test", labels={"ROLE_X": "y"})
    writer = LineWriter(Journal({"labels": "ROLE_X"}, source))
    alive = True
    followed = []

    def follow():
        followed.extend(reading.read_log("journald", {}, f"/x/{container_id}", follow=True, running=lambda: alive))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    sent = [b"line %d\n" % number for number in range(300)]
    for line in sent:
        writer.write(1, line, time.time_ns())
    writer.write(2, b"z" * (PIECE + 2) + b"\n", time.time_ns())
    writer.close()
    subprocess.run(["journalctl", "--sync"], check=False, capture_output=True)
    deadline = time.monotonic() + 15
    found = []
    while len(found) < 302 and time.monotonic() < deadline:
        found = list(reading.read_log("journald", {}, f"/x/{container_id}", running=lambda: False))
        time.sleep(0.2)
    assert [entry.data for entry in found] == [*sent, b"z" * PIECE, b"zz\n"]
    assert [entry.stream for entry in found] == [1] * 300 + [2] * 2
    assert found[0].attributes == {"ROLE_X": "y"}
    last = reading.read_log("journald", {}, f"/x/{container_id}", tail=3, running=lambda: False)
    assert [entry.data for entry in last] == [sent[-1], b"z" * PIECE, b"zz\n"]
    time.sleep(1)
    alive = False
    follower.join(15)
    assert [entry.data for entry in followed] == [entry.data for entry in found]
