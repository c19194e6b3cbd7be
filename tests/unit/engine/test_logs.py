"""Logs of containers: lines, formats, options; what the files look like and that they are read back as written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.engine.logs import address, jsonfile, localfile, reading, tags
from hutch.engine.logs.drivers import LogSource, checked_options, open_writer
from hutch.engine.logs.lines import PIECE, LineWriter
from hutch.engine.moments import parse_moment
from hutch.errors import InvalidArgument, NotSupported, Unavailable

ID = "a1" * 32
NANOS = 1_790_000_000_123_456_700
SOURCE = LogSource(
    container_id=ID,
    name="web",
    image="busybox:1",
    image_id="sha256:" + "b" * 64,
    labels={"z": "1", "a": 'q"\n<é>'},
    env=("FOO=x y", "BAR=", "NONE"),
)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / ID
    path.mkdir()
    return str(path)


def entries(driver, directory, options=None, **more):
    more.setdefault("running", lambda: False)
    return list(reading.read_log(driver, options or {}, directory, **more))


def text(driver, directory, options=None, **more):
    return b"".join(entry.data for entry in entries(driver, directory, options, **more))


def json_log(directory):
    with open(f"{directory}/{ID}-json.log", "rb") as file:
        return file.read()


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.got = []

    def lines(self, stream, block, time_nanos):
        assert block.endswith(b"\n")
        self.got += [(stream, line, 0, True, time_nanos) for line in block[:-1].split(b"\n")]

    def piece(self, stream, data, part, *, last):
        self.got.append((stream, data, part.ordinal, last, part.time_nanos))

    def close(self):
        pass


# What docker's copier makes of a stream, told line by line.
def as_docker_cuts(data):
    *whole, rest = data.split(b"\n")
    made = []
    for line in whole:
        made += [(line[start : start + PIECE], False) for start in range(0, len(line) - PIECE + 1, PIECE)]
        made.append((line[len(line) // PIECE * PIECE :], True))
    return made + [(rest[start : start + PIECE], False) for start in range(0, len(rest), PIECE)]


LINE_LENGTHS = st.sampled_from([0, 1, 80, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5])


@given(st.lists(LINE_LENGTHS, max_size=8), LINE_LENGTHS, st.lists(st.integers(0, 120_000), max_size=6))
def test_lines_are_cut_as_docker_cuts_them_however_they_come(lengths, rest, cuts):
    data = b"".join(b"x" * length + b"\n" for length in lengths) + b"y" * rest
    sink = Recorder()
    writer = LineWriter(sink)
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        writer.write(1, data[start:cut], NANOS)
        start = max(start, cut)
    writer.flush()
    assert [(line, last) for _, line, _, last, _ in sink.got] == as_docker_cuts(data)


def test_pieces_of_a_line_have_the_first_ones_time_and_count_up():
    sink = Recorder()
    writer = LineWriter(sink)
    writer.write(2, b"a" * PIECE, 1)
    writer.write(2, b"b" * PIECE, 2)
    writer.write(2, b"c\nnext\n", 3)
    assert [(stream, ordinal, last, at) for stream, _, ordinal, last, at in sink.got] == [
        (2, 1, False, 1), (2, 2, False, 1), (2, 3, True, 1), (2, 0, True, 3),
    ]  # fmt: skip


def test_the_two_streams_do_not_mix():
    sink = Recorder()
    writer = LineWriter(sink)
    writer.write(1, b"one ", 1)
    writer.write(2, b"two\n", 2)
    writer.write(1, b"three\n", 3)
    assert [(stream, line) for stream, line, *_ in sink.got] == [(2, b"two"), (1, b"one three")]


def test_the_json_file_is_dockers_byte_by_byte(directory):
    writer = open_writer("json-file", {}, directory, SOURCE)
    writer.write(2, b"err\n", NANOS)
    # Docker's own answer to these bytes, taken from its file.
    odd = b'a\tb\r\x01\x1b\x7f<>&\\"\\\xc3\xa9\xe2\x80\xa8\xff\xe2\x82A\xed\xa0\x80\n\nx'
    writer.write(1, odd, NANOS + 33)
    writer.close()
    assert json_log(directory) == (
        b'{"log":"err\\n","stream":"stderr","time":"2026-09-21T14:13:20.1234567Z"}\n'
        b'{"log":"a\\u0009b\\r\\u0001\\u001b\x7f\\u003c\\u003e\\u0026\\\\\\"\\\\\xc3\xa9\\u2028\\ufffd\\ufffd\\ufffdA'
        b'\\ufffd\\ufffd\\ufffd\\n","stream":"stdout","time":"2026-09-21T14:13:20.123456733Z"}\n'
        b'{"log":"\\n","stream":"stdout","time":"2026-09-21T14:13:20.123456733Z"}\n'
        b'{"log":"x","stream":"stdout","time":"2026-09-21T14:13:20.123456733Z"}\n'
    )
    assert os.stat(f"{directory}/{ID}-json.log").st_mode & 0o777 == 0o600


def test_a_time_without_fraction_has_none(directory):
    writer = open_writer("json-file", {}, directory, SOURCE)
    writer.write(1, b"x\n", 1_790_000_000_000_000_000)
    writer.close()
    assert b'"time":"2026-09-21T14:13:20Z"' in json_log(directory)
    assert entries("json-file", directory)[0].time_nanos == 1_790_000_000_000_000_000


def test_attributes_are_labels_variables_and_the_tag_in_order(directory):
    options = {"labels": "z,none", "labels-regex": "^a$", "env": "FOO", "tag": "{{.Name}}/{{.ImageName}}/{{.ID}}"}
    writer = open_writer("json-file", options, directory, SOURCE)
    writer.write(1, b"x\n", NANOS)
    writer.close()
    assert b'"stream":"stdout","attrs":{"FOO":"x y","a":"q\\"\\n\\u003c\xc3\xa9\\u003e"' in json_log(directory)
    found = {"FOO": "x y", "a": 'q"\n<é>', "tag": f"web/busybox:1/{ID[:12]}", "z": "1"}
    assert json.loads(json_log(directory))["attrs"] == found
    assert entries("json-file", directory)[0].attributes == found


@given(st.binary(max_size=300))
def test_escaping_is_json_and_keeps_what_is_utf8(data):
    data = data.replace(b"\n", b"")
    read = json.loads(b'"' + jsonfile.escaped(data) + b'"')
    try:
        assert read == data.decode()
    except UnicodeDecodeError:
        assert read.count("\ufffd") >= 1


@pytest.mark.parametrize("driver", ["json-file", "local"])
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.text(max_size=200)), max_size=20))
def test_what_is_written_is_read(tmp_path_factory, driver, chunks):
    directory = str(tmp_path_factory.mktemp("log") / ID)
    os.mkdir(directory)
    writer = open_writer(driver, {}, directory, SOURCE)
    for stream, chunk in chunks:
        writer.write(stream, chunk.encode("utf-8", "replace"), NANOS)
    writer.close()
    for number in (1, 2):
        sent = b"".join(chunk.encode("utf-8", "replace") for stream, chunk in chunks if stream == number)
        assert b"".join(entry.data for entry in entries(driver, directory) if entry.stream == number) == sent


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 999, 100_000])
def test_the_last_lines(directory, driver, count):
    writer = open_writer(driver, {"max-size": "20k", "max-file": "4"}, directory, SOURCE)
    for number in range(0, 1000, 5):
        writer.write(1, b"".join(b"line %d\n" % n for n in range(number, number + 5)), NANOS + number)
    writer.close()
    everything = text(driver, directory, {"max-size": "20k", "max-file": "4"}).splitlines()
    assert everything[-1] == b"line 999" and len(everything) > (300 if driver == "json-file" else 900)
    last = text(driver, directory, {"max-size": "20k", "max-file": "4"}, tail=count).splitlines()
    assert last == everything[max(0, len(everything) - count) :]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_since_and_until(directory, driver):
    writer = open_writer(driver, {}, directory, SOURCE)
    for number in range(10):
        writer.write(1, b"%d\n" % number, NANOS + number)
    writer.close()
    assert text(driver, directory, since_nanos=NANOS + 3, until_nanos=NANOS + 5) == b"3\n4\n5\n"
    assert text(driver, directory, since_nanos=NANOS + 8) == b"8\n9\n"
    assert text(driver, directory, tail=2, since_nanos=NANOS + 9) == b"9\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("torn", [1, 7, 40])
def test_x9_a_torn_last_line_is_not_read_and_the_next_one_starts_anew(directory, driver, torn):
    writer = open_writer(driver, {}, directory, SOURCE)
    writer.write(1, b"kept\n", NANOS)
    writer.write(1, b"torn " * 10 + b"\n", NANOS)
    writer.close()
    path = f"{directory}/{ID}-json.log" if driver == "json-file" else f"{directory}/local.log"
    os.truncate(path, os.path.getsize(path) - torn)
    assert text(driver, directory) == b"kept\n"
    assert text(driver, directory, tail=1) == b"kept\n"
    writer = open_writer(driver, {}, directory, SOURCE)
    writer.write(1, b"after\n", NANOS)
    writer.close()
    assert text(driver, directory) == b"kept\nafter\n"
    assert text(driver, directory, tail=1) == b"after\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_x9_damage_in_the_middle_costs_what_was_damaged(directory, driver):
    writer = open_writer(driver, {}, directory, SOURCE)
    for number in range(3):
        writer.write(1, b"line %d\n" % number, NANOS)
    writer.close()
    path = f"{directory}/{ID}-json.log" if driver == "json-file" else f"{directory}/local.log"
    with open(path, "r+b") as file:
        size = os.path.getsize(path) // 3
        file.seek(size + 2)
        file.write(b"\0" * (size - 4))
    assert text(driver, directory).splitlines()[0] == b"line 0"
    assert text(driver, directory).splitlines()[-1] == b"line 2"


def test_a_log_that_is_a_link_is_not_followed(directory, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"log":"secret\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n')
    os.symlink(secret, f"{directory}/{ID}-json.log")
    with pytest.raises(OSError, match="symbolic link"):
        entries("json-file", directory)
    with pytest.raises(OSError, match="symbolic link"):
        open_writer("json-file", {}, directory, SOURCE)


def test_no_log_yet_is_an_empty_one(directory):
    assert entries("json-file", directory) == []
    assert entries("json-file", directory, tail=3, follow=True) == []


@pytest.mark.parametrize("driver", ["none", "syslog"])
def test_drivers_whose_logs_cannot_be_read(directory, driver):
    with pytest.raises(NotSupported, match="configured logging driver does not support reading"):
        entries(driver, directory)


def test_none_keeps_nothing(directory):
    writer = open_writer("none", {}, directory, SOURCE)
    writer.write(1, b"x\n", NANOS)
    writer.flush()
    writer.close()
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("nope", {}, "logger: no log driver named 'nope' is registered"),
        ("", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("syslog", {"foo": "1"}, "unknown log opt 'foo' for syslog log driver"),
        ("journald", {"max-size": "1"}, "unknown log opt 'max-size' for journald log driver"),
        ("none", {"tag": "x"}, "invalid logging opts for driver none"),
        ("json-file", {"max-size": "x"}, "max-size: invalid size: 'x'"),
        ("json-file", {"max-size": "-1"}, "max-size: invalid size: '-1'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, "max-file: not a number: 'x'"),
        ("json-file", {"compress": "x"}, "compress: not a truth value"),
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when max-file is less than 2"),
        ("json-file", {"mode": "x"}, "logger: logging mode not supported: x"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "max-buffer-size: invalid size: 'x'"),
        ("json-file", {"tag": "{{.Foo}}"}, "log tag template: '{{.Foo}}' is not supported"),
        ("json-file", {"tag": "{{.ID"}, "unclosed action"),
        ("json-file", {"labels-regex": "("}, "invalid value for labels-regex"),
        ("syslog", {"syslog-address": "foo"}, "syslog-address should be in form proto://address, got foo"),
        ("syslog", {"syslog-address": "http://a"}, "syslog-address should be in form proto://address, got http://a"),
        ("syslog", {"syslog-address": "udp://a:x"}, "invalid syslog-address"),
        ("syslog", {"syslog-address": "unix:///nope"}, "stat /nope: no such file or directory"),
        ("syslog", {"syslog-facility": "x"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "x"}, "invalid syslog format"),
        ("syslog", {"syslog-tls-cert": "/etc/passwd"}, "given together"),
    ],
)
def test_options_that_are_refused(driver, options, message):
    with pytest.raises(InvalidArgument) as caught:
        checked_options(driver, options)
    assert message in str(caught.value)


def test_options_that_are_taken():
    checked_options("", {"max-size": "10m", "max-file": "3", "compress": "true", "labels": "a,b", "tag": "{{.ID}}-x"})
    checked_options("local", {"max-size": "1k", "mode": "non-blocking", "max-buffer-size": "4m"})
    checked_options("syslog", {"syslog-address": "tcp+tls://[::1]:6514", "syslog-facility": "local7"})
    checked_options("none", {})
    with pytest.raises(NotSupported, match="cache-disabled"):
        checked_options("syslog", {"cache-disabled": "true"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("udp://1.2.3.4:5514", ("udp", "1.2.3.4", 5514)),
        ("tcp://host", ("tcp", "host", 514)),
        ("tcp+tls://[fe80::1]:99", ("tcp+tls", "fe80::1", 99)),
        ("tcp://::1", ("tcp", "::1", 514)),
        ("unix:///", ("unix", "/", 0)),
        ("", ("", "", 0)),
    ],
)
def test_syslog_addresses(text, found):
    target = address.parse({"syslog-address": text})
    assert (target.scheme, target.host, target.port) == found


def test_every_field_of_a_tag():
    template = "{{.ID}} {{ .FullID }} {{.Name}} {{.ImageName}} {{.ImageID}} {{.ImageFullID}} {{.DaemonName}}"
    assert tags.tag(template, SOURCE) == (f"{ID[:12]} {ID} web busybox:1 {'b' * 12} sha256:{'b' * 64} hutch")


def test_sizes_of_files_are_dockers_decimal_ones(directory):
    writer = open_writer("json-file", {"max-size": "1k", "max-file": "2"}, directory, SOURCE)
    for _ in range(40):
        writer.write(1, b"x" * 10 + b"\n", NANOS)
    writer.close()
    one = len(json_log(directory).splitlines(keepends=True)[0])
    size = os.path.getsize(f"{directory}/{ID}-json.log.1")
    assert size - one < 1000 <= size
    assert sorted(os.listdir(directory)) == [f"{ID}-json.log", f"{ID}-json.log.1"]


def test_a_local_record_is_found_from_both_ends(tmp_path):
    one = localfile.record(1, localfile.LINES, NANOS, b"a\nb\n")
    assert localfile.follows(one, 0) == len(one)
    assert localfile.follows(one[:-1], 0) == 0
    assert localfile.follows(b"\xff" * 40, 0) == -1
    path = tmp_path / "log"
    path.write_bytes(one + one + one[:9])
    fd = os.open(path, os.O_RDONLY)
    assert localfile.whole(fd) == 2 * len(one)
    os.close(fd)


NOW = 1_790_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("10m", NOW - 600 * 10**9),
        ("1h30m", NOW - 5400 * 10**9),
        ("-5m", NOW + 300 * 10**9),
        ("1700000000", 1700000000 * 10**9),
        ("1700000000.5", 1700000000 * 10**9 + 5 * 10**8),
        ("1700000000.000000001", 1700000000 * 10**9 + 1),
        ("2026-01-02T03:04:05Z", 1767323045 * 10**9),
        ("2026-01-02T03:04:05.123456789Z", 1767323045 * 10**9 + 123456789),
        ("2026-01-02T03:04:05+01:00", 1767319445 * 10**9),
        ("2026-01-02T03:04:05.5-02:30", 1767332045 * 10**9 + 5 * 10**8),
        ("2026-01-02T03:04Z", 1767323040 * 10**9),
        ("2026-01-02T03Z", 1767322800 * 10**9),
        ("2026-01-02Z", 1767312000 * 10**9),
    ],
)
def test_moments(text, nanos):
    assert parse_moment(text, NOW) == nanos


def test_moments_without_a_zone_are_local(monkeypatch):
    monkeypatch.setenv("TZ", "UTC-3")
    time.tzset()
    try:
        assert parse_moment("2026-01-02T03:04:05", NOW) == (1767323045 - 3 * 3600) * 10**9
        assert parse_moment("2026-01-02", NOW) == (1767312000 - 3 * 3600) * 10**9
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["x", "", "2026-13-01", "2026-01-02T03.5", "2026-01-02T03:04:05.x", "--5m", "9" * 30])
def test_what_is_no_moment(text):
    with pytest.raises(InvalidArgument, match="failed to parse value as time or duration"):
        parse_moment(text, NOW)


def test_a_missing_journal_is_said_at_once(directory, tmp_path):
    from hutch.engine.logs.journald import Journal

    with pytest.raises(Unavailable, match="journald is not enabled on this host: .*no such file or directory"):
        Journal({}, SOURCE, f"{tmp_path}/nothing")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_writer_is_cheap_to_import(driver, directory):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hutch.engine.logs.drivers import LogSource, open_writer\n"
        "writer = open_writer(sys.argv[2], {}, sys.argv[3], LogSource(container_id='a'))\n"
        "writer.write(1, b'x\\n', 1)\n"
        "print(*sys.modules)"
    )
    source = os.path.join(os.path.dirname(__file__), "../../../src")
    argv = [sys.executable, "-I", "-S", "-c", program, source, driver, directory]
    loaded = set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())
    assert not loaded & {"re", "enum", "typing", "dataclasses", "json", "logging", "socket", "threading", "msgspec"}
