"""The cgroup v2 manager and the systemd driver on a host that has them; run in the guest (marker ``host``)."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator

import pytest

from hutch.errors import Conflict, InvalidArgument, NotSupported, PermissionDenied
from hutch.linux import bpf
from hutch.runtime.cgroups import files, hierarchy, systemd
from hutch.runtime.cgroups.manager import manager_for
from hutch.runtime.cgroups.oom import OomEvents
from tests.support import cgroups, requires

pytestmark = [pytest.mark.host, requires("cgroup2")]

PATIENCE_S = 60  # the guest is emulated

children: list[int] = []


def child(manager, work=signal.pause) -> int:
    """Fork a process that joins the cgroup before it works; reaped by `reap`."""
    ready_r, ready_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready_w)
            os.read(ready_r, 1)
            work()
        finally:
            os._exit(0)
    children.append(pid)
    os.close(ready_r)
    manager.add(pid)
    os.write(ready_w, b".")
    os.close(ready_w)
    return pid


def reap() -> dict[int, int]:
    """Wait for every child; pid → exit code, or minus the signal."""
    ended = {}
    while children:
        pid = children.pop()
        ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return ended


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def text(manager, name) -> str:
    return files.read(f"{manager.paths()['']}/{name}").strip()


def end(manager) -> None:
    manager.kill(signal.SIGKILL)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    reap()
    manager.destroy()


@pytest.fixture(scope="module", autouse=True)
def awake_bus() -> None:
    """A user's bus is started by its first client; let that not be a test, which is said to leave it behind."""
    if os.geteuid() != 0 and os.path.isdir("/run/systemd/system"):
        subprocess.run(["busctl", "--user", "--quiet", "list"], check=False, stdout=subprocess.DEVNULL)


@pytest.fixture
def manager() -> Iterator:
    with cgroups.parent() as parent:
        made = manager_for(f"{parent}/c", "c")
        made.create()
        try:
            yield made
        finally:
            end(made)


@requires("root")
def test_c17_limits_are_what_was_asked_for_and_the_process_is_in_them(manager) -> None:
    manager.apply(
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 1024, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
            "blockIO": {"weight": 500},
            "unified": {"memory.high": str(60 << 20), "memory.oom.group": "1"},
        }
    )
    pid = child(manager)
    assert manager.paths()[""].endswith(hierarchy.own_cgroups(pid)[""])
    assert manager.pids() == [pid]
    for name, value in {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(32 << 20),
        "memory.low": str(32 << 20),
        "memory.high": str(60 << 20),
        "memory.oom.group": "1",
        "cpu.weight": "100",
        "cpu.max": "50000 200000",
        "cpuset.cpus": "0",
        "pids.max": "20",
    }.items():
        assert text(manager, name) == value, name
    manager.apply({"cpu": {"quota": -1}, "pids": {"limit": -1}})
    assert text(manager, "cpu.max") == "max 200000"
    assert text(manager, "pids.max") == "max"
    assert text(manager, "memory.max") == str(64 << 20)


@requires("root")
def test_a_fork_bomb_meets_the_limit_and_one_write_kills_it(manager) -> None:
    manager.apply({"pids": {"limit": 12}})

    def bomb() -> None:
        while True:
            try:
                os.fork()
            except BlockingIOError:
                time.sleep(0.2)

    child(manager, bomb)
    wait_for(lambda: len(manager.pids()) == 12)
    assert manager.stats()["pids"] == {"current": 12, "limit": 12}
    manager.kill(signal.SIGKILL)
    assert set(reap().values()) == {-signal.SIGKILL}
    wait_for(lambda: manager.pids() == [])


@requires("root")
def test_a_memory_hog_is_killed_at_its_limit_and_reported(manager) -> None:
    manager.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    with OomEvents(manager.paths()) as events:
        pid = child(manager, lambda: mmap.mmap(-1, 64 << 20).write(b"x" * (64 << 20)))
        assert reap() == {pid: -signal.SIGKILL}
        assert select.select([events], [], [], PATIENCE_S)[0] == [events]
        events.acknowledge()
        assert events.kills() == 1
    assert manager.oom_kills() == 1
    memory = manager.stats()["memory"]
    assert memory["usage"]["limit"] == 16 << 20
    assert memory["usage"]["failcnt"] > 0
    assert memory["swap"]["limit"] == 16 << 20
    assert "anon" in memory["raw"]


