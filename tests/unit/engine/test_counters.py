"""Counters, columns of top and units: pure parts."""

from __future__ import annotations

import os

import pytest

from hutch.cli.output import binary_size, human_size
from hutch.engine import processes, units
from hutch.engine.counters import Reading, memory_in_use
from hutch.engine.monitor.usage import counted, traffic
from hutch.errors import InvalidArgument

NET_DEV = b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0: 2000 2 0 0 0 0 0 0 3000 3 0 0 0 0 0 0
  eth1:4 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0
"""


def test_network_traffic_is_that_of_all_devices_but_the_loopback():
    assert traffic(NET_DEV) == (2004, 3005)
    assert traffic(b"") == (0, 0)


@pytest.mark.parametrize(
    ("memory", "wanted"),
    [
        ({"usage": {"usage": 100}, "raw": {"total_inactive_file": 30, "inactive_file": 10}}, 70),  # version 1
        ({"usage": {"usage": 100}, "raw": {"inactive_file": 10}}, 90),  # version 2
        ({"usage": {"usage": 100}, "raw": {"inactive_file": 200}}, 100),
        ({}, 0),
    ],
)
def test_memory_in_use_is_dockers(memory, wanted):
    assert memory_in_use(memory) == wanted


def test_cpu_is_a_part_of_one_processor():
    before = Reading(nanos=1_000_000_000, cpu_nanos=500)
    assert Reading(nanos=2_000_000_000, cpu_nanos=500 + 1_500_000_000).cpu_percent(before) == 150
    assert Reading(nanos=2_000_000_000, cpu_nanos=0).cpu_percent(before) == 0  # started again meanwhile
    assert Reading(nanos=2_000_000_000, cpu_nanos=9).cpu_percent(Reading()) == 0  # the first one says nothing


def test_what_a_cgroup_has_counted():
    stats = {
        "cpu": {"usage": {"total": 5, "user": 3, "kernel": 2}},
        "memory": {"usage": {"max": 4096}},
        "blkio": {"ioServiceBytesRecursive": [{"op": "Read", "value": 7}, {"op": "write", "value": 8}, {"op": "Sync"}]},
    }
    assert counted(stats) == {
        "cpu_nanos": 5, "cpu_user_nanos": 3, "cpu_system_nanos": 2, "memory_peak_bytes": 4096,
        "read_bytes": 7, "written_bytes": 8,
    }  # fmt: skip
    assert counted({"cpu": {}, "memory": {}}) == {}


@pytest.mark.parametrize(
    ("size", "human", "binary"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1023, "1.02kB", "1023B"),
        (999_999, "1MB", "976.6KiB"),
        (64 << 20, "67.1MB", "64MiB"),
    ],
)
def test_sizes_never_need_an_exponent(size, human, binary):
    assert (human_size(size, 3), binary_size(size)) == (human, binary)


COLUMNS = [
    ([], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
    (["-ef"], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
    (["-e", "-f"], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
    (["-o", "pid,comm"], ["PID", "COMMAND"]),
    (["-eo", "pid,cmd", "-o", "user"], ["PID", "CMD", "USER"]),
    (["-opid,rss"], ["PID", "RSS"]),
]


@pytest.mark.parametrize(("options", "headings"), COLUMNS)
def test_columns_made_without_ps(options, headings, monkeypatch):
    monkeypatch.setattr(processes, "_PROGRAMS", ())
    rows = processes.table([os.getpid(), 1 << 22], options)
    assert rows[0] == headings
    assert len(rows) == 2 and str(os.getpid()) in rows[1]


def test_columns_agree_with_the_hosts_ps():
    options = ["-o", "pid,ppid,pgid,sid,user,group,nlwp,ni,tty,comm,args"]
    own = processes.table([os.getpid()], options)
    theirs = processes._by_ps([os.getpid()], options)
    assert own == theirs


def test_a_table_without_pids_cannot_be_shown():
    with pytest.raises(InvalidArgument, match="couldn't find PID field"):
        processes.table([os.getpid()], ["-o", "comm"])


def test_units_quote_what_needs_it():
    text = units.recover_unit(["/opt/my hutch", "--root", '/a%b"$c'], user=False)
    assert 'ExecStart="/opt/my hutch" --root "/a%%b\\"$$c" system recover\n' in text
    assert "WantedBy=default.target" in units.recover_unit(["hutch"], user=True)
    with pytest.raises(InvalidArgument, match="cannot stand in a unit"):
        units.recover_unit(["/a\nExecStartPre=/evil"], user=False)
