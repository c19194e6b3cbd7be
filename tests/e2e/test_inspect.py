"""Looking at containers from outside, and changing them: inspect, top, stats, usage, events, update, prune, ps."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.host import requires
from tests.support.programs import wait_until
from tests.support.runner import Runner

pytestmark = requires("root")

# Fields of docker's (28.2 against a daemon of 20.10) that programs rely on.
STATE = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt".split()
TOP = (
    "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform "
    "MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings".split()
)


def inspect(box: Runner, name: str, *options: str) -> dict:
    return json.loads(box.cli("inspect", *options, name).stdout)[0]


def field(box: Runner, name: str, template: str) -> str:
    return box.cli("inspect", "-f", template, name).stdout.strip()


def test_inspect_tells_what_was_asked_for_and_what_is(box, tmp_path):
    flags = [
        "--name",
        "box",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "-v",
        "data:/data",
        "-v",
        f"{tmp_path}:/host:ro",
        "-l",
        "a=b",
    ]
    flags += [
        "-e",
        "X=1",
        "--entrypoint",
        "sleep",
        "--tmpfs",
        "/t:size=1m",
        "--cap-drop",
        "chown",
        "--restart",
        "always",
    ]
    box.cli(*box.argv("-d", *flags), "1000")
    found = inspect(box, "box", "-s")
    assert [name for name in TOP if name not in found] == []
    assert [name for name in STATE if name not in found["State"]] == []
    record = box.record("box")
    assert (found["Id"], found["Name"], found["Path"], found["Args"]) == (record.id, "/box", "sleep", ["1000"])
    assert found["State"]["Pid"] == record.pid and os.path.isdir(f"/proc/{record.pid}")
    assert found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    host = found["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["MemorySwap"]) == (64 << 20, 500_000_000, 128 << 20)
    assert host["Binds"] == ["data:/data", f"{tmp_path}:/host:ro"]
    assert (host["Tmpfs"], host["CapDrop"], host["NetworkMode"]) == ({"/t": "size=1048576"}, ["chown"], "none")
    assert host["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}
    volume, bind = found["Mounts"]
    assert (volume["Type"], volume["Name"], volume["RW"]) == ("volume", "data", True)
    assert os.path.isdir(volume["Source"])
    assert (bind["Type"], bind["Source"], bind["Destination"], bind["RW"]) == ("bind", str(tmp_path), "/host", False)
    config = found["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["Labels"]["a"]) == (["sleep"], ["1000"], "b")
    assert "X=1" in config["Env"] and not any(entry.startswith("HOSTNAME=") for entry in config["Env"])
    assert os.path.isdir(found["GraphDriver"]["Data"]["UpperDir"])
    assert found["SizeRootFs"] > found["SizeRw"] > 0
    assert list(found["NetworkSettings"]["Networks"]) == ["none"]
    assert found["Usage"]["Runs"] == 1 and 0 < found["Usage"]["WallSeconds"] < 60
    box.cli("rm", "-f", "box")
    box.cli("volume", "rm", "data")


def test_generic_inspect_looks_for_containers_first(box):
    box.cli("volume", "create", "thing")
    assert inspect(box, "thing")["Mountpoint"].endswith("/thing/_data")
    box.cli(*box.argv("--name", "thing", verb="create"), "true")
    assert inspect(box, "thing")["State"]["Status"] == "created"
    assert "Mountpoint" in inspect(box, "thing", "--type", "volume")
    assert inspect(box, box.image)["RootFS"]["Type"] == "layers"
    done = box.cli("inspect", "-f", "{{.Name}}", "nope", "thing", check=False)
    assert (done.stdout, done.returncode) == ("/thing\n", 1)
    assert "no such object: nope" in done.stderr
    assert "no such container: nope" in box.cli.fails("container", "inspect", "nope")
    assert "no such volume" in box.cli.fails("inspect", "--type", "volume", "nope")
    assert "not a valid value for --type" in box.cli.fails("inspect", "--type", "foo", "thing")
    box.cli("rm", "thing")


def test_inspect_of_what_docker_would_show_of_an_ended_one(box):
    box.cli(*box.argv("--name", "gone"), "sh", "-c", "exit 3", check=False)
    assert field(box, "gone", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}} {{.Path}}") == "exited 3 0 sh"
    assert field(box, "gone", "{{json .ExecIDs}} {{json .Config.Cmd}}") == 'null ["sh","-c","exit 3"]'
    box.cli("rm", "gone")


def test_b06_top_shows_the_hosts_view_whatever_the_image_holds(box):
    fake = "printf '#!/bin/sh\\ntouch /ran\\n' > /bin/ps; chmod +x /bin/ps; cp /bin/ps /bin/nsenter; "
    box.script(fake + "echo ready; exec sleep 1000", "--name", "box")
    wait_until(lambda: "ready" in box.cli("logs", "box").stdout, 10)
    box.cli("exec", "-d", "box", "sleep", "77")
    wait_until(lambda: "sleep 77" in box.cli("top", "box").stdout, 10)
    lines = box.cli("top", "box").stdout.splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pid = str(box.record("box").pid)
    row = next(line.split(None, 7) for line in lines if line.split()[1] == pid)
    assert (row[5], row[7]) == ("?", "sleep 1000")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", row[6])
    assert len(lines) == 3
    own = box.cli("top", "box", "-o", "pid,ppid,comm").stdout.splitlines()
    assert own[0].split() == ["PID", "PPID", "COMMAND"] and [pid, "sleep"] in [line.split()[::2] for line in own]
    by_ps = box.cli("top", "box", "aux").stdout  # these columns are the host's ps's
    assert by_ps.splitlines()[0].split()[:4] == ["USER", "PID", "%CPU", "%MEM"] and "sleep 77" in by_ps
    assert box.cli("exec", "box", "ls", "/").stdout.split().count("ran") == 0
    assert "couldn't find PID field" in box.cli.fails("top", "box", "-o", "comm")
    assert box.cli.fails("top", "box", "--no-such-option")
    box.cli("kill", "box")
    assert "is not running" in box.cli.fails("top", "box")
    box.cli("rm", "box")


def test_top_spells_out_what_a_process_calls_itself(box):
    box.cli(*box.argv("-d", "--name", "box"), "sh", "-c", "exec -a '\x1b[31mred' sleep 1000; sleep 1000", check=False)
    text = "printf 'x' > /tmp/x; exec sh -c 'while :; do sleep 1; done' '\x1b]0;title\x07'"
    box.script(text, "--name", "other")
    wait_until(lambda: "title" in box.cli("top", "other").stdout, 10)
    assert "\x1b" not in box.cli("top", "other").stdout
    box.cli("rm", "-f", "box", "other")


def test_stats_by_dockers_formulas(box):
    box.script("while :; do :; done", "--name", "busy", "-m", "64m", "--cpus", "0.5")
    box.script("sleep 1000", "--name", "idle")
    box.cli(*box.argv("--name", "new", verb="create"), "true")
    lines = box.cli("stats", "--no-stream").stdout.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[1:]] == ["idle", "busy"]
    shown = box.cli("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", "busy").stdout
    name, percent, _, _, limit, pids = shown.split()
    assert (name, limit, pids) == ("busy", "64MiB", "1")
    assert 20 < float(percent.rstrip("%")) < 80
    everything = box.cli("stats", "--no-stream", "-a", "--format", "json").stdout.splitlines()
    new = json.loads(everything[0])
    assert (new["Name"], new["MemUsage"], new["CPUPerc"]) == ("new", "0B / 0B", "0.00%")
    assert "no such container: nope" in box.cli.fails("stats", "--no-stream", "nope")
    box.cli("rm", "-f", "busy", "idle", "new")


def test_stats_are_live_on_a_terminal(box):
    box.script("sleep 1000", "--name", "one")
    with box.terminal("stats") as terminal:
        terminal.until(b"\x1b[H")
        terminal.until(b"one")
        terminal.until(b"\x1b[H")  # drawn again
        terminal.until(b"one")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
    box.cli("rm", "-f", "one")


def test_port_of_a_container_without_any(box):
    box.script("sleep 1000", "--name", "box")
    assert box.cli("port", "box").stdout == ""
    assert "no public port '80' published for box" in box.cli.fails("port", "box", "80")
    assert "invalid port" in box.cli.fails("port", "box", "many")
    box.cli("rm", "-f", "box")


def test_update_changes_what_runs_and_what_will(box):
    box.script("sleep 1000", "--name", "box", "-m", "64m")
    done = box.cli("update", "-m", "96m", "--pids-limit", "7", "--cpus", "1.5", "--restart", "on-failure:3", "box")
    assert done.stdout == "box\n"
    assert in_cgroup(box, "pids.max") == {"7"}
    assert in_cgroup(box, "memory.limit_in_bytes", "memory.max") == {str(96 << 20)}
    template = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy}}"
    assert field(box, "box", template) == f"{96 << 20} 7 1500000000 {{on-failure 3}}"
    assert "smaller than already set memoryswap limit" in box.cli.fails("update", "-m", "1g", "box")
    assert "minimum memory limit" in box.cli.fails("update", "-m", "1m", "box")
    assert "provide one or more flags" in box.cli.fails("update", "box")
    failed = box.cli("update", "--cpu-shares", "512", "nope", "box", check=False)
    assert (failed.stdout, failed.returncode) == ("box\n", 1)
    box.cli("kill", "box")
    box.cli("update", "--pids-limit", "9", "box")
    box.cli("start", "box")
    assert in_cgroup(box, "pids.max") == {"9"}
    box.cli("rm", "-f", "box")


def in_cgroup(box: Runner, *names: str) -> set[str]:
    """What files of the container's cgroup say, in whichever hierarchy they are."""
    tops = [Path(f"/sys/fs/cgroup/{name}") for name in ("", "pids", "memory", "unified")]
    files = [top / box.cgroup.strip("/") / box.record("box").id / name for top in tops for name in names]
    return {file.read_text().strip() for file in files if file.exists()}


