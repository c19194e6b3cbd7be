"""The cgroup v1 and hybrid manager on real hierarchies, each test below a cgroup of its own."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import select
import signal
import stat
import time
from collections.abc import Iterator

import pytest

from hutch.errors import InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.linux import bpf
from hutch.runtime.cgroups import device_program, devices, files, hierarchy
from hutch.runtime.cgroups.manager import manager_for
from hutch.runtime.cgroups.oom import OomEvents
from tests.support import cgroups, requires

pytestmark = requires("root", "cgroup1")


@pytest.fixture
def parent() -> Iterator[str]:
    with cgroups.parent() as path:
        yield path


@pytest.fixture
def manager(parent):
    made = manager_for(f"{parent}/c", "c")
    made.create()
    try:
        yield made
    finally:
        made.kill(signal.SIGKILL)
        reap()
        made.destroy()


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


def text(manager, controller, name) -> str:
    return files.read(f"{manager.paths()[controller]}/{name}").strip()


def wait_for(condition, timeout_s=10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_made_in_every_hierarchy_and_goes_from_every_one(parent) -> None:
    manager = manager_for(f"{parent}/a/b", "c")
    manager.create()
    manager.create()  # what is there is used
    paths = manager.paths()
    assert {"cpu", "memory", "devices", "freezer", "pids", "cpuset"} <= set(paths)
    assert all(path.endswith(f"{parent}/a/b") and os.path.isdir(path) for path in paths.values())
    again = manager_for("", "c", stored=paths)
    os.mkdir(f"{paths['memory']}/below")
    again.destroy()
    again.destroy()
    assert not any(os.path.exists(path) for path in paths.values())
    for path in paths.values():
        os.rmdir(os.path.dirname(path))


def test_the_default_parent_goes_with_its_last_container() -> None:
    first, second = manager_for("", "hutch-test-one"), manager_for("", "hutch-test-two")
    first.create()
    second.create()
    path = first.paths()["pids"]
    assert path.endswith("/hutch/hutch-test-one")
    first.destroy()
    assert os.path.isdir(second.paths()["pids"])
    second.destroy()


def test_a_relative_path_is_below_the_own_cgroup() -> None:
    manager = manager_for("hutch-test-relative", "x")
    for name, path in manager.paths().items():
        own = hierarchy.own_cgroups()[name]
        assert path.endswith(f"{own.rstrip('/')}/hutch-test-relative")


def test_c17_limits_are_what_was_asked_for_and_the_process_is_in_them(manager) -> None:
    manager.apply(
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20, "swappiness": 7},
            "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
        }
    )
    pid = child(manager)
    for name, path in manager.paths().items():
        assert path.endswith(hierarchy.own_cgroups(pid)[name]), name
    assert text(manager, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert text(manager, "memory", "memory.memsw.limit_in_bytes") == str(96 << 20)
    assert text(manager, "memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    assert text(manager, "memory", "memory.swappiness") == "7"
    assert text(manager, "cpu", "cpu.shares") == "512"
    assert text(manager, "cpu", "cpu.cfs_quota_us") == "50000"
    assert text(manager, "cpu", "cpu.cfs_period_us") == "200000"
    assert text(manager, "cpu", "cpu.cfs_burst_us") == "1000"
    assert text(manager, "cpuset", "cpuset.cpus") == "0"
    assert text(manager, "pids", "pids.max") == "20"
    assert manager.pids() == [pid]


def test_updates_find_the_order_the_kernel_accepts(manager) -> None:
    """Memory and memory+swap bound each other, as do quota and period: up and down, all at once."""
    for mib in (64, 512, 32, 1024, 16):
        manager.apply({"memory": {"limit": mib << 20, "swap": 2 * mib << 20}})
        assert text(manager, "memory", "memory.limit_in_bytes") == str(mib << 20)
        assert text(manager, "memory", "memory.memsw.limit_in_bytes") == str(2 * mib << 20)
    manager.apply({"memory": {"limit": -1}})
    assert int(text(manager, "memory", "memory.memsw.limit_in_bytes")) > 1 << 60
    for quota, period in ((1000000, 1000000), (1000, 1000), (-1, 50000), (5000, 100000)):
        manager.apply({"cpu": {"quota": quota, "period": period}})
        assert text(manager, "cpu", "cpu.cfs_quota_us") == str(quota)
        assert text(manager, "cpu", "cpu.cfs_period_us") == str(period)


def test_what_is_not_named_stays(manager) -> None:
    manager.apply({"pids": {"limit": 20}, "memory": {"limit": 64 << 20}})
    manager.apply({"pids": {"limit": 30}})
    assert text(manager, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert text(manager, "pids", "pids.max") == "30"


def test_a_fork_bomb_meets_the_pids_limit_and_all_of_it_is_killed(manager) -> None:
    manager.apply({"pids": {"limit": 30}})

    def bomb() -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                os.fork()

    child(manager, bomb)
    wait_for(lambda: len(manager.pids()) == 30)
    assert manager.stats()["pids"] == {"current": 30, "limit": 30}
    manager.kill(signal.SIGKILL)
    assert set(reap().values()) == {-signal.SIGKILL}
    wait_for(lambda: manager.pids() == [])


def test_a_memory_hog_is_killed_at_its_limit_and_reported(manager) -> None:
    manager.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    with OomEvents(manager.paths()) as events:
        assert select.select([events], [], [], 0)[0] == []
        pid = child(manager, lambda: mmap.mmap(-1, 64 << 20).write(b"x" * (64 << 20)))
        assert reap() == {pid: -signal.SIGKILL}
        assert select.select([events], [], [], 5)[0] == [events]
        events.acknowledge()
        assert events.kills() == 1
    assert manager.oom_kills() == 1
    memory = manager.stats()["memory"]
    assert memory["usage"]["max"] >= (16 << 20) - (1 << 16)
    assert memory["usage"]["limit"] == 16 << 20
    assert memory["raw"]["total_rss"] >= 0


def test_the_processor_is_counted_and_throttled(manager) -> None:
    manager.apply({"cpu": {"quota": 5000, "period": 50000}})

    def spin() -> None:
        while time.process_time() < 0.03:
            pass

    child(manager, spin)
    reap()
    cpu = manager.stats()["cpu"]
    assert 20_000_000 < cpu["usage"]["total"] < 200_000_000
    assert len(cpu["usage"]["percpu"]) == os.cpu_count()
    assert cpu["throttling"]["throttledPeriods"] >= 2
    assert cpu["throttling"]["throttledTime"] > 0


def test_frozen_processes_stand_still_and_other_signals_leave_them_frozen(manager) -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)

    def tick() -> None:
        while True:
            os.write(write_fd, b".")
            time.sleep(0.005)

    child(manager, tick)
    wait_for(lambda: select.select([read_fd], [], [], 0)[0])
    manager.freeze()
    assert manager.frozen()
    with contextlib.suppress(BlockingIOError):
        os.read(read_fd, 65536)
    time.sleep(0.05)
    assert select.select([read_fd], [], [], 0)[0] == []
    manager.kill(signal.SIGUSR1)
    assert manager.frozen()
    manager.thaw()
    assert not manager.frozen()
    assert set(reap().values()) == {-signal.SIGUSR1}
    os.close(read_fd)
    os.close(write_fd)


def test_x22_kill_thaws_what_somebody_froze(manager) -> None:
    child(manager)
    files.write(f"{manager.paths()['freezer']}/freezer.state", "FROZEN")
    manager.kill(signal.SIGKILL)
    assert set(reap().values()) == {-signal.SIGKILL}
    assert not manager.frozen()


def test_x22_a_cgroup_removed_by_somebody_else_is_gone_and_no_error(parent) -> None:
    manager = manager_for(f"{parent}/gone", "x")
    manager.create()
    for path in set(manager.paths().values()):
        os.rmdir(path)
    assert manager.pids() == []
    assert not manager.frozen()
    assert manager.oom_kills() == 0
    with pytest.raises(NotSupported, match="is gone"):
        manager.apply({"pids": {"limit": 3}})
    with pytest.raises(NotSupported, match="gone"):
        manager.add(os.getpid())
    manager.destroy()


def test_destroy_waits_for_the_last_process_and_says_who_is_left(manager, monkeypatch) -> None:
    monkeypatch.setattr("hutch.runtime.cgroups.v1._DESTROY_TIMEOUT_S", 0.05)
    child(manager, lambda: time.sleep(0.3))
    with pytest.raises(Unavailable, match="device or resource busy"):
        manager.destroy()
    monkeypatch.setattr("hutch.runtime.cgroups.v1._DESTROY_TIMEOUT_S", 10)
    manager.destroy()
    assert set(reap().values()) == {0}


def device_number(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return os.major(info.st_rdev), os.minor(info.st_rdev)


def outcome(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a device; 0 or the error number."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or -1
    return 0


def tries(manager, *work) -> list[int]:
    """Run functions in the cgroup; their results."""
    read_fd, write_fd = os.pipe()
    child(manager, lambda: os.write(write_fd, bytes(each() for each in work)))
    reap()
    os.close(write_fd)
    result = list(os.read(read_fd, 100))
    os.close(read_fd)
    return result


def test_j04_only_the_default_devices_open(manager, tmp_path) -> None:
    """Without a word on devices: everything but the specification's default ones is denied."""
    manager.apply({})
    node = tmp_path / "disk"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    fine = [lambda p=f"/dev/{name}": outcome(p, os.O_RDWR) for name in ("null", "zero", "full", "random", "urandom")]
    bad = [lambda: outcome(str(node)), lambda: outcome("/dev/kmsg"), lambda: outcome("/dev/fuse", os.O_RDWR)]
    assert tries(manager, *fine) == [0] * 5
    assert tries(manager, *bad) == [errno.EPERM] * 3
    assert "a *:* rwm" not in text(manager, "devices", "devices.list")


