"""update and events: limits of a running container, what it uses, and out of memory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import oci
from tests.support.host import controllers, is_cgroup2, requires

pytestmark = [pytest.mark.host, requires("root", "program:busybox", "controller:memory", "controller:pids")]

MIB = 1 << 20


def limit(either: oci.Runtime, container_id: str, controller: str, v1: str, v2: str) -> str:
    """A file of the container's cgroup."""
    path = f"{either.cgroup_parent}/{container_id}"
    top = "/sys/fs/cgroup" if is_cgroup2() else f"/sys/fs/cgroup/{controller}"
    return Path(f"{top}{path}/{v2 if is_cgroup2() else v1}").read_text().strip()


def test_update_by_flags(either: oci.Runtime) -> None:
    either.running("box")
    either("update", "--memory", str(64 * MIB), "--memory-swap", str(64 * MIB), "--pids-limit", "30", "box")
    assert limit(either, "box", "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert limit(either, "box", "pids", "pids.max", "pids.max") == "30"
    either("update", "--pids-limit", "-1", "box")
    assert limit(either, "box", "pids", "pids.max", "pids.max") == "max"
    assert limit(either, "box", "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


@pytest.mark.parametrize("by", ["file", "stdin"])
def test_update_by_an_object(either: oci.Runtime, by: str, tmp_path: Path) -> None:
    either.running("box")
    text = json.dumps({"cpu": {"quota": 20000, "period": 100000, "shares": 512}, "pids": {"limit": 40}})
    (tmp_path / "r").write_text(text)
    if by == "file":
        either("update", "-r", str(tmp_path / "r"), "box")
    else:
        either("update", "--resources", "-", "box", input=text)
    assert limit(either, "box", "pids", "pids.max", "pids.max") == "40"
    if "cpu" in controllers():
        assert limit(either, "box", "cpu", "cpu.cfs_quota_us", "cpu.max") in ("20000", "20000 100000")


def test_update_is_remembered_and_refusals_change_nothing(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    bundle.spec["linux"]["resources"]["pids"] = {"limit": 10}
    bundle.spec["linux"]["resources"]["memory"] = {"limit": 64 * MIB}
    runtime.create(bundle, "box")
    runtime("start", "box")
    runtime("update", "--pids-limit", "20", "box")
    stored = json.loads(Path(runtime.root, "box", "config.json").read_text())["linux"]["resources"]
    assert (stored["pids"], stored["memory"]) == ({"limit": 20}, {"limit": 64 * MIB})
    assert stored["devices"] == [{"allow": False, "access": "rwm"}]
    refused = runtime("update", "--cpuset-cpus", "4000", "box", check=False)
    assert refused.returncode == 1
    assert json.loads(Path(runtime.root, "box", "config.json").read_text())["linux"]["resources"] == stored
    for words in (["--memory", "much"], ["-r", "/nowhere"], ["--pids-limit", ""]):
        done = runtime("update", *words, "box", check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
    runtime("kill", "box", "KILL")
    runtime.wait_stopped("box")
    assert "container not running" in runtime("update", "--pids-limit", "5", "box", check=False).stderr


def test_stats_have_runc_s_form(either: oci.Runtime) -> None:
    state = either.running("box")
    event = json.loads(either("events", "--stats", "box").stdout)
    assert (event["type"], event["id"]) == ("stats", "box")
    data = event["data"]
    assert data["pids"]["current"] == 1
    assert 0 < data["memory"]["usage"]["usage"] < 64 * MIB
    assert data["cpu"]["usage"]["total"] > 0
    assert {"cpu", "memory", "pids", "blkio", "hugetlb"} <= data.keys()
    either("kill", "box", "KILL")
    either.wait_stopped("box")
    done = either("events", "--stats", "box", check=False)
    assert done.returncode == 1
    assert "not running" in done.stderr
    assert state["pid"]


def test_events_follow_until_the_end_and_tell_of_oom(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("hog", "sh", "-c", "sleep 0.7; (x=a; while :; do x=$x$x; done); sleep 0.7")
    bundle.spec["linux"]["resources"]["memory"] = {"limit": 16 * MIB, "swap": 16 * MIB}
    runtime.create(bundle, "hog")
    argv = runtime.argv("events", "--interval", "200ms", "hog")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        runtime("start", "hog")
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        assert process.wait(20) == 0
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds.count("oom") >= 1
    assert kinds.count("stats") >= 2