@requires("root")
def test_statistics_count_and_have_runcs_shape(manager) -> None:
    manager.apply({"cpu": {"quota": 5000, "period": 50000}})

    def spin() -> None:
        while time.process_time() < 0.05:
            pass

    child(manager, spin)
    reap()
    stats = manager.stats()
    assert set(stats) == {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert stats["cpu"]["usage"]["total"] > 20_000_000
    assert stats["cpu"]["throttling"]["throttledPeriods"] > 0
    assert stats["cpuset"]["mems"] == [0]


@requires("root")
def test_x22_freezing_and_what_kill_does_to_the_frozen(manager) -> None:
    pid = child(manager)
    manager.freeze()
    assert manager.frozen()
    manager.kill(signal.SIGTERM)
    assert manager.frozen()
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    manager.thaw()
    assert reap() == {pid: -signal.SIGTERM}
    second = child(manager)
    files.write(f"{manager.paths()['']}/cgroup.freeze", "1")
    manager.kill(signal.SIGKILL)
    assert reap() == {second: -signal.SIGKILL}


@requires("root")
def test_x22_kill_without_the_kernels_own(manager, monkeypatch) -> None:
    """Before Linux 5.14 there is no cgroup.kill: freeze, signal, thaw."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).endswith("cgroup.kill") and exists(path))
    pid = child(manager)
    manager.freeze()
    manager.kill(signal.SIGKILL)
    assert reap() == {pid: -signal.SIGKILL}
    assert not manager.frozen()


def outcome(path: str, flags: int = os.O_RDONLY) -> int:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or -1
    return 0


def tries(manager, *work) -> list[int]:
    read_fd, write_fd = os.pipe()
    pid = child(manager, lambda: os.write(write_fd, bytes(each() for each in work)))
    children.remove(pid)
    os.waitpid(pid, 0)
    os.close(write_fd)
    result = list(os.read(read_fd, 100))
    os.close(read_fd)
    return result


@requires("root")
def test_j04_the_program_denies_all_but_what_the_rules_open(manager, tmp_path) -> None:
    node = tmp_path / "disk"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    opens = [
        lambda: outcome(str(node)),
        lambda: outcome("/dev/kmsg"),
        lambda: outcome("/dev/kmsg", os.O_WRONLY),
        lambda: outcome("/dev/null", os.O_RDWR),
    ]
    manager.apply({})
    assert tries(manager, *opens) == [errno.EPERM, errno.EPERM, errno.EPERM, 0]
    kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    manager.apply({"devices": [{"allow": False, "access": "rwm"}, kmsg]})
    assert tries(manager, *opens) == [errno.EPERM, 0, errno.EPERM, 0]
    fd = os.open(manager.paths()[""], os.O_RDONLY)
    assert len(bpf.query(fd)) == 1
    os.close(fd)
    manager.apply({"devices": [{"allow": True, "access": "rwm"}]})
    assert tries(manager, *opens)[1:] == [0, 0, 0]


@requires("root")
@pytest.mark.parametrize(
    ("resources", "error", "message"),
    [
        ({"cpu": {"cpus": "4000"}}, InvalidArgument, r"set cpuset\.cpus to '4000'"),
        ({"unified": {"hutch.max": "1"}}, NotSupported, r"hutch\.max.*no hutch controller"),
        ({"unified": {"memory.nonsense": "1"}}, NotSupported, r"memory\.nonsense"),
        ({"rdma": {"x": {"hcaHandles": 1}}}, (NotSupported, InvalidArgument), r"rdma\.max"),
        ({"network": {"classID": 1}}, NotSupported, r"no net_cls\.classid"),
    ],
)
def test_what_cannot_be_set_is_named(manager, resources, error, message) -> None:
    with pytest.raises(error, match=message):
        manager.apply(resources)


@requires("root")
def test_a_parent_with_processes_cannot_limit_and_says_so() -> None:
    with cgroups.parent() as parent:
        busy = manager_for(f"{parent}/busy", "b")
        busy.create()
        pid = child(busy)
        below = manager_for(f"{parent}/busy/below", "c")
        below.create()
        below.apply({})
        with pytest.raises(NotSupported, match=r"the memory controller cannot be enabled in .*busy"):
            below.apply({"memory": {"limit": 64 << 20}})
        below.destroy()
        inner = manager_for(f"{parent}/busy/inner", "d")
        end(busy)
        inner.destroy()
        assert pid


@requires("root")
def test_nested_cgroups_of_the_container_go_with_it(manager) -> None:
    path = manager.paths()[""]
    os.makedirs(f"{path}/a/b/c")
    os.mkdir(f"{path}/a/d")
    manager.destroy()
    assert not os.path.exists(path)


# --- systemd ----------------------------------------------------------------------------------------------------


def show(unit: str, *properties: str, user: bool = False) -> dict[str, str]:
    command = ["systemctl", *(["--user"] if user else []), "show", unit, *(f"-p{each}" for each in properties)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def live_in_a_scope(*, rootless: bool) -> None:
    name = f"hutchtest{os.getpid()}.slice:hutch:{time.monotonic_ns()}"
    manager = manager_for(name, "x", systemd=True, rootless=rootless)
    unit = name.replace(":", "-").split("slice-")[1] + ".scope"
    manager.create()
    resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20},
        "pids": {"limit": 30},
        "cpu": {"shares": 2048, "quota": 30000, "period": 100000},
    }
    manager.apply(resources)
    pid = child(manager)
    try:
        path = manager.paths()[""]
        assert path.endswith(hierarchy.own_cgroups(pid)[""])
        assert unit in path
        for file, value in {
            "memory.max": str(64 << 20),
            "memory.swap.max": "0",
            "pids.max": "30",
            "cpu.weight": "174",
            "cpu.max": "30000 100000",
        }.items():
            assert text(manager, file) == value, file
        told = show(unit, "Delegate", "MemoryMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", user=rootless)
        assert told == {
            "Delegate": "yes",
            "MemoryMax": str(64 << 20),
            "TasksMax": "30",
            "CPUWeight": "174",
            "CPUQuotaPerSecUSec": "300ms",
        }
        again = manager_for(name, "x", systemd=True, rootless=rootless, stored=manager.paths())
        second = child(again)
        assert set(again.pids()) == {pid, second}
        again.apply({"pids": {"limit": 40}})
        assert show(unit, "TasksMax", user=rootless) == {"TasksMax": "40"}
        assert text(again, "pids.max") == "40"
        again.freeze()
        assert again.frozen()
        again.kill(signal.SIGKILL)
        assert set(reap().values()) == {-signal.SIGKILL}
    finally:
        end(manager)
    assert not os.path.exists(path)
    manager.destroy()
    assert show(unit, "LoadState", user=rootless) == {"LoadState": "not-found"}
    # Slices are the administrator's: they stay until they are stopped.
    subprocess.run(["systemctl", *(["--user"] if rootless else []), "stop", name.split(":", maxsplit=1)[0]], check=True)


@requires("root", "systemd")
def test_a_scope_of_the_system() -> None:
    live_in_a_scope(rootless=False)


@requires("user", "systemd")
def test_a_scope_of_a_users_own_manager() -> None:
    live_in_a_scope(rootless=True)


@requires("root", "systemd")
def test_limits_outlive_a_reload_of_systemd() -> None:
    manager = manager_for(":hutchtest:reload", "x", systemd=True)
    manager.create()
    manager.apply({"pids": {"limit": 30}, "unified": {"memory.high": str(50 << 20)}})
    child(manager)
    try:
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert text(manager, "pids.max") == "30"
        assert text(manager, "memory.high") == str(50 << 20)
        assert tries(manager, lambda: outcome("/dev/kmsg"), lambda: outcome("/dev/null")) == [errno.EPERM, 0]
    finally:
        end(manager)


@requires("root", "systemd")
def test_a_scope_cannot_be_started_twice() -> None:
    first = manager_for(":hutchtest:twice", "x", systemd=True)
    first.create()
    child(first)
    try:
        with (
            pytest.raises(Exception, match=r"already (loaded|exists)|UnitExists"),
            systemd._Systemd(rootless=False) as bus,
        ):
            bus.job("StartTransientUnit", "ssa(sv)a(sa(sv))", "hutchtest-twice.scope", "fail", [], [])
    finally:
        end(first)


# --- an ordinary user -------------------------------------------------------------------------------------------


@requires("user")
def test_without_delegation_only_a_limit_is_an_error() -> None:
    """A login session's cgroup is not its user's: containers run in it, limits cannot be had."""
    manager = manager_for("", "x", rootless=True)
    manager.create()
    if manager.paths():
        manager.destroy()
        pytest.skip("this session's cgroup is delegated")
    manager.apply({"devices": [{"allow": False}], "pids": {"limit": 0}})
    manager.add(os.getpid())
    assert manager.pids() == []
    with pytest.raises(PermissionDenied, match=r"pids\.max.*not delegated") as caught:
        manager.apply({"pids": {"limit": 5}})
    assert "systemd-run" in caught.value.hint
    manager.destroy()


DELEGATED = """
import os, signal, sys
from hutch.runtime.cgroups.manager import manager_for
manager = manager_for("", "delegated", rootless=True)
manager.create()
manager.apply({"pids": {"limit": 7}})
pid = os.fork()
if pid == 0:
    signal.pause()
manager.add(pid)
print(open(manager.paths()[""] + "/pids.max").read().strip(), manager.pids() == [pid])
manager.kill(signal.SIGKILL)
os.waitpid(pid, 0)
manager.destroy()
print(os.path.exists(manager.paths()[""]))
"""


@requires("user", "systemd", "program:systemd-run")
def test_a_delegated_scope_gives_limits() -> None:
    import sys

    command = ["systemd-run", "--user", "--scope", "--quiet", "-pDelegate=yes", sys.executable, "-c", DELEGATED]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("src"))}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert (done.stdout.split(), done.returncode) == (["7", "True", "False"], 0), done.stderr


@requires("root")
def test_joining_a_cgroup_with_controlled_children_is_refused() -> None:
    with cgroups.parent() as parent:
        outer = manager_for(f"{parent}/outer", "b")
        outer.create()
        inner = manager_for(f"{parent}/outer/inner", "c")
        inner.create()
        with pytest.raises(Conflict, match="device or resource busy"):
            outer.add(os.getpid())
        inner.destroy()
        outer.destroy()