def test_j04_rules_open_and_close_devices_without_disturbing_the_others(manager) -> None:
    major, minor = device_number("/dev/kmsg")
    kmsg = {"allow": True, "type": "c", "major": major, "minor": minor, "access": "r"}
    deny = {"allow": False, "access": "rwm"}
    manager.apply({"devices": [deny, kmsg]})
    opens = [lambda: outcome("/dev/kmsg"), lambda: outcome("/dev/kmsg", os.O_WRONLY), lambda: outcome("/dev/null")]
    assert tries(manager, *opens) == [0, errno.EPERM, 0]
    written: list[tuple[str, str, str]] = []
    manager.explain.step = lambda *step: written.append(step)
    manager.apply({"devices": [deny]})
    assert [(verb, os.path.basename(path), value) for verb, path, value in written] == [
        ("write", "devices.deny", f"c {major}:{minor} r")
    ]
    manager.explain.step = None
    assert tries(manager, *opens) == [errno.EPERM, errno.EPERM, 0]
    manager.apply({"pids": {"limit": 9}})  # an update without devices leaves them
    assert tries(manager, *opens) == [errno.EPERM, errno.EPERM, 0]
    manager.apply({"devices": [{"allow": True, "access": "rwm"}]})
    assert tries(manager, *opens) == [0, 0, 0]


