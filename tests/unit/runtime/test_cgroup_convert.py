"""Conversions, device rules and tables of the cgroup managers: pure, no cgroup is touched."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import InvalidArgument, NotSupported
from hutch.runtime.cgroups import convert, device_program, devices, hierarchy, v1_knobs, v2_knobs
from tests.support.bpf import run_device


@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 2),
        (100, 17),
        (256, 35),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262144, 10000),
        (10**9, 10000),
    ],
)
def test_shares_become_weights_as_in_runc(shares, weight) -> None:
    assert convert.cpu_weight(shares) == weight


@given(st.integers(2, 262143))
def test_more_shares_are_never_less_weight(shares) -> None:
    assert 1 <= convert.cpu_weight(shares) <= convert.cpu_weight(shares + 1) <= 10000


@pytest.mark.parametrize(("weight", "converted"), [(0, 0), (10, 1), (500, 4950), (1000, 10000)])
def test_blkio_weights_become_io_weights(weight, converted) -> None:
    assert convert.io_weight(weight) == converted


def test_swap_counts_memory_on_v1_and_not_on_v2() -> None:
    assert convert.v1_memsw(-1, 0) == -1
    assert convert.v1_memsw(100, 300) == 300
    assert convert.v2_swap(100, 300) == "200"
    assert convert.v2_swap(100, 100) == "0"
    assert convert.v2_swap(100, -1) == "max"
    assert convert.v2_swap(-1, 0) == "max"
    assert convert.v2_swap(100, 0) is None
    with pytest.raises(InvalidArgument, match="must not be smaller"):
        convert.v2_swap(300, 100)
    with pytest.raises(InvalidArgument, match="needs a limit on memory"):
        convert.v2_swap(0, 100)


def test_cpu_max_keeps_what_is_not_given() -> None:
    assert convert.cpu_max(None, None, "max 100000") is None
    assert convert.cpu_max(5000, None, "max 20000") == "5000 20000"
    assert convert.cpu_max(None, 50000, "7000 100000") == "7000 50000"
    assert convert.cpu_max(-1, 50000, "7000 100000") == "max 50000"
    assert convert.cpu_max(5000, None, "") == "5000 100000"


@pytest.mark.parametrize("text", ["0", "0-3", "0-1,3", "1,2,3", "0-65535", " 0 , 1"])
def test_cpu_lists_are_passed_on(text) -> None:
    assert convert.cpu_list(text) == (text,)


@pytest.mark.parametrize(
    "text",
    [
        "1-4294967295",
        "4294967296",
        "9" * 40000,
        "0-1000000000",
        "x",
        "1-",
        "-1",
        "3-1",
        "1--2",
        "١",
        ",".join(["0"] * 100_000),
    ],
)
def test_h06_a_hostile_cpu_list_costs_nothing_and_is_refused(text) -> None:
    start = time.monotonic()
    with pytest.raises(InvalidArgument, match="cpuset list"):
        convert.cpu_list(text)
    assert time.monotonic() - start < 0.1


def test_h06_a_long_list_that_a_kernel_could_take_is_read_once() -> None:
    text = ",".join(str(n) for n in range(8192))
    start = time.monotonic()
    assert convert.cpu_list(text) == (text,)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    "name", ["../memory.max", "memory", "a/b.c", "cgroup.procs", "cgroup.subtree_control", "x\0.y"]
)
def test_unified_takes_names_of_limits_only(name) -> None:
    with pytest.raises(InvalidArgument, match="unified resource"):
        convert.unified_name(name)


@pytest.mark.parametrize("size", ["2", "2mb", "../2MB", "MB", "-2MB", "2MB/"])
def test_huge_page_sizes_cannot_be_paths(size) -> None:
    with pytest.raises(InvalidArgument, match="huge page size"):
        convert.page_size(size)


@pytest.mark.parametrize("path", ["../x", "/a/../b", "a\nb", "/" + "x" * 256, "x/" * 2000])
def test_cgroup_paths_stay_below(path) -> None:
    with pytest.raises(InvalidArgument, match="cgroup path"):
        hierarchy.check_path(path)


def test_cgroup_paths_are_normalised() -> None:
    assert hierarchy.check_path("/a//b/./c/") == "/a/b/c"
    assert hierarchy.check_path("a/..b") == "a/..b"
    assert hierarchy.check_path("") == ""


def test_mounts_are_found_wherever_and_however_they_are(tmp_path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "30 1 0:9 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:4 - cgroup cgroup rw,cpu,cpuacct\n"
        "32 30 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "34 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "35 30 0:32 / /cgroups/with\\040space rw - cgroup none rw,net_cls,release_agent=/bin/x\n"
    )
    found = hierarchy.find(mountinfo=str(table))
    assert {name: mount.path.rpartition("/")[2] for name, mount in found.v1.items()} == {
        "cpu": "cpu,cpuacct",
        "cpuacct": "cpu,cpuacct",
        "memory": "memory",
        "name=systemd": "systemd",
        "net_cls": "with space",
    }
    assert found.unified is not None
    assert not found.is_v2
    memory = found.v1["memory"]
    assert memory.locate("/docker/abc/x") == "/sys/fs/cgroup/memory/x"
    assert memory.locate("/docker/abcd") == memory.locate("/elsewhere") == "/sys/fs/cgroup/memory"
    assert found.unified.locate("/../../x") == "/sys/fs/cgroup/unified"
    with pytest.raises(NotSupported, match="no hierarchy"):
        hierarchy.find(root=str(tmp_path), mountinfo=str(table))


def test_named_hierarchies_do_not_make_a_host_hybrid(tmp_path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "34 30 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    )
    assert hierarchy.find(mountinfo=str(table)).is_v2


# --- tables -----------------------------------------------------------------------------------------------------


def v1(resources, *, unified=frozenset(), has=lambda name: True):
    return {(each.controller, each.files[0]): each.text for each in v1_knobs.writes(resources, has, set(unified))}


def v2(resources, *, has=lambda name: not name.startswith("io.bfq"), current=lambda name: ""):
    return [(each.files[0], each.text) for each in v2_knobs.writes(resources, has, current)]


def test_unset_values_write_nothing() -> None:
    empty = {
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "realtimeRuntime": 0},
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "disableOOMKiller": False, "swappiness": 2**64 - 1},
        "pids": {"limit": 0},
        "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": []},
        "network": {"classID": 0, "priorities": []},
        "hugepageLimits": [],
    }
    assert v1(empty) == {}
    assert v2(empty) == []


def test_both_versions_write_a_whole_configuration() -> None:
    resources = {
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "burst": 10, "cpus": "0-1", "mems": "0", "idle": 1},
        "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
        "pids": {"limit": -1},
        "blockIO": {
            "weight": 500,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
    }
    assert v1(resources) == {
        ("cpu", "cpu.shares"): "1024",
        ("cpu", "cpu.cfs_quota_us"): "50000",
        ("cpu", "cpu.cfs_period_us"): "100000",
        ("cpu", "cpu.cfs_burst_us"): "10",
        ("cpu", "cpu.idle"): "1",
        ("cpuset", "cpuset.cpus"): "0-1",
        ("cpuset", "cpuset.mems"): "0",
        ("memory", "memory.limit_in_bytes"): "1000",
        ("memory", "memory.memsw.limit_in_bytes"): "3000",
        ("memory", "memory.soft_limit_in_bytes"): "500",
        ("pids", "pids.max"): "max",
        ("blkio", "blkio.weight"): "500",
        ("blkio", "blkio.weight_device"): "8:0 10",
        ("blkio", "blkio.throttle.read_bps_device"): "8:0 600",
        ("blkio", "blkio.throttle.write_iops_device"): "8:0 0",
        ("hugetlb", "hugetlb.2MB.limit_in_bytes"): "4096",
        ("rdma", "rdma.max"): "mlx5_1 hca_handle=3 hca_object=10000",
    }
    assert sorted(v2(resources)) == sorted(
        [
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("cpu.max.burst", "10"),
            ("cpu.idle", "1"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("memory.max", "1000"),
            ("memory.swap.max", "2000"),
            ("memory.low", "500"),
            ("pids.max", "max"),
            ("io.weight", "default 4950"),
            ("io.weight", "8:0 1"),
            ("io.max", "8:0 rbps=600"),
            ("io.max", "8:0 wiops=max"),
            ("hugetlb.2MB.max", "4096"),
            ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
        ]
    )
    assert ("io.bfq.weight", "500") in v2(resources, has=lambda name: True)


def test_unified_comes_last_and_so_wins() -> None:
    written = v2({"memory": {"limit": 1000}, "unified": {"memory.max": "2000", "memory.oom.group": "1"}})
    assert written[-2:] == [("memory.max", "2000"), ("memory.oom.group", "1")]
    with pytest.raises(NotSupported, match=r"memory\.max"):
        v1({"unified": {"memory.max": "1"}})
    assert v1({"unified": {"hugetlb.2MB.max": "1"}}, unified={"hugetlb"}) == {("hugetlb", "hugetlb.2MB.max"): "1"}


@pytest.mark.parametrize(
    ("resources", "file"),
    [
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu.rt_runtime_us"),
        ({"memory": {"kernel": 1000}}, "memory.kmem.limit_in_bytes"),
        ({"memory": {"swappiness": 0}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.oom_control"),
        ({"blockIO": {"leafWeight": 10}}, "blkio.leaf_weight"),
        ({"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "leafWeight": 10}]}}, "blkio.leaf_weight_device"),
        ({"network": {"classID": 1}}, "net_cls.classid"),
        ({"network": {"priorities": [{"name": "eth0", "priority": 1}]}}, "net_prio.ifpriomap"),
    ],
)
def test_what_v2_lacks_is_named(resources, file) -> None:
    with pytest.raises(NotSupported, match=f"cgroup v2 has no {file}"):
        v2(resources)


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"swappiness": 101}},
        {"blockIO": {"weight": 9}},
        {"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "weight": 1001}]}},
        {"network": {"priorities": [{"name": "a b", "priority": 1}]}},
        {"rdma": {"x\ny": {"hcaHandles": 1}}},
    ],
)
def test_values_out_of_range_are_refused(resources) -> None:
    with pytest.raises(InvalidArgument):
        v1(resources)


# --- devices ----------------------------------------------------------------------------------------------------


def rule(allow, kind="a", major=-1, minor=-1, access="rwm"):
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


@pytest.mark.parametrize(
    "bad",
    [
        rule(True, "x"),
        rule(True, "c", 1, 3, "rx"),
        rule(True, "c", 4096, 0),
        rule(True, "c", 1, 1 << 20),
        rule(True, "a", 1, 3),
        rule(True, "a", access="r"),
    ],
)
def test_bad_device_rules_are_refused(bad) -> None:
    with pytest.raises(InvalidArgument, match="device rule"):
        devices.parse([bad])


def test_too_many_device_rules_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="more than"):
        devices.parse([rule(True, "c", 1, 3)] * 5000)


def allowed(rules, kind, access, major, minor):
    """The list read slowly: each access on its own, the last rule that matches decides, nothing said is no."""
    for letter in access:
        verdict = False
        for each in rules:
            if each.kind in {"a", kind} and each.major in {-1, major} and each.minor in {-1, minor}:
                verdict = each.allow if letter in each.access else verdict
        if not verdict:
            return False
    return True


numbers = st.sampled_from([-1, 0, 1, 3, 5])
device_rules = st.lists(
    st.one_of(
        st.builds(
            rule, st.booleans(), st.sampled_from("bc"), numbers, numbers, st.sampled_from(["r", "w", "m", "rw", "rwm"])
        ),
        st.builds(rule, st.booleans()),
    ),
    max_size=12,
)


@given(device_rules)
def test_the_program_says_what_the_list_says(rules) -> None:
    parsed = devices.parse(rules)
    program = device_program.assemble(parsed)
    for kind in "bc":
        for access in ("r", "w", "m", "rw", "rwm"):
            for major, minor in ((0, 0), (1, 3), (5, 1), (9, 9), (3, 5)):
                mask = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
                got = run_device(program, {"b": 1, "c": 2}[kind], mask, major, minor)
                assert bool(got) == allowed(parsed, kind, access, major, minor)


def test_v1_updates_touch_only_what_changes() -> None:
    start = devices.read_v1("c 1:3 rwm\nc 1:5 rwm\nb *:* m\n")
    wanted = devices.parse(
        [rule(False), rule(True, "b", access="m"), rule(True, "c", 1, 3), rule(True, "c", 10, 229, "rw")]
    )
    assert devices.transition(start, wanted) == [("devices.allow", "c 10:229 rw"), ("devices.deny", "c 1:5 rwm")]
    opened = devices.read_v1("a *:* rwm")
    assert devices.transition(opened, wanted)[0] == ("devices.deny", "a")
    assert devices.transition(start, devices.parse([rule(True)])) == [("devices.allow", "a")]


def test_v1_refuses_an_exception_to_a_wildcard_that_the_kernel_would_ignore() -> None:
    rules = devices.parse([rule(False), rule(True, "c"), rule(False, "c", 10, 229)])
    with pytest.raises(NotSupported, match=r"deny c 10:229 rwm.*exception to c \*:\* rwm"):
        devices.transition(devices.Exceptions(allow=False), rules)


def test_promised_devices_are_added_unless_all_are_allowed() -> None:
    assert len(devices.with_defaults([])) == 1 + len(devices.DEFAULT_RULES)
    assert len(devices.with_defaults([rule(True)])) == 2
