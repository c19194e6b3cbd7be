"""A container as the configuration describes it: namespaces, mounts, devices, identity, program."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hutch.errors import InvalidConfig
from hutch.linux import namespaces
from hutch.runtime.steps import Step
from tests.integration.runtime.conftest import Box
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root")


def fields(text: str) -> dict[str, str]:
    """The lines of a /proc/PID/status."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_it_runs_and_its_status_is_the_programs(box: Box) -> None:
    assert box.sh("echo out; echo err >&2; exit 7").__dict__ | {"warnings": []} == {
        "status": 7,
        "out": "out\n",
        "err": "err\n",
        "warnings": [],
    }


def test_a_created_container_is_a_small_process_without_python(box: Box) -> None:
    container = box.create("sleep", "1000")
    exe = os.readlink(f"/proc/{container.pid}/exe")
    status = fields(Path(f"/proc/{container.pid}/status").read_text())
    assert exe.startswith("/memfd:hutch-init")
    assert int(status["VmRSS"].split()[0]) < 64
    assert container.status() == "created"
    container.start()
    assert container.status() == "running"
    wait_until(lambda: os.readlink(f"/proc/{container.pid}/exe") == "/bin/busybox", 5)


def test_every_new_namespace_is_its_own(box: Box) -> None:
    box.linux["namespaces"] = [{"type": kind} for kind in namespaces.KINDS if kind != "user"]
    container = box.create("sleep", "1000")
    for kind in namespaces.KINDS:
        same = namespaces.namespace_id(container.pid, kind) == namespaces.namespace_id("self", kind)
        assert same == (kind == "user"), kind


def test_namespaces_are_joined_by_path(box: Box) -> None:
    first = box.create("sleep", "1000")
    paths = {kind: f"/proc/{first.pid}/ns/{namespaces.FILES[kind]}" for kind in ("network", "ipc", "uts", "pid")}
    box.linux["namespaces"] = [{"type": "mount"}, *({"type": kind, "path": path} for kind, path in paths.items())]
    box.spec.pop("hostname")
    second = box.create("sleep", "1000")
    for kind in paths:
        assert namespaces.namespace_id(second.pid, kind) == namespaces.namespace_id(first.pid, kind)


def test_a_path_that_is_no_namespace_is_named(box: Box) -> None:
    box.linux["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/etc/hostname"}]
    box.spec.pop("hostname")
    assert "network namespace: /etc/hostname: not a namespace" in box.fails()


def test_user_namespace_maps_ids_and_root_inside_is_nobody_outside(box: Box) -> None:
    box.user_namespace(1_000_000)
    os.chmod(f"{box.rootfs}/tmp", 0o1777)
    done = box.sh("id -u; cat /proc/self/uid_map; touch /tmp/made; test -c /dev/null && echo x > /dev/null")
    assert done.status == 0, done.err
    assert done.out.split() == ["0", "0", "1000000", "65536"]
    assert os.stat(f"{box.rootfs}/tmp/made").st_uid == 1_000_000


def test_user_groups_umask_and_home(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27}
    done = box.sh("id -u; id -g; id -G; umask; echo $HOME")
    assert done.out.split("\n")[:5] == ["1000", "1001", "1001 5 7", "0027", "/"]


def test_c01_inheritable_and_ambient_are_empty_unless_asked(box: Box) -> None:
    status = fields(box.sh("cat /proc/self/status").out)
    assert int(status["CapInh"], 16) == 0
    assert int(status["CapAmb"], 16) == 0
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) != 0


def test_c02_a_user_other_than_root_has_no_capabilities(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    status = fields(box.sh("cat /proc/self/status").out)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]


def test_ambient_capabilities_reach_an_ordinary_user(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    for name in ("bounding", "permitted", "effective", "inheritable", "ambient"):
        box.process["capabilities"][name] = ["CAP_NET_BIND_SERVICE", "CAP_NONSENSE"]
    done = box.sh("cat /proc/self/status")
    status = fields(done.out)
    assert int(status["CapAmb"], 16) == int(status["CapEff"], 16) == 1 << 10
    assert any("CAP_NONSENSE: unknown" in text for text in done.warnings)


def test_no_new_privs_is_set_or_not(box: Box) -> None:
    assert fields(box.sh("cat /proc/self/status").out)["NoNewPrivs"] == "1"
    box.process["noNewPrivileges"] = False
    assert fields(box.sh("cat /proc/self/status").out)["NoNewPrivs"] == "0"


def test_limits_are_set_and_clamped_with_a_warning(box: Box) -> None:
    box.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 600},
        {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NPROC", "soft": 1 << 60, "hard": 1 << 60},
    ]
    done = box.sh("ulimit -Sn; ulimit -Hn; ulimit -Sf 1>&2", stdio=_pipes())
    assert done.status == 0
    status = [text for text in box.warnings if "RLIMIT_NPROC" in text]
    assert bool(status) == (not _has_sys_resource())