def test_j04_the_program_of_v2_filters_in_the_kernel_and_is_replaced_as_one(parent) -> None:
    """Hybrid hosts run device programs too, on the unified hierarchy: the same code as on v2."""
    found = hierarchy.find()
    if found.unified is None:
        pytest.skip("no unified hierarchy is mounted")
    manager = manager_for(f"{parent}/bpf", "bpf")
    manager.create()
    unified = manager.paths()[""]
    manager.apply({"devices": [{"allow": True, "access": "rwm"}]})  # v1 lets everything through
    major, minor = device_number("/dev/kmsg")
    opens = [lambda: outcome("/dev/kmsg"), lambda: outcome("/dev/kmsg", os.O_WRONLY), lambda: outcome("/dev/null")]
    fd = os.open(unified, os.O_RDONLY)
    try:
        rules = [{"allow": False}, {"allow": True, "type": "c", "major": major, "minor": minor, "access": "r"}]
        for given, wanted in (
            (rules, [0, errno.EPERM, 0]),
            ([{"allow": False}], [errno.EPERM, errno.EPERM, 0]),
            ([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 3}], [0, 0, errno.EPERM]),
        ):
            device_program.install(unified, device_program.assemble(devices.with_defaults(given)))
            assert len(bpf.query(fd)) == 1
            assert tries(manager, *opens) == wanted
        bpf.attach(fd, second := bpf.load_device_program(device_program.assemble(devices.parse([{"allow": True}]))))
        os.close(second)
        device_program.install(unified, device_program.assemble(devices.with_defaults([])))
        assert len(bpf.query(fd)) == 1
        big = [{"allow": True, "type": "c", "major": n % 4000, "minor": n} for n in range(devices.MAX_RULES)]
        device_program.install(unified, device_program.assemble(devices.with_defaults(big)))
        assert tries(manager, *opens) == [errno.EPERM, errno.EPERM, 0]
    finally:
        os.close(fd)
        manager.destroy()


def test_what_the_host_lacks_is_named(manager) -> None:
    controllers = {c for c in ("net_cls", "net_prio", "rdma") if c not in manager.paths()}
    asked = {
        "net_cls": ({"network": {"classID": 5}}, r"net_cls\.classid.*no net_cls controller"),
        "net_prio": ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, r"no net_prio controller"),
        "rdma": ({"rdma": {"x": {"hcaHandles": 1}}}, r"rdma\.max.*no rdma controller"),
    }
    for name in controllers:
        resources, message = asked[name]
        with pytest.raises(NotSupported, match=message):
            manager.apply(resources)
    with pytest.raises(NotSupported, match=r"blkio\.leaf_weight"):
        manager.apply({"blockIO": {"leafWeight": 100}})


