"""`hutch run` and `hutch-oci` on a user's kind of host: systemd, cgroup v2, AppArmor, a stable distribution's kernel.

`make guest` runs these in a virtual machine, as root and as a user with a session. A command takes seconds there, so
each test looks at many things.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from hutch.engine.containers import ContainerRecord
from hutch.engine.engine import Engine
from hutch.runtime.commands.spec import default_spec
from tests.conftest import Roots
from tests.support import files, oci, programs
from tests.support.cli import Cli
from tests.support.engines import end_engine
from tests.support.host import read, requires
from tests.support.images import Image

pytestmark = [pytest.mark.host, requires("cgroup2", "systemd")]

PATIENCE_S = 120  # the guest is emulated
BOMB = "i=0; while [ $i -lt 30 ]; do sleep 3 & i=$((i+1)); done"
ATTR = "/proc/self/attr/current"


def option(cli: Cli, name: str) -> str:
    """The directory that a global option names."""
    return cli.words[cli.words.index(f"--{name}") + 1]


class Runner:
    """`hutch run --rm` of the busybox image with private directories."""

    def __init__(self, cli: Cli, image: str, flags: tuple[str, ...] = ()) -> None:
        self.cli, self.image, self.flags = cli, image, flags

    def __call__(self, script: str, *flags: str, status: int | None = 0, image: str = "", rm: bool = True):
        argv = ["run", *(["--rm"] if rm else []), *self.flags, *flags, image or self.image, "sh", "-c", script]
        done = self.cli(*argv, check=False, timeout_s=PATIENCE_S)
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    def record(self, name: str) -> ContainerRecord:
        return Engine(option(self.cli, "root"), option(self.cli, "state")).containers.find(name).record


@pytest.fixture(scope="module")
def cli(session_dir: str) -> Iterator[Cli]:
    """One store for the module: loading an image takes ten seconds."""
    base = f"{session_dir}/host"
    for path in (base, f"{base}/data", f"{base}/state"):
        os.mkdir(path, 0o700)
    found = Cli(["--root", f"{base}/data", "--state", f"{base}/state"], {"HUTCH_CONFIG": "/nonexistent"})
    yield found
    # What belongs to a user's other ids only hutch can remove.
    found("image", "prune", "--all", "--force", timeout_s=PATIENCE_S)
    files.remove_tree(base)


@pytest.fixture
def hutch(cli: Cli, leaks_nothing: None) -> Iterator[Cli]:
    """hutch, which must have nothing but images afterwards."""
    yield cli
    end_engine(option(cli, "state"))
    for folder in ("containers", "snapshots", "ids"):
        path = f"{option(cli, 'root')}/{folder}"
        assert not os.path.isdir(path) or os.listdir(path) == [], f"left in {folder}"


def load(cli: Cli, image: Image) -> str:
    """The id of the image, loaded."""
    return cli("load", "--quiet", "--input", image.path).stdout.rpartition("sha256:")[2].strip()[:12]


@pytest.fixture(scope="module")
def busybox(cli: Cli, busybox_image: Image) -> str:
    return load(cli, busybox_image)


@pytest.fixture
def run(hutch: Cli, busybox: str, request: pytest.FixtureRequest) -> Runner:
    flags = ("--cgroup-parent", request.getfixturevalue("cgroup_parent")) if os.geteuid() == 0 else ()
    return Runner(hutch, busybox, flags)


def test_limits_hold_and_what_broke_them_is_recorded(run, hutch):
    shown = run(
        "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.oom.group cpu.max cpuset.cpus pids.max; "
        "cat /proc/self/cgroup; touch x",
        *("-m", "64m", "--cpus", "0.5", "--cpuset-cpus", "0", "--pids-limit", "77"),
        status=1,
    )
    assert shown.stdout.split("\n")[:7] == [str(64 << 20), str(64 << 20), "1", "50000 100000", "0", "77", "0::/"]
    assert "Read-only file system" in shown.stderr
    run("head -c 300m /dev/zero | tail", "-m", "32m", "--name", "hog", status=137, rm=False)
    record = run.record("hog")
    assert (record.oom_killed, record.exit_code) == (True, 137)
    hutch("rm", "hog")
    assert "can't fork" in run(BOMB, "--pids-limit", "9", status=None).stderr
    if os.geteuid() != 0:
        told = run("true", "--cgroup-parent", "mine", status=125).stderr
        assert "must be a slice of systemd's" in told
        assert read(f"/sys/fs/cgroup{run('cat /proc/1/cgroup', '--cgroupns=host').stdout[3:].strip()}/pids.max") == ""


def test_without_delegation_a_limit_is_refused(run):
    if os.geteuid() == 0:
        pytest.skip("root needs no delegation")
    run.cli = Cli(run.cli.words[run.cli.words.index("--root") :], {"XDG_RUNTIME_DIR": "/nonexistent"})  # no bus there
    del run.cli.env["DBUS_SESSION_BUS_ADDRESS"]
    assert run("echo fine").stdout == "fine\n"
    for flag in ("-m=64m", "--cpus=1", "--pids-limit=9"):
        told = run("true", flag, status=125).stderr
        assert "this user has no cgroup to set limits in" in told
        assert "hint: " in told
        assert "cannot be reached at /nonexistent/bus" in told
    assert "no cgroup for limits: " in run.cli("info").stdout


def test_ids_files_and_layers(run, hutch, layered_image, tmp_path):
    script = "id -u; cat /proc/self/uid_map; touch /made; stat -c %u:%g /made /bin/busybox /etc/hosts /root"
    lines = run(script).stdout.splitlines()
    assert lines[0] == "0"
    first = lines[1].split()
    assert int(first[1]) >= 0x10000 if os.geteuid() == 0 else first == ["0", str(os.geteuid()), "1"]
    assert lines[-4:] == ["0:0"] * 4
    assert run("id", "-u", "app").stdout == "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n"
    tmp_path.chmod(0o777)
    run("touch /m/x; chown 5:6 /m/x", "-v", f"{tmp_path}:/m")
    inside = 5 if os.geteuid() == 0 else int(lines[2].split()[1]) + 4
    assert os.stat(tmp_path / "x").st_uid == inside
    layered = load(hutch, layered_image)
    script = "cd /data; cat one | head -1; ls -d gone two sticky; readlink dangling; echo new > sub/y; cat sub/y"
    done = run(script, image=layered)
    assert done.stdout.splitlines()[:4] == ["data/one", "sticky", "nowhere", "new"]
    assert "gone: No such file" in done.stderr
    if os.geteuid() == 0:
        for flags in (("--userns=host",), ("--network", "host")):
            assert run("cat /proc/self/uid_map", *flags, image=layered).stdout.split()[1] == "0"
        own = hutch(
            "run", "--rm", *run.flags, "--userns=host", "@host", "sh", "-c", "touch /etc/x && stat -c %u /etc/x"
        )
        assert own.stdout == "0\n"
        assert not os.path.exists("/etc/x")


def test_the_rest_of_a_run(run):
    assert "Read-only file system" in run("touch /x", "--read-only", status=1).stderr
    assert run("tty", "-t").stdout == "/dev/pts/0\r\n"
    assert "eth0" in run("ip link", "--network", "host").stdout
    assert run("ip link | grep -c ^[0-9]").stdout == "1\n"
    hidden = run("cat /proc/interrupts /proc/kallsyms; ls /proc/acpi /sys/firmware", status=None)
    assert hidden.stdout.split() == ["/proc/acpi:", "/sys/firmware:"]
    run("trap 'exit 9' TERM; kill -TERM $$; sleep 9", "--init", status=9)


def test_the_running_system(hutch, run):
    done = hutch(
        "run", "--rm", *run.flags, "@host", "sh", "-c", "hostname; touch /etc/xx && ls -l /etc/xx; ls /proc | head -1"
    )
    assert done.stdout.split()[-1] == "1"
    assert " root root 0 " in done.stdout
    assert not os.path.exists("/etc/xx")


# --- AppArmor ----------------------------------------------------------------------------------------------------


@requires("root", "apparmor", "program:apparmor_parser")
def test_containers_run_under_the_default_profile(run, hutch):
    for flags in (
        (),
        ("-u", "1000", "--userns=host"),
        ("--init",),
        ("--read-only", "--security-opt", "profile=compat"),
    ):
        assert run(f"cat {ATTR} /proc/1/attr/current", *flags).stdout == "hutch-default (enforce)\n" * 2, flags
    off = ("--privileged",), ("--security-opt", "apparmor=unconfined")
    for flags in off:
        assert run(f"cat {ATTR}", *flags).stdout == "unconfined\n"
    assert run("sh -c 'kill -0 1 && cat /proc/1/environ >/dev/null && echo can'").stdout == "can\n"
    assert "AppArmorProfile: hutch-default" in hutch("info").stdout
    stamp = os.stat(f"{option(hutch, 'state')}/apparmor").st_mtime_ns
    run("true")
    assert os.stat(f"{option(hutch, 'state')}/apparmor").st_mtime_ns == stamp


@requires("root", "apparmor", "program:apparmor_parser")
def test_what_capabilities_would_allow_the_profile_denies(run):
    """Every capability, nothing masked, no filter, the host's ids: what is left is the profile."""
    bare = (*("--cap-add", "ALL", "--userns=host", "--security-opt", "seccomp=unconfined"),
            *("--security-opt", "systempaths=unconfined"))  # fmt: skip
    script = """
        mount -t tmpfs none /mnt || mount -t tmpfs none /tmp || echo no mount
        umount /dev/shm || echo no umount
        for f in /proc/sysrq-trigger /proc/sys/kernel/panic /proc/sys/vm/swappiness /proc/sys/kernel/sysrq; do
            (cat $f > /tmp/v 2>/dev/null || echo 0 > /tmp/v; cat /tmp/v > $f) 2>/dev/null || echo no $f
        done
        head -c 1 /proc/kcore > /dev/null 2>&1 || echo no kcore
        cat /proc/sys/kernel/shmmni > /tmp/v; cat /tmp/v > /proc/sys/kernel/shmmni && echo shm
        echo 5 > /proc/self/oom_score_adj && echo own
        ls /sys/firmware/* > /dev/null 2>&1 || echo no firmware
        echo unconfined > /proc/self/attr/current || echo stays
    """
    done = run(script, *bare)
    assert done.stdout.splitlines() == [
        "no mount", "no umount", "no /proc/sysrq-trigger", "no /proc/sys/kernel/panic", "no /proc/sys/vm/swappiness",
        "no /proc/sys/kernel/sysrq", "no kcore", "shm", "own", "no firmware", "stays",
    ]  # fmt: skip
    free = run(
        "mount -t tmpfs none /tmp && umount /dev/shm && echo can", *bare, "--security-opt", "apparmor=unconfined"
    )
    assert free.stdout == "can\n"


