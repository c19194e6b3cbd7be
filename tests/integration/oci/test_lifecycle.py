"""create, start, state, kill, delete, pause and run, side by side with runc."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import oci
from tests.support.host import is_cgroup2, requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox")


def test_a_life(either: oci.Runtime) -> None:
    bundle = either.bundle("life", "sleep", "1000")
    bundle.spec["annotations"] = {"org.example.key": "value"}
    either.create(bundle, "life", "--pid-file", f"{bundle.path}/pid")
    state = either.state("life")
    assert state["status"] == "created"
    assert state["bundle"] == bundle.path
    assert state["annotations"] == {"org.example.key": "value"}
    assert Path(bundle.path, "pid").read_bytes() == str(state["pid"]).encode()
    assert either("start", "life").stdout == ""
    assert either.status("life") == "running"
    wait_until(lambda: Path(f"/proc/{state['pid']}/comm").read_text() == "sleep\n", 5)
    either("pause", "life")
    assert either.status("life") == "paused"
    either("resume", "life")
    assert either.status("life") == "running"
    refused = either("delete", "life", check=False)
    assert refused.returncode == 1
    assert "cannot delete container life that is not stopped: running" in refused.stderr
    either("kill", "life", "KILL")
    either.wait_stopped("life")
    assert either.state("life")["pid"] == 0
    either("delete", "life")
    gone = either("state", "life", check=False)
    assert gone.returncode == 1
    assert "does not exist" in gone.stderr


def test_state_has_runc_s_form(either: oci.Runtime) -> None:
    either.running("shape")
    text = either("state", "shape").stdout
    assert '"status": "running"' in text
    assert text.startswith('{\n  "ociVersion": "')
    keys = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert list(json.loads(text)) == keys
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", json.loads(text)["created"])


def test_list_and_ps_have_runc_s_form(either: oci.Runtime) -> None:
    state = either.running("one")
    bundle = either.bundle("two")
    either.create(bundle, "two")
    header, first, second = either("list").stdout.splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert first.split() == ["one", str(state["pid"]), "running", state["bundle"], state["created"], "root"]
    assert header.index("BUNDLE") == first.index(state["bundle"])
    assert header.index("OWNER") == first.index("root", header.index("OWNER"))
    assert second.split()[:3] == ["two", str(either.state("two")["pid"]), "created"]
    assert either("list", "--quiet").stdout == "one\ntwo\n"
    listed = json.loads(either("list", "--format", "json").stdout)
    assert [entry["status"] for entry in listed] == ["running", "created"]
    assert {*listed[0]} == {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"}
    assert json.loads(either("ps", "--format", "json", "one").stdout) == [state["pid"]]
    title, line = either("ps", "one").stdout.splitlines()
    assert title.split()[:3] == ["UID", "PID", "PPID"]
    assert line.split()[1] == str(state["pid"])
    assert line.endswith("sleep 1000")
    assert either("ps", "one", "-o", "pid,args").stdout.split() == [
        "PID",
        "COMMAND",
        str(state["pid"]),
        "sleep",
        "1000",
    ]


ERRORS = [
    (("start", "run"), 1, "cannot start an already running container"),
    (("start", "end"), 1, "cannot start a container that has stopped"),
    (("kill", "end", "KILL"), 1, "container not running"),
    (("kill", "run", "FOO"), 1, "unknown signal"),
    (("exec", "end", "true"), 255, "cannot exec in a stopped container"),
    (("exec", "run", "nope"), 255, r"executable file not found in \$PATH"),
    (("exec", "run", "/nope"), 255, "no such file or directory"),
    (("exec", "run", "/etc"), 255, "permission denied|is a directory"),
    (("exec", "--cwd", "/nope", "run", "true"), 255, "no such file or directory"),
    (("resume", "run"), 1, "container not paused"),
    (("pause", "end"), 1, "container not running"),
    (("state", "none"), 1, "does not exist"),
    (("delete", "none"), 1, "does not exist"),
    (("create", "--bundle", "/nowhere", "new"), 1, "no such file or directory"),
    (("list", "--format", "yaml"), 1, "invalid format option"),
    (("--frobnicate", "list"), 1, "flag provided but not defined: -frobnicate"),
]


def test_common_failures_read_as_runc_s(either: oci.Runtime) -> None:
    either.running("run")
    either.running("end", "true")
    either.wait_stopped("end")
    wrong = []
    for words, status, message in ERRORS:
        done = either(*words, check=False)
        if done.returncode != status or not re.search(message, done.stderr):
            wrong.append((words, done.returncode, done.stderr))
    assert wrong == []
    assert either.status("run") == "running"
    assert either.status("end") == "stopped"
    taken = either("create", "--bundle", either.state("run")["bundle"], "run", check=False)
    assert taken.returncode == 1
    assert "container with given ID already exists" in taken.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope"], "executable file not found in $PATH"),
        (["/nope"], "no such file or directory"),
        (["/etc/passwd"], "permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_fails_create(either: oci.Runtime, args: list[str], message: str) -> None:
    bundle = either.bundle("bad", *args)
    done = either("create", "--bundle", bundle.write(), "bad", check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert either("list", "-q").stdout == ""


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$; sleep 9", None)])
def test_run_ends_with_the_process_s_status(either: oci.Runtime, script: str, status: int | None) -> None:
    bundle = either.bundle("run", "sh", "-c", script if status is not None else "kill -9 $PPID; exit 3")
    done = either("run", "--bundle", bundle.write(), "run", check=False)
    assert done.returncode == (3 if status is None else status), done.stderr
    assert either("list", "-q").stdout == ""


def test_run_passes_stdio_through(either: oci.Runtime) -> None:
    bundle = either.bundle("run", "sh", "-c", "cat; echo error >&2")
    done = either("run", "--bundle", bundle.write(), "run", input="hello\n")
    assert (done.stdout, done.stderr) == ("hello\n", "error\n")


def test_run_keep_and_detach(either: oci.Runtime) -> None:
    bundle = either.bundle("keep", "true")
    either("run", "--keep", "--bundle", bundle.write(), "keep")
    assert either.status("keep") == "stopped"
    other = either.bundle("away", "sleep", "1000")
    argv = either.argv("run", "--detach", "--pid-file", f"{other.path}/pid", "--bundle", other.write(), "away")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
    assert either.state("away")["status"] == "running"
    assert int(Path(other.path, "pid").read_text()) == either.state("away")["pid"]


def test_signals_reach_the_process(either: oci.Runtime) -> None:
    bundle = either.bundle(
        "sig", "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    )
    argv = either.argv("run", "--bundle", bundle.write(), "sig")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got it\n"
        assert process.wait(10) == 5


def test_kill_all_and_delete_force_end_every_process(either: oci.Runtime) -> None:
    either.running("many", "sh", "-c", "sleep 1000 & sleep 1000 & wait")
    wait_until(lambda: len(json.loads(either("ps", "-f", "json", "many").stdout)) == 3, 10)
    either("delete", "--force", "many")
    assert either("list", "-q").stdout == ""
    assert either("delete", "--force", "many").returncode == 0


def test_kill_all_reaches_those_that_outlive_init(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("rest", "sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
    bundle.spec["linux"]["namespaces"] = [
        entry for entry in bundle.spec["linux"]["namespaces"] if entry["type"] != "pid"
    ]
    runtime.create(bundle, "rest")
    runtime("start", "rest")
    runtime.wait_stopped("rest")
    (left,) = json.loads(runtime("ps", "-f", "json", "rest").stdout)
    assert runtime("kill", "rest", "KILL", check=False).returncode == 1
    assert Path(f"/proc/{left}").exists()
    runtime("kill", "--all", "rest", "KILL")
    wait_until(
        lambda: Path(f"/proc/{left}/stat").read_text().split()[2] == "Z" if Path(f"/proc/{left}").exists() else True, 5
    )
    runtime("delete", "rest")


def test_kill_reaches_a_paused_container(either: oci.Runtime) -> None:
    either.running("cold")
    either("pause", "cold")
    either("delete", "--force", "cold")
    assert either("list", "-q").stdout == ""


def test_a_created_container_can_be_deleted_unstarted(runtime: oci.Runtime) -> None:
    runtime.create(runtime.bundle("new"), "new")
    assert runtime("delete", "new", check=False).returncode == 1
    runtime("kill", "new", "KILL")
    runtime.wait_stopped("new")
    runtime("delete", "new")


def test_the_created_init_holds_nothing_but_stdio_and_the_fifo(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("fds")
    opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(3)]
    try:
        argv = runtime.argv("create", "--bundle", bundle.write(), "fds")
        subprocess.run(argv, check=True, stdin=-3, stdout=-3, stderr=-3, timeout=30, pass_fds=opened)
    finally:
        for fd in opened:
            os.close(fd)
    pid = runtime.state("fds")["pid"]
    links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert [links.pop(name) for name in ("0", "1", "2")] == ["/dev/null"] * 3
    assert [os.path.basename(link) for link in links.values()] == ["exec.fifo"]


def test_preserved_descriptors_and_socket_activation(either: oci.Runtime, tmp_path: Path) -> None:
    bundle = either.bundle(
        "keep", "sh", "-c", "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l"
    )
    paths = []
    for name in ("first", "second"):
        (tmp_path / name).write_text(f"{name}\n")
        paths.append(str(tmp_path / name))
    argv = ["sh", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<{paths[0]} 4<{paths[1]} 5</dev/null', "sh"]
    argv += either.argv("run", "--preserve-fds", "1", "--bundle", bundle.write(), "keep")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    # stdio, the two, and ls's own
    assert (done.stdout, done.stderr) == ("first\nsecond\n1 1\n6\n", "")


@pytest.mark.parametrize(
    "step", ["V1Manager.destroy", "V2Manager.destroy", "Directory.remove", "os.rmdir", "os.unlink"]
)
def test_delete_goes_on_where_a_crash_stopped_it(runtime: oci.Runtime, step: str) -> None:
    holder, name = step.split(".")
    module = {
        "V1Manager": "hutch.runtime.cgroups.v1",
        "V2Manager": "hutch.runtime.cgroups.v2",
        "Directory": "hutch.runtime.state",
    }
    if holder == ("V1Manager" if is_cgroup2() else "V2Manager"):
        pytest.skip("the other version of cgroups")
    runtime.running("crash", "true")
    runtime.wait_stopped("crash")
    found = (
        f"__import__('importlib').import_module({module[holder]!r}).{holder}"
        if holder in module
        else "__import__('os')"
    )
    before = f"import os\nsetattr({found}, {name!r}, lambda *_, **__: os._exit(9))"
    crashing = oci.launcher(os.path.dirname(runtime.root), "crashing", before=before)
    done = subprocess.run([crashing, "--root", runtime.root, "delete", "crash"], check=False)
    assert done.returncode == 9
    assert runtime("list", "-q").stdout in ("crash\n", "")
    runtime("delete", "--force", "crash")
    assert runtime("list", "-q").stdout == ""
    assert os.listdir(runtime.root) == []


def test_create_that_is_killed_leaves_something_deletable(runtime: oci.Runtime) -> None:
    before = "import os, hutch.runtime.container as c\ndef die(*_): os._exit(9)\nc.Container.record_init = die"
    crashing = oci.launcher(os.path.dirname(runtime.root), "crashing", before=before)
    bundle = runtime.bundle("crash", "sleep", "1000")
    done = subprocess.run(
        [crashing, "--root", runtime.root, "create", "--bundle", bundle.write(), "crash"],
        check=False,
        stdin=-3,
        stdout=-3,
    )
    assert done.returncode == 9
    assert runtime.status("crash") in ("stopped", "creating")
    runtime("delete", "--force", "crash")
    assert runtime("list", "-q").stdout == ""


def test_starting_is_quick(runtime: oci.Runtime) -> None:
    runtime.create(runtime.bundle("quick", "true"), "quick")
    began = time.monotonic()
    runtime("start", "quick")
    assert time.monotonic() - began < 2