@pytest.mark.parametrize(
    "resources",
    [
        {"cpu": {"cpus": "4096"}},
        {"cpu": {"shares": 1024, "period": 1}},
        {"memory": {"limit": 64 << 20, "swap": 32 << 20}},
        {"blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 99, "rate": 1}]}},
    ],
)
def test_what_the_kernel_refuses_is_an_error_with_its_words(manager, resources) -> None:
    with pytest.raises((InvalidArgument, NotSupported), match="cgroup: set "):
        manager.apply(resources)


def test_the_oom_killer_can_be_turned_off(manager) -> None:
    manager.apply({"memory": {"limit": 64 << 20, "disableOOMKiller": True}})
    assert "oom_kill_disable 1" in text(manager, "memory", "memory.oom_control")


def test_disk_rates_are_written_per_device(manager) -> None:
    loops = [name for name in sorted(os.listdir("/sys/block")) if os.path.exists(f"/dev/{name}")]
    if not loops:
        pytest.skip("no block device to name")
    major, minor = device_number(f"/dev/{loops[0]}")
    manager.apply({"blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]}})
    assert text(manager, "blkio", "blkio.throttle.read_bps_device") == f"{major}:{minor} {1 << 20}"


def test_check_before_update_keeps_a_limit_that_would_kill(manager) -> None:
    manager.apply({"memory": {"limit": 128 << 20}})
    held = []
    read_fd, write_fd = os.pipe()

    def hold() -> None:
        held.append(b"x" * (32 << 20))
        os.write(write_fd, b".")
        signal.pause()

    child(manager, hold)
    os.read(read_fd, 1)
    with pytest.raises(InvalidArgument, match="smaller than the current usage"):
        manager.apply({"memory": {"limit": 8 << 20, "checkBeforeUpdate": True}})
    assert text(manager, "memory", "memory.limit_in_bytes") == str(128 << 20)
    os.close(read_fd)
    os.close(write_fd)


def test_a_controller_without_its_own_hierarchy_is_taken_from_the_unified_one(manager, monkeypatch) -> None:
    paths = manager.paths()
    if "" not in paths or "hugetlb" in paths:
        pytest.skip("hugetlb is not on the unified hierarchy here")
    top = os.path.dirname(os.path.dirname(os.path.dirname(paths[""])))
    if "hugetlb" not in files.read(f"{top}/cgroup.controllers").split():
        pytest.skip("hugetlb is not on the unified hierarchy here")
    had = files.read(f"{top}/cgroup.subtree_control").split()
    try:
        manager.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
        assert files.read(f"{paths['']}/hugetlb.2MB.max").strip() == str(4 << 20)
        assert manager.stats()["hugetlb"]["2MB"] == {"usage": 0, "failcnt": 0}
        manager.apply({"unified": {"hugetlb.2MB.max": str(2 << 20)}})
        assert files.read(f"{paths['']}/hugetlb.2MB.max").strip() == str(2 << 20)
    finally:
        if "hugetlb" not in had:
            for level in (os.path.dirname(paths[""]), os.path.dirname(os.path.dirname(paths[""])), top):
                files.write(f"{level}/cgroup.subtree_control", "-hugetlb")


def as_nobody(work) -> str:
    """Run `work` in a child of an ordinary user; what it says."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"died"
        try:
            libc = ctypes.CDLL(None)
            libc.prctl(4, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            said = str(work()).encode()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        finally:
            os.write(write_fd, said[:4000])
            os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    said = os.read(read_fd, 4096).decode()
    os.close(read_fd)
    return said


def test_without_rights_only_a_limit_is_an_error() -> None:
    def unlimited() -> object:
        manager = manager_for("", "x", rootless=True)
        manager.create()
        manager.apply({"devices": [{"allow": False}], "pids": {"limit": 0}})
        manager.add(os.getpid())
        manager.destroy()
        return manager.paths(), manager.pids(), manager.frozen()

    def limited() -> object:
        manager = manager_for("", "x", rootless=True)
        manager.create()
        return manager.apply({"pids": {"limit": 5}})

    assert as_nobody(unlimited) == "({}, [], False)"
    assert as_nobody(limited) == f"{PermissionDenied.__name__}: cgroup: cannot set pids.max to '5': permission denied"


def test_statistics_have_runcs_shape(manager) -> None:
    stats = manager.stats()
    assert set(stats) >= {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert set(stats["memory"]) == {"cache", "usage", "swap", "kernel", "kernelTCP", "raw"}
    assert {"total", "percpu", "kernel", "user", "percpu_kernel", "percpu_user"} == set(stats["cpu"]["usage"])