@requires("root", "apparmor", "program:apparmor_parser")
def test_an_ordinary_user_gets_a_profile_that_is_named_and_none_by_default(ordinary_user, tmp_root):
    from hutch.engine import apparmor

    apparmor.load(tmp_root.state)
    for flags, expected in (
        ((), "unconfined"),
        (("--security-opt", "apparmor=hutch-default"), "hutch-default (enforce)"),
    ):
        argv = [ordinary_user.hutch, "run", "--rm", *flags, "@host", "cat", ATTR]
        assert ordinary_user.run(argv, timeout_s=PATIENCE_S).stdout == f"{expected}\n"


@requires("apparmor")
def test_c15_a_profile_that_is_not_loaded_is_refused_and_nothing_stays(run, hutch):
    done = run("echo ran", "--security-opt", "apparmor=hutch-no-such", status=125 if os.geteuid() == 0 else None)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "no such profile is loaded" in done.stderr or os.geteuid() != 0
    assert hutch("ps", "-aq").stdout == ""


# --- hutch-oci ---------------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_root: Roots) -> Iterator[oci.Runtime]:
    """Our runtime with systemd's cgroups: the system manager's for root, the user's own otherwise."""
    with oci.runtime(tmp_root.base, "", options=["--systemd-cgroup"]) as found:
        yield found


