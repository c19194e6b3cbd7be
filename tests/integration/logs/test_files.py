"""Log files on real file systems: rotated under a reader's eyes, full disks, kills in the middle of a write."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutch.engine.logs import compression, reading
from hutch.engine.logs.drivers import LogSource, open_writer
from tests.support.host import requires

ID = "c3" * 32
SOURCE = LogSource(container_id=ID)
FILES = ("json-file", "local")


@pytest.fixture
def directory(tmp_path: Path) -> str:
    path = tmp_path / ID
    path.mkdir(mode=0o700)
    return str(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A container's directory on a file system of 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(path)], check=True)
    try:
        os.mkdir(path / ID)
        yield str(path / ID)
    finally:
        subprocess.run(["umount", str(path)], check=True)


class Follower(threading.Thread):
    """Reads on until `stop`, into `data`; another thread, as another process would."""

    def __init__(self, driver: str, options: dict[str, str], directory: str) -> None:
        super().__init__(daemon=True)
        self.alive = True
        self.data: list[bytes] = []
        self.arguments = (driver, options, directory)
        self.start()

    def run(self) -> None:
        for batch in reading.read_batches(*self.arguments, follow=True, running=lambda: self.alive):
            self.data += [entry.data for entry in batch]

    def stop(self) -> list[bytes]:
        self.alive = False
        self.join(30)
        assert not self.is_alive()
        return self.data


def read(driver, options, directory, **more):
    return [e.data for e in reading.read_log(driver, options, directory, running=lambda: False, **more)]


@pytest.mark.parametrize("driver", FILES)
@pytest.mark.parametrize("compress", ["true", "false"])
def test_a_follower_loses_and_repeats_nothing_while_files_are_rotated(driver, compress, directory):
    options = {"max-size": "100k", "max-file": "1000", "compress": compress}
    writer = open_writer(driver, options, directory, SOURCE)
    follower = Follower(driver, options, directory)
    sent, pid = [], os.getpid()
    for number in range(3000):
        lines = [b"%d line %d of chunk %d\n" % (pid, line, number) for line in range(number % 20)]
        writer.write(1, b"".join(lines), time.time_ns())
        sent += lines
        if number % 200 == 0:
            time.sleep(0.03)
    writer.close()
    assert follower.stop() == sent
    rotated = [name for name in os.listdir(directory) if re.search(r"log\.\d+(\.gz)?$", name)]
    assert len(rotated) >= (20 if driver == "json-file" else 7)
    assert any(name.endswith(".gz") for name in rotated) == (compress == "true")
    assert read(driver, options, directory) == sent
    assert read(driver, options, directory, tail=12_345) == sent[-12_345:]


@pytest.mark.parametrize("driver", FILES)
def test_a_follower_finds_its_way_when_only_two_files_are_kept(driver, directory):
    """Slow enough for a reader to keep up, every line comes once, though almost each of its files was renamed."""
    options = {"max-size": "2k", "max-file": "2", "compress": "false"}
    writer = open_writer(driver, options, directory, SOURCE)
    follower = Follower(driver, options, directory)
    sent = []
    for number in range(120):
        sent.append(b"line %d %b\n" % (number, b"x" * 100))
        writer.write(1, sent[-1], time.time_ns())
        time.sleep(0.02)
    writer.close()
    assert follower.stop() == sent


class Numbered:
    """Writes numbered lines, each a third of a file."""

    def __init__(self, driver: str, options: dict[str, str], directory: str) -> None:
        self.writer = open_writer(driver, options, directory, SOURCE)
        self.sent: list[bytes] = []

    def write(self, count: int) -> None:
        for _ in range(count):
            self.sent.append(b"line %d %b\n" % (len(self.sent), b"x" * 300))
            self.writer.write(1, self.sent[-1], time.time_ns())


@pytest.mark.parametrize("driver", FILES)
@pytest.mark.parametrize("compress", ["true", "false"])
def test_files_that_move_while_they_are_opened_are_read_once(driver, compress, directory, monkeypatch):
    options = {"max-size": "1k", "max-file": "20", "compress": compress}
    numbered = Numbered(driver, options, directory)
    numbered.write(9)
    known = list(numbered.sent)
    real = reading._Log._open

    def moved(self, name, *, packed):
        found = real(self, name, packed=packed)
        if found is not None and len(numbered.sent) < 30:
            numbered.write(3)
        return found

    monkeypatch.setattr(reading._Log, "_open", moved)
    found = read(driver, options, directory)
    assert found[: len(known)] == known
    assert found == numbered.sent[: len(found)]
    numbered.writer.close()


@pytest.mark.parametrize("driver", FILES)
def test_what_is_written_while_a_follower_looks_for_newer_files_is_read(driver, directory, monkeypatch):
    options = {"max-size": "1k", "max-file": "20", "compress": "true"}
    numbered = Numbered(driver, options, directory)
    numbered.write(1)
    real = reading._Log._is_newest

    def busy(self, file):
        if len(numbered.sent) < 60:
            numbered.write(5)
        return real(self, file)

    monkeypatch.setattr(reading._Log, "_is_newest", busy)
    running = lambda: len(numbered.sent) < 60
    found = [entry.data for entry in reading.read_log(driver, options, directory, follow=True, running=running)]
    assert found == numbered.sent
    numbered.writer.close()


@pytest.mark.parametrize("driver", FILES)
def test_the_files_never_outgrow_their_limit(driver, directory):
    options = {"max-size": "50k", "max-file": "3", "compress": "false"}
    writer = open_writer(driver, options, directory, SOURCE)
    for number in range(400):
        writer.write(1 + number % 2, b"some line of output\n" * 100, time.time_ns())
        sizes = {name: os.path.getsize(f"{directory}/{name}") for name in os.listdir(directory)}
        assert len(sizes) <= 3 and max(sizes.values()) < 50_000 + 4000
    writer.close()
    assert len(os.listdir(directory)) == 3


def test_with_one_file_the_old_one_goes(directory):
    options = {"max-size": "10k", "max-file": "1"}
    writer = open_writer("json-file", options, directory, SOURCE)
    for number in range(1000):
        writer.write(1, b"%d\n" % number, time.time_ns())
    writer.close()
    assert os.listdir(directory) == [f"{ID}-json.log"]
    assert read("json-file", options, directory)[-1] == b"999\n"


def test_compressed_files_are_gzip_and_have_their_time(directory):
    options = {"max-size": "10k", "max-file": "3", "compress": "true"}
    writer = open_writer("json-file", options, directory, SOURCE)
    for number in range(500):
        writer.write(1, b"line %d\n" % number, time.time_ns())
    writer.close()
    path = f"{directory}/{ID}-json.log.1.gz"
    with gzip.open(path) as file:
        lines = [json.loads(line) for line in file]
    newest = lines[-1]["time"]
    assert abs(os.stat(path).st_mtime - time.time()) < 60 and newest.startswith("20")
    fd = os.open(path, os.O_RDONLY)
    assert compression.original_inode(fd) > 0
    os.close(fd)
    assert f"{ID}-json.log.gz.new" not in os.listdir(directory)


@requires("root")
@pytest.mark.parametrize("driver", FILES)
def test_x16_a_full_disk_drops_lines_says_so_and_goes_on(driver, small_disk):
    options = {"max-size": "10m", "max-file": "2", "compress": "false"}
    filler = f"{os.path.dirname(small_disk)}/filler"
    writer = open_writer(driver, options, small_disk, SOURCE)
    writer.write(1, b"before\n", time.time_ns())
    follower = Follower(driver, options, small_disk)
    fill(filler)
    sent = 0
    for number in range(200):
        writer.write(1 + number % 2, b"lost %d %b\n" % (number, b"x" * 50) * 10, time.time_ns())
        sent += 10
    writer.write(1, b"y" * 20_000 + b"\n", time.time_ns())
    os.unlink(filler)
    writer.write(1, b"after\n", time.time_ns())
    writer.write(1, b"and on\n", time.time_ns())
    writer.close()
    found = follower.stop()
    assert found == read(driver, options, small_disk)
    notes = [line for line in found if line.startswith(b"hutch: ")]
    assert len(notes) == 1 and found[0] == b"before\n" and found[-2:] == [b"after\n", b"and on\n"]
    kept = sum(line.startswith((b"lost", b"y")) for line in found)
    pieces = 2
    expected = f"hutch: {sent + pieces - kept} lines of output were not logged: no space left on device\n"
    assert notes[0].decode() == expected
    assert found.index(notes[0]) == len(found) - 3


def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


@requires("root")
def test_a_full_disk_while_rotating_stops_nothing(small_disk):
    options = {"max-size": "20k", "max-file": "3", "compress": "true"}
    writer = open_writer("json-file", options, small_disk, SOURCE)
    filler = f"{os.path.dirname(small_disk)}/filler"
    for number in range(2000):
        writer.write(1, b"line %d %b\n" % (number, os.urandom(20).hex().encode()), time.time_ns())
        if number == 700:
            fill(filler)
        if number == 1500:
            os.unlink(filler)
    writer.close()
    found = read("json-file", options, small_disk)
    assert found[-1].startswith(b"line 1999 ")
    assert not [name for name in os.listdir(small_disk) if name.endswith(".new")]


@requires("root")
@pytest.mark.parametrize("driver", FILES)
def test_x9_a_writer_killed_at_any_moment_leaves_a_log_that_reads_and_goes_on(driver, directory):
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from hutch.engine.logs.drivers import LogSource, open_writer\n"
        "options = {'max-size': '200k', 'max-file': '3', 'compress': 'true'}\n"
        "writer = open_writer(sys.argv[2], options, sys.argv[3], LogSource(container_id=sys.argv[4]))\n"
        "number = int(sys.argv[5])\n"
        "while True:\n"
        "    writer.write(1, b''.join(b'line %d\\n' % n for n in range(number, number + 50)), time.time_ns())\n"
        "    number += 50\n"
    )
    source = os.path.join(os.path.dirname(__file__), "../../../src")
    options = {"max-size": "200k", "max-file": "3", "compress": "true"}
    begin = 0
    for attempt in range(8):
        argv = [sys.executable, "-I", "-c", program, source, driver, directory, ID, str(begin)]
        process = subprocess.Popen(argv)
        time.sleep(0.2 + attempt * 0.013)
        process.send_signal(signal.SIGKILL)
        process.wait()
        numbers = [int(line.split()[1]) for line in read(driver, options, directory)]
        jumps = [(a, b) for a, b in itertools.pairwise(numbers) if b != a + 1]
        assert all(b % 1_000_000 == 0 for _, b in jumps), jumps  # only where a new writer began
        begin += 1_000_000
    assert len(os.listdir(directory)) <= 4


def test_the_tail_of_a_long_log_is_read_from_its_end(directory, monkeypatch):
    writer = open_writer("json-file", {}, directory, SOURCE)
    for number in range(1000):
        writer.write(1, b"%d a line of some length\n" % number * 60, time.time_ns())
    writer.close()
    assert os.path.getsize(f"{directory}/{ID}-json.log") > 5 << 20
    asked = 0
    real = os.pread

    def counted(fd, size, offset):
        nonlocal asked
        data = real(fd, size, offset)
        asked += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert read("json-file", {}, directory, tail=3) == [b"999 a line of some length\n"] * 3
    assert asked < 256 << 10


def test_a_non_blocking_writer_drops_counts_and_says_so(directory):
    options = {"mode": "non-blocking", "max-buffer-size": "64k"}
    writer = open_writer("json-file", options, directory, SOURCE)
    for number in range(3000):
        writer.write(1, b"%d\n" % number * 1000, time.time_ns())
    writer.close()
    found = read("json-file", options, directory)
    told = [int(re.match(rb"hutch: (\d+) ", line)[1]) for line in found if line.startswith(b"hutch: ")]
    assert told and b"the log's buffer was full" in b"".join(found)
    assert len(found) - len(told) + sum(told) == 3_000_000
    assert [t for t in threading.enumerate() if t.name == "hutch-log"] == []


def test_a_follower_stops_at_until(directory):
    writer = open_writer("json-file", {}, directory, SOURCE)
    writer.write(1, b"x\n", time.time_ns())
    began = time.monotonic()
    until = time.time_ns() + 300_000_000
    found = reading.read_log("json-file", {}, directory, until_nanos=until, follow=True, running=lambda: True)
    assert [entry.data for entry in found] == [b"x\n"]
    assert 0.2 < time.monotonic() - began < 5
    writer.close()