def test_a_restart_policy_given_later_counts_when_it_ends(box):
    box.script("sleep 1000", "--name", "box")
    box.cli("update", "--restart", "always", "box")
    box.cli("exec", "box", "kill", "-KILL", "1", check=False)
    box.cli("exec", "box", "sh", "-c", "kill -TERM 1", check=False)
    os.kill(box.record("box").pid, 9)
    wait_until(lambda: field(box, "box", "{{.RestartCount}} {{.State.Status}}") == "1 running", 10)
    box.cli("rm", "-f", "box")
    box.script("sleep 1000", "--name", "box", "--rm")
    assert "AutoRemove is enabled" in box.cli.fails("update", "--restart", "always", "box")
    box.cli("rm", "-f", "box")


def test_events_of_a_life(box):
    began = f"{time.time():.6f}"
    box.cli("volume", "create", "data")
    box.cli(*box.argv("--name", "box", "-d", "-v", "data:/data", "-l", "tier=x"), "sleep", "1000")
    box.cli("exec", "box", "true")
    box.cli("kill", "box")
    box.cli("wait", "box")
    box.cli("rm", "box")
    box.cli("volume", "rm", "data")
    box.cli("tag", box.image, "two:x")
    box.cli("rmi", "two:x")
    lines = box.cli("events", "--since", began, "--until", "0s").stdout.splitlines()
    actions = [" ".join(line.split()[1:3]) for line in lines]
    assert actions == [
        "volume create", "container create", "volume mount", "container start", "container exec_start:",
        "container exec_die", "container kill", "container die", "volume unmount", "container destroy",
        "volume destroy", "image tag", "image untag",
    ]  # fmt: skip
    start = lines[3]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) container start [0-9a-f]{64} \(", start)
    assert f"image={box.image}, " in start and "name=box" in start and "tier=x" in start
    filtered = box.cli("events", "--since", began, "--until", "0s", "-f", "event=die", "--format", "json").stdout
    event = json.loads(filtered)
    assert (event["status"], event["Action"], event["from"]) == ("die", "die", box.image)
    assert event["Actor"]["Attributes"]["exitCode"] == "137"
    assert event["timeNano"] // 10**9 == event["time"]
    shown = box.cli("events", "--since", began, "--until", "0s", "-f", "type=image", "--format", "{{.Action}}").stdout
    assert shown == "tag\nuntag\n"
    assert "invalid filter 'colour'" in box.cli.fails("events", "--filter", "colour=red")


def test_events_arrive_while_they_happen(box):
    with box.terminal("events", "--filter", "event=start") as terminal:
        time.sleep(0.5)
        box.script("sleep 1000", "--name", "late")
        terminal.until(b"container start")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
    box.cli("rm", "-f", "late")


def test_usage_stays_when_the_container_has_gone(box):
    work = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
    container = box.script(f"{work}; exec sleep 1000", "--name", "box", "-m", "64m")
    box.cli("exec", "box", "sh", "-c", work)
    wait_until(lambda: "sleep 1000" in box.cli("top", "box").stdout, 10)
    open_account = box.cli("usage", "box").stdout.splitlines()
    assert "running" in open_account[-1]
    box.cli("rm", "-f", "box")
    rows = [json.loads(line) for line in box.cli("usage", "--format", "json", "box").stdout.splitlines()]
    by_what = {row["What"].split()[0]: row for row in rows}
    assert set(by_what) == {"exec", "run"}
    assert by_what["run"]["ID"] == container[:12]
    for row in by_what.values():
        assert float(row["WallSeconds"]) > float(row["CPUSeconds"]) > 0.01, row
    assert int(by_what["run"]["MemoryPeakBytes"]) > 100_000
    assert box.cli("usage", "--since", "0s").stdout.count("\n") == 1
    assert "no such container: nope" in box.cli.fails("usage", "nope")


def test_container_prune_leaves_what_runs_and_what_filters_spare(box):
    box.script("sleep 1000", "--name", "up")
    box.cli(*box.argv("--name", "kept", "-l", "keep", verb="create"), "true")
    gone = box.cli(*box.argv("--name", "gone", verb="create"), "true").stdout.strip()
    assert box.cli("container", "prune", "-f", "--filter", "until=1h").stdout == "Total reclaimed space: 0B\n"
    done = box.cli("container", "prune", "-f", "--filter", "label!=keep").stdout
    assert done.startswith(f"Deleted Containers:\n{gone}\n\nTotal reclaimed space: ")
    assert box.cli("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["kept", "up"]
    assert "no terminal to confirm at" in box.cli.fails("container", "prune", stdin="")
    box.cli("rm", "-f", "up", "kept")


def test_ps_shows_health_ports_and_size(box):
    box.script("sleep 1000", "--name", "box", "--health-cmd", "true", "--health-interval", "100ms")
    wait_until(lambda: "(healthy)" in box.cli("ps").stdout, 15)
    lines = box.cli("ps", "-s").stdout.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "SIZE",
    ]  # fmt: skip
    assert re.search(r"Up .* \(healthy\) .* box +\S+B \(virtual \S+B\)$", lines[1])
    box.cli("rm", "-f", "box")


@pytest.mark.parametrize(
    "words", [["swarm", "init"], ["network", "ls"], ["search", "x"], ["context"], ["image", "push"]]
)
def test_what_has_no_counterpart_says_so(own_hutch, words):
    message = own_hutch.fails(*words)
    assert message.startswith(f"hutch: hutch {words[0]}")
    assert "\nhint: " in message and "unknown command" not in message