def _pipes() -> tuple[int, int, int]:
    null = os.open("/dev/null", os.O_RDWR)
    return null, null, null


def _has_sys_resource() -> bool:
    return bool(int(fields(Path("/proc/self/status").read_text())["CapEff"], 16) >> 24 & 1)


def test_b03_nothing_but_stdio_is_open(box: Box) -> None:
    extra = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(30)]
    for fd in extra:
        os.set_inheritable(fd, True)
    try:
        container = box.create("sleep", "1000")
        created = [os.readlink(f"/proc/{container.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{container.pid}/fd")]
        assert len(created) == 4
        assert sum("exec.fifo" in target for target in created) == 1
        assert not any("passwd" in target for target in created)
        container.start()
        wait_until(lambda: os.readlink(f"/proc/{container.pid}/exe") == "/bin/busybox", 5)
        assert len(os.listdir(f"/proc/{container.pid}/fd")) == 3
    finally:
        for fd in extra:
            os.close(fd)


def test_signals_are_as_a_fresh_process_has_them(box: Box) -> None:
    status = fields(box.run("cat", "/proc/self/status").out)
    assert [int(status[name], 16) for name in ("SigBlk", "SigIgn")] == [0, 0]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("nothing-of-this-name", 'exec: "nothing-of-this-name": executable file not found in $PATH'),
        ("/nothing", 'exec: "/nothing": no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": permission denied'),
    ],
)
def test_a_program_that_cannot_be_executed(box: Box, program: str, message: str) -> None:
    assert message in box.fails(program)


def test_a_program_the_kernel_refuses_ends_as_a_shell_would_say(box: Box) -> None:
    Path(box.rootfs, "bin/bad").write_text("nothing executable")
    os.chmod(f"{box.rootfs}/bin/bad", 0o755)
    done = box.run("/bin/bad")
    assert (done.status, done.err) == (126, "exec /bin/bad: exec format error\n")


def test_working_directory_is_made(box: Box) -> None:
    box.process["cwd"] = "/made/for/it"
    assert box.run("pwd").out == "/made/for/it\n"


def test_the_environment_is_exact(box: Box) -> None:
    box.process["env"] = ["A=1", "B=x=y", "A=2", "PATH=/bin"]
    assert sorted(box.run("/bin/env").out.split()) == ["A=2", "B=x=y", "HOME=/root", "PATH=/bin"]


def test_mount_options_reach_the_kernel(box: Box) -> None:
    os.mkdir(f"{box.base}/source")
    box.mount("/b", "bind", "rbind", "ro", "nosuid", "nodev", "noexec", "noatime", source=f"{box.base}/source")
    box.mount("/t", "tmpfs", "nosuid", "noexec", "size=64k", "mode=1770", "nosymfollow", "strictatime")
    box.mount("/r", "tmpfs", "ro")
    text = box.sh(
        "grep -E ' /(b|t|r) ' /proc/self/mountinfo; stat -c %a /t; ! touch /b/x; ! touch /r/x; touch /t/x"
    ).out
    lines = {line.split()[4]: line.split()[5].split(",") for line in text.splitlines() if " - " in line}
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= set(lines["/b"])
    assert {"rw", "nosuid", "noexec", "nosymfollow"} <= set(lines["/t"])
    assert "ro" in lines["/r"]
    assert "1770" in text


def test_a_recursive_attribute_reaches_what_is_mounted_below(box: Box) -> None:
    source = f"{box.base}/source"
    os.makedirs(f"{source}/inner")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{source}/inner"], check=True)
    try:
        box.mount("/top", "bind", "rbind", "ro", source=source)
        box.mount("/all", "bind", "rbind", "rro", source=source)
        done = box.sh("touch /top/inner/yes; touch /all/inner/no; ls /top/inner")
        assert done.out.split() == ["yes"]
        assert "/all/inner/no: Read-only file system" in done.err
    finally:
        subprocess.run(["umount", "-l", f"{source}/inner"], check=True)


