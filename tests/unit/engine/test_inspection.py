"""What inspect makes of a record: pure."""

from __future__ import annotations

import pytest

from hutch.engine.accounts import bill, total
from hutch.engine.containers import ContainerRecord
from hutch.engine.inspection import Facts, inspection
from hutch.engine.mountspec import parse_mount, parse_volume
from hutch.engine.options import RunOptions
from hutch.engine.prepare import plain


def shown(options: RunOptions, *, image=None, status="created", command=("sh",), **fields):
    record = ContainerRecord("ab" * 32, "box")
    record.options = plain(options)
    record.command = list(command)
    for name, value in fields.items():
        setattr(record, name, value)
    return inspection(record, Facts(status=status, path="/x", spec={}, volume_paths={}, image=image or {}, usage={}))


COMMANDS = [
    # given, image, what was executed → Entrypoint, Cmd, Path, Args
    ({}, {"Cmd": ["sh"]}, ["sh"], None, ["sh"], "sh", []),
    ({"args": ("ls", "-l")}, {"Cmd": ["sh"]}, ["ls", "-l"], None, ["ls", "-l"], "ls", ["-l"]),
    ({}, {"Entrypoint": ["/e", "a"], "Cmd": ["b"]}, ["/e", "a", "b"], ["/e", "a"], ["b"], "/e", ["a", "b"]),
    ({"args": ("c",)}, {"Entrypoint": ["/e"], "Cmd": ["b"]}, ["/e", "c"], ["/e"], ["c"], "/e", ["c"]),
    ({"entrypoint": "/x", "args": ("y",)}, {"Entrypoint": ["/e"]}, ["/x", "y"], ["/x"], ["y"], "/x", ["y"]),
    ({"entrypoint": "", "args": ("y",)}, {"Entrypoint": ["/e"]}, ["y"], None, ["y"], "y", []),
    ({"args": ("c",)}, {}, ["/e", "c"], ["/e"], ["c"], "/e", ["c"]),  # its image has gone
    ({"init": True}, {"Cmd": ["sh"]}, ["/dev/init", "--", "sh"], None, ["sh"], "sh", []),
]


@pytest.mark.parametrize(("given", "image", "command", "entrypoint", "cmd", "path", "args"), COMMANDS)
def test_command_and_entry_point_are_told_apart(given, image, command, entrypoint, cmd, path, args):
    found = shown(RunOptions(image="i", **given), image=image, command=command)
    assert (found["Config"]["Entrypoint"], found["Config"]["Cmd"]) == (entrypoint, cmd)
    assert (found["Path"], found["Args"]) == (path, args)


def test_mounts_as_they_were_given():
    mounts = tuple(map(parse_volume, ("/a:/b:ro,z", "data:/c:nocopy", "/anonymous"))) + tuple(
        map(parse_mount, ("type=bind,src=/d,dst=/e", "type=volume,src=v,dst=/f,volume-subpath=s"))
    )
    host = shown(RunOptions(image="i", mounts=mounts))["HostConfig"]
    assert host["Binds"] == ["/a:/b:ro,z", "data:/c:nocopy"]
    assert [(each["Type"], each["Target"]) for each in host["Mounts"]] == [
        ("volume", "/anonymous"), ("bind", "/e"), ("volume", "/f"),
    ]  # fmt: skip
    assert host["Mounts"][2]["VolumeOptions"]["Subpath"] == "s"


STATES = [
    ("created", {"exit_code": -1}, (False, 0, 0)),
    ("running", {"pid": 9, "exit_code": 3}, (True, 9, 0)),
    ("paused", {"pid": 9}, (True, 9, 0)),
    ("restarting", {"pid": 0, "exit_code": 3}, (True, 0, 3)),
    ("exited", {"exit_code": 137}, (False, 0, 137)),
]


@pytest.mark.parametrize(("status", "fields", "wanted"), STATES)
def test_states(status, fields, wanted):
    state = shown(RunOptions(image="i"), status=status, **fields)["State"]
    assert (state["Status"], state["Paused"]) == (status, status == "paused")
    assert (state["Running"], state["Pid"], state["ExitCode"]) == wanted


def test_what_every_container_gets_is_not_shown_as_asked_for():
    environment = ["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "HOME=/root", "A=1"]
    found = shown(RunOptions(image="i", env=("A=1", "HOME=/mine")), environment=environment)
    assert found["Config"]["Env"] == ["PATH=/bin", "HOME=/root", "A=1"]


def test_bills_add_up_but_peaks_do_not():
    first = {"runs": 1, "cpu_nanos": 5, "memory_peak_bytes": 10, "wall_nanos": 1_500_000_000}
    both = total([first, {"runs": 1, "cpu_nanos": 6, "memory_peak_bytes": 7, "read_bytes": 1}])
    assert both == {"runs": 2, "cpu_nanos": 11, "memory_peak_bytes": 10, "wall_nanos": 1_500_000_000, "read_bytes": 1}
    shown = bill(both)
    assert (shown["WallSeconds"], shown["MemoryPeakBytes"], shown["SentBytes"]) == (1.5, 10, None)
