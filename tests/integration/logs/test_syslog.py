"""The syslog driver against real sockets: every transport and format, and daemons that come and go."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest

from hutch.engine.logs.drivers import LogSource, open_writer
from hutch.engine.logs.lines import PIECE
from hutch.errors import Unavailable
from tests.support.host import requires
from tests.support.programs import wait_until

ID = "d4" * 32
SOURCE = LogSource(container_id=ID, name="web one")
NANOS = 1_790_000_000_123_456_700
HOST = re.escape(os.uname().nodename)


class Server(threading.Thread):
    """Takes connections on a stream socket, one after the other, and keeps what comes."""

    def __init__(self, listener, context=None):
        super().__init__(daemon=True)
        self.listener, self.context = listener, context
        self.received, self.connection = b"", None
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue  # the other side did not want our certificate
            except OSError:
                return
            with connection:
                self.connection = connection
                try:
                    while data := connection.recv(65536):
                        self.received += data
                except OSError:
                    continue

    def stop(self):
        """End as a process does: with its connections."""
        for end in (self.listener, self.connection):
            with contextlib.suppress(OSError, AttributeError):
                end.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(5)
        assert not self.is_alive()


@pytest.fixture
def tcp():
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener)
    server.port = listener.getsockname()[1]
    yield server
    server.stop()


def writer_for(address, tmp_path, **options):
    options = {"syslog-address": address, **{key.replace("_", "-"): value for key, value in options.items()}}
    return open_writer("syslog", options, str(tmp_path), SOURCE)


def test_datagrams_in_the_form_that_local_daemons_take(tmp_path):
    path = f"{tmp_path}/log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(5)
        writer = writer_for(f"unixgram://{path}", tmp_path, tag="{{.Name}}/{{.ID}}")
        writer.write(1, b"out\n", NANOS)
        writer.write(2, b"err \xff\n", NANOS)
        first, second = daemon.recv(4096), daemon.recv(4096)
        writer.close()
    tag = f"web_one/{ID[:12]}"
    assert re.fullmatch(rf"<30>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d {tag}\[{os.getpid()}\]: out\n", first.decode())
    assert second.startswith(b"<27>") and second.endswith(b": err \xff\n")


def test_udp_with_facility_and_rfc5424(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        address = f"udp://127.0.0.1:{daemon.getsockname()[1]}"
        writer = writer_for(address, tmp_path, syslog_facility="local3", syslog_format="rfc5424micro")
        writer.write(1, b"hello\n", NANOS)
        message = daemon.recv(4096).decode()
        writer.close()
    tag, pid = ID[:12], os.getpid()
    assert re.fullmatch(rf"<158>1 2026-09-21T14:13:20\.123456Z {HOST} {tag} {pid} {tag} - hello\n", message)


def test_tcp_in_rfc3164_and_long_lines_in_pieces(tmp_path, tcp):
    writer = writer_for(f"tcp://127.0.0.1:{tcp.port}", tmp_path, syslog_format="rfc3164")
    writer.write(1, b"short\n" + b"x" * (PIECE + 5) + b"\nunfinished", NANOS)
    writer.close()
    wait_until(lambda: tcp.received.count(b"\n") == 4, 5)
    lines = tcp.received.decode().splitlines()
    assert re.fullmatch(rf"<30>\w+ [ \d]\d [\d:]+ {HOST} {ID[:12]}\[\d+\]: short", lines[0])
    assert [len(line.partition("]: ")[2]) for line in lines] == [5, PIECE, 5, 10]


def test_a_stream_on_this_host(tmp_path):
    path = f"{tmp_path}/log"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    server = Server(listener)
    writer = writer_for(f"unix://{path}", tmp_path)
    writer.write(1, b"hello\n", NANOS)
    writer.close()
    wait_until(lambda: server.received.endswith(b": hello\n"), 5)
    server.stop()


@requires("program:openssl")
def test_tls_counts_octets_and_checks_the_certificate(tmp_path):
    key, certificate = f"{tmp_path}/key", f"{tmp_path}/crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key]
    subprocess.run([*argv, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener, context)
    address = f"tcp+tls://localhost:{listener.getsockname()[1]}"
    try:
        writer = writer_for(address, tmp_path, syslog_format="rfc5424", syslog_tls_ca_cert=certificate)
        for word in (b"one\n", b"two\n"):
            writer.write(1, word, NANOS)
        writer.close()
        wait_until(lambda: b"two" in server.received, 5)
        size, _, rest = server.received.partition(b" ")
        assert rest[int(size) - 4 :].startswith(b"one\n") and rest[int(size) :].partition(b" ")[0].isdigit()
        seen = server.received
        stranger = writer_for(address, tmp_path, syslog_format="rfc5424")  # trusts the host's authorities only
        stranger.write(1, b"secret\n", NANOS)
        stranger.close()
        assert server.received == seen
        careless = writer_for(address, tmp_path, syslog_tls_skip_verify="true")
        careless.write(1, b"anyway\n", NANOS)
        careless.close()
        wait_until(lambda: b"anyway" in server.received, 5)
    finally:
        server.stop()


def test_a_daemon_that_is_away_stalls_nobody_and_gets_what_fits(tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    writer = writer_for(f"tcp://127.0.0.1:{port}", tmp_path, mode="non-blocking", max_buffer_size="100k")
    began = time.monotonic()
    for number in range(1000):
        writer.write(1, b"line %d %b\n" % (number, b"x" * 1000), NANOS)
    assert time.monotonic() - began < 1
    server = Server(socket.create_server(("127.0.0.1", port)))
    wait_until(lambda: b"line 50 " in server.received, 10)
    time.sleep(0.3)
    writer.write(1, b"back\n", NANOS)
    wait_until(lambda: server.received.endswith(b"back\n"), 10)
    writer.close()
    lines = [line.partition("]: ")[2] for line in server.received.decode().splitlines()]
    told = [line for line in lines if line.startswith("hutch: ")]
    assert len(told) == 1
    count = int(told[0].split()[1])
    assert told[0] == f"hutch: {count} lines of output were not logged: the log's buffer was full"
    assert sum(line.startswith("line ") for line in lines) + count == 1000 and 80 < 1000 - count < 110
    server.stop()


def test_a_daemon_that_restarts_gets_the_next_line(tmp_path, tcp):
    writer = writer_for(f"tcp://127.0.0.1:{tcp.port}", tmp_path)
    writer.write(1, b"one\n", NANOS)
    wait_until(lambda: b"one" in tcp.received, 5)
    port = tcp.port
    tcp.stop()
    again = Server(_listen_again(port))
    writer.write(1, b"two\n", NANOS)
    wait_until(lambda: b"two" in again.received, 10)
    writer.close()
    assert tcp.received.count(b"\n") == again.received.count(b"\n") == 1
    again.stop()


def _listen_again(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_closing_does_not_wait_for_a_daemon_that_never_comes(tmp_path):
    writer = writer_for("tcp://127.0.0.1:1", tmp_path)
    writer.write(1, b"x\n", NANOS)
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 5
    assert [thread for thread in threading.enumerate() if thread.name == "hutch-log"] == []


def test_nobody_at_a_local_address_is_said_at_once(tmp_path):
    path = f"{tmp_path}/log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(path)
    with pytest.raises(Unavailable, match=f"unix syslog delivery error: {path}: connection refused"):
        writer_for(f"unixgram://{path}", tmp_path)