def test_tmpcopyup_fills_the_tmpfs_with_what_it_hides(box: Box) -> None:
    Path(box.rootfs, "etc/sub").mkdir()
    Path(box.rootfs, "etc/sub/file").write_text("kept")
    os.chown(f"{box.rootfs}/etc/sub/file", 5, 6)
    box.mount("/etc", "tmpfs", "tmpcopyup", "nodev")
    done = box.sh("cat /etc/sub/file; stat -c ' %u:%g' /etc/sub/file; touch /etc/new")
    assert done.out == "kept 5:6\n"
    assert not os.path.exists(f"{box.rootfs}/etc/new")


def test_masked_and_read_only_paths(box: Box) -> None:
    Path(box.rootfs, "secret").write_text("hidden")
    os.mkdir(f"{box.rootfs}/hidden")
    Path(box.rootfs, "hidden/file").write_text("hidden")
    os.mkdir(f"{box.rootfs}/fixed")
    box.linux["maskedPaths"] = ["/secret", "/hidden", "/absent", "/proc/keys"]
    box.linux["readonlyPaths"] = ["/fixed", "/proc/sys", "/absent"]
    done = box.sh(
        "wc -c < /secret; ls /hidden; ! touch /hidden/x; ! touch /fixed/x; wc -c < /proc/keys; cat /proc/mounts"
    )
    assert done.out.split("\n")[0].strip() == "0"
    assert done.out.split("\n")[1].strip() == "0"
    assert done.err.count("Read-only file system") == 2
    assert re.search(r" /proc/sys proc ro,", done.out)


def test_read_only_root(box: Box) -> None:
    box.spec["root"]["readonly"] = True
    done = box.sh("! touch /x && touch /dev/x")
    assert done.status == 0, done.err
    assert "Read-only file system" in done.err


def test_devices_are_exactly_the_default_ones_and_those_asked_for(box: Box) -> None:
    box.linux["devices"] = [
        {"type": "c", "path": "/dev/net/tun", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 5, "gid": 6},
        {"type": "p", "path": "/dev/pipe", "fileMode": 0o644},
    ]
    done = box.sh("cd /dev; find . -type c -o -type b -o -type p -o -type l | sort; stat -c '%u:%g %a %t:%T' net/tun")
    names = done.out.split()
    wanted = "./null ./zero ./full ./random ./urandom ./tty ./fd ./stdin ./stdout ./stderr ./ptmx ./net/tun ./pipe"
    assert {name for name in names if name.startswith("./") and "pts/" not in name} - {"./core"} == set(wanted.split())
    assert done.out.endswith("5:6 600 a:c8\n")


def test_terminal(box: Box, console: tuple[int, Callable[[], int]]) -> None:
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 24, "width": 97}
    container = box.create(
        "sh", "-c", "stty size; tty; test -c /dev/console && echo console", console_socket=console[0]
    )
    terminal = console[1]()
    try:
        container.start()
        text = b""
        while select.select([terminal], [], [], 5)[0]:
            try:
                text += os.read(terminal, 4096)
            except OSError:  # EIO: the last holder of the other end has gone
                break
        assert container.wait() == 0
        assert text.split() == [b"24", b"97", b"/dev/pts/0", b"console"]
    finally:
        os.close(terminal)


def test_a_terminal_needs_somebody_to_have_it(box: Box) -> None:
    box.process["terminal"] = True
    assert "a console socket is needed" in box.fails("true")