def cgroup_file(pid: int, name: str) -> str:
    """A file of a process's cgroup."""
    return read(f"/sys/fs/cgroup{oci.cgroup_of(pid)[0]}/{name}").strip()


def test_hutch_oci_with_systemds_cgroups(runtime, tmp_root):
    name = f"hutch-test-{os.getpid()}"
    bundle = runtime.bundle("box", "sleep", "1000")
    bundle.spec["linux"]["cgroupsPath"] = f":hutch-test:{os.getpid()}"
    bundle.spec["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 33}}
    if os.geteuid() != 0:
        mapped = default_spec(rootless=True)
        bundle.spec["mounts"] = [mount for mount in mapped["mounts"] if mount["type"] != "cgroup"]
        bundle.spec["linux"] |= {key: mapped["linux"][key] for key in ("namespaces", "uidMappings", "gidMappings")}
    pid = runtime.create(bundle, "box")["pid"]
    runtime("start", "box")
    manager = [] if os.geteuid() == 0 else ["--user"]
    show = ["systemctl", *manager, "show", "--property=ActiveState,TasksMax,MemoryMax,Delegate", f"{name}.scope"]
    told = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
    assert {"ActiveState=active", "TasksMax=33", f"MemoryMax={64 << 20}", "Delegate=yes"} <= set(told)
    assert oci.cgroup_of(pid)[0].endswith(f"/{name}.scope")
    assert (cgroup_file(pid, "memory.max"), cgroup_file(pid, "pids.max")) == (str(64 << 20), "33")
    runtime("update", "--pids-limit", "44", "box")
    assert cgroup_file(pid, "pids.max") == "44"
    assert runtime("exec", "box", "cat", "/proc/self/cgroup", timeout_s=PATIENCE_S).stdout == "0::/\n"  # the scope
    runtime("pause", "box")
    assert runtime.status("box") == "paused"
    runtime("resume", "box")
    runtime("kill", "box", "KILL")
    programs.wait_until(lambda: runtime.status("box") == "stopped", PATIENCE_S)
    runtime("delete", "box")
    state = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert "ActiveState=inactive" in state


@requires("root", "apparmor", "program:apparmor_parser")
def test_exec_has_the_profile_of_its_container_or_the_one_asked_for(runtime, tmp_root):
    from hutch.engine import apparmor

    apparmor.load(tmp_root.state)
    bundle = runtime.bundle("box", "sleep", "1000")
    bundle.spec["linux"].pop("cgroupsPath", None)
    bundle.process["apparmorProfile"] = apparmor.DEFAULT_PROFILE
    pid = runtime.create(bundle, "box")["pid"]
    runtime("start", "box")
    assert read(f"/proc/{pid}/attr/current") == "hutch-default (enforce)\n"
    assert runtime("exec", "box", "cat", ATTR).stdout == "hutch-default (enforce)\n"
    failed = runtime("exec", "--apparmor", "hutch-no-such", "box", "cat", ATTR, check=False)
    assert failed.returncode != 0
    assert failed.stdout == ""
    runtime("delete", "--force", "box")
    bundle = runtime.bundle("refused", "true")
    bundle.spec["linux"].pop("cgroupsPath", None)
    bundle.process["apparmorProfile"] = "hutch-no-such"
    assert runtime("run", "--bundle", bundle.write(), "refused", check=False).returncode != 0
    assert runtime("list", "-q").stdout == ""