def test_sysctls_of_the_containers_namespaces(box: Box) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678"}
    done = box.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax")
    assert done.out.split() == ["1", "12345678"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


@pytest.mark.parametrize(("key", "value"), [("kernel.core_pattern", "x"), ("vm.swappiness", "1"), ("net.x", "1\n2")])
def test_other_sysctls_are_refused(box: Box, key: str, value: str) -> None:
    box.linux["sysctl"] = {key: value}
    assert "linux.sysctl" in box.fails("true")


@pytest.mark.host
def test_cgroup_mounts_show_the_containers_own(box: Box) -> None:
    if not any(namespace["type"] == "cgroup" for namespace in box.linux["namespaces"]):  # on v2 it is a default
        box.linux["namespaces"].append({"type": "cgroup"})
    box.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
    done = box.sh("cat /proc/self/cgroup; find /sys/fs/cgroup -name cgroup.procs -maxdepth 2; ! mkdir /sys/fs/cgroup/x")
    assert all(line.endswith(":/") for line in done.out.splitlines() if ":" in line)
    assert "cgroup.procs" in done.out
    assert done.status == 0


def test_time_offsets(box: Box) -> None:
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}}
    up = float(box.run("cat", "/proc/uptime").out.split()[0])
    assert 1_000_000 <= up - float(Path("/proc/uptime").read_text().split()[0]) + 5 < 1_000_020


def test_a_network_device_moves_with_its_address(box: Box) -> None:
    script = "ip link add hutchnd0 type veth peer name hutchnd1 && ip addr add 198.18.7.1/24 dev hutchnd0"
    subprocess.run(["sh", "-c", script], check=True)
    try:
        box.linux["netDevices"] = {"hutchnd0": {"name": "inner0"}}
        done = box.sh("ip addr show inner0")
    finally:
        subprocess.run(["ip", "link", "del", "hutchnd1"], check=False, stderr=subprocess.DEVNULL)
    assert "198.18.7.1/24" in done.out
    assert ",UP" in done.out


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="the kernel is built without NUMA")
@pytest.mark.parametrize(
    ("mode", "flags", "shown"),
    [
        ("MPOL_BIND", [], "bind:0"),
        ("MPOL_INTERLEAVE", ["MPOL_F_STATIC_NODES"], "interleave=static:0"),
        ("MPOL_PREFERRED", [], "prefer:0"),
    ],
)
def test_memory_comes_from_the_nodes_asked_for(box: Box, mode: str, flags: list[str], shown: str) -> None:
    box.linux["memoryPolicy"] = {"mode": mode, "nodes": "0", "flags": flags}
    done = box.run("cat", "/proc/self/numa_maps")
    assert {line.split()[1] for line in done.out.splitlines()} <= {shown, "default"}
    assert f" {shown} " in done.out


def test_a_node_that_is_not_there_is_the_kernels_error(box: Box) -> None:
    box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "1000-1001"}
    assert "MPOL_BIND 1000-1001: invalid argument" in box.fails("true")


@pytest.mark.parametrize("step", [1, 12, 40])
def test_an_interrupt_while_explaining_leaves_nothing(box: Box, step: int) -> None:
    told: list[str] = []

    def explain(actor: str, step_told: Step) -> None:
        told.append(f"{actor} {step_told.title}")
        if len(told) == step:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        box.create("true", explain=explain)
    assert time.monotonic() - started < 10
    assert os.listdir(box.state_dir) == []


def test_an_explained_creation_is_what_a_plan_lists(box: Box) -> None:
    from hutch.runtime.plan import make_plan

    told: list[tuple[str, str]] = []
    box.create("true", explain=lambda actor, step: told.append((actor, step.describe())))
    spec: Any = box.spec
    plan = make_plan(spec, bundle=box.bundle.path, container_id="box0", privileged=True)
    listed = [(actor, step.describe()) for actor, step in plan.steps()]
    rest = iter(told)  # the writes into cgroups come in between, as they are made
    assert [entry for entry in listed if entry not in rest] == []
    assert all(text for _, text in told)


def test_the_configuration_is_refused_before_anything_is_made(box: Box) -> None:
    box.process["cwd"] = "relative"
    with pytest.raises(InvalidConfig, match="process.cwd"):
        box.create("true")
    assert os.listdir(box.state_dir) == []


@pytest.mark.parametrize("kind", ["apparmorProfile", "selinuxLabel"])
def test_c15_a_label_the_host_cannot_set_is_refused(box: Box, kind: str) -> None:
    from tests.support.host import missing

    if not missing(("apparmor" if kind == "apparmorProfile" else "selinux",)):
        pytest.skip("this host has the security module")
    box.process[kind] = "some_label"
    assert "this host has no" in box.fails("true")


def test_lo_is_up_in_a_new_network_namespace(box: Box) -> None:
    done = box.sh("ip addr show lo")
    assert "UP,LOOPBACK" in done.out.replace("LOOPBACK,UP", "UP,LOOPBACK")
    assert "127.0.0.1/8" in done.out
