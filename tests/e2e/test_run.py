"""`hutch run` on a real image, as root: what the user sees, and that nothing stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from hutch.engine.engine import Engine
from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import wait_until
from tests.support.registries import Registry

pytestmark = requires("root")


class Runner:
    """`hutch run` with a private root, a private cgroup and busybox."""

    def __init__(self, cli: Cli, cgroup: str, image: str) -> None:
        self.cli, self.cgroup, self.image = cli, cgroup, image

    def argv(self, *flags: str, image: str = "") -> list[str]:
        return ["run", "--cgroup-parent", self.cgroup, *flags, image or self.image]

    def __call__(self, *command: str, flags: tuple[str, ...] = (), image: str = "", status: int | None = 0, **more):
        done = self.cli(*self.argv("--rm", *flags, image=image), *command, check=False, **more)
        assert status is None or done.returncode == status, (done.stdout, done.stderr)
        return done


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker", "HUTCH_CONFIG": "/nonexistent"})


@pytest.fixture
def run(hutch: Cli, cgroup_parent: str, registry: Registry, busybox_image: Image) -> Runner:
    name = busybox_image.push(registry, "run/busybox:latest")
    hutch("pull", "-q", name)
    return Runner(hutch, cgroup_parent, name)


def test_a_command_and_its_output(run):
    done = run("echo", "hi")
    assert (done.stdout, done.stderr) == ("hi\n", "")


def test_an_image_that_is_missing_is_pulled(hutch, cgroup_parent, registry, busybox_image):
    name = busybox_image.push(registry, "run/missing:latest")
    runner = Runner(hutch, cgroup_parent, name)
    assert run_fails(runner, "--pull=never") != 0
    done = runner("echo", "pulled")
    assert done.stdout == "pulled\n"
    assert "Unable to find image" in done.stderr
    assert runner("echo", "here", flags=("--pull=never",)).stderr == ""


def hutch_argv(cli: Cli, *arguments: str) -> list[str]:
    return [*cli.words, *arguments]


def run_fails(runner, *flags):
    return runner.cli(*runner.argv("--rm", *flags), "true", check=False).returncode


def test_stdin_goes_in_only_with_interactive(run):
    assert run("cat", flags=("-i",), stdin="in\n").stdout == "in\n"
    assert run("cat", stdin="in\n").stdout == ""


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["sh", "-c", "exit 42"], 42, ""),
        (["nosuchprogram"], 127, 'exec: "nosuchprogram": executable file not found in $PATH'),
        (["/nosuch/path"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "permission denied"),
    ],
)
def test_exit_statuses(run, command, status, message):
    assert message in run(*command, status=status).stderr


def test_a_signal_death_is_128_and_its_number(run):
    run("sh", "-c", "sleep 9 & kill -9 $!; wait $!", status=137)


@pytest.mark.parametrize("flag", ["--nosuch", "-Z", "--memory=3x", "--network=bridge", "-p=80:80"])
def test_wrong_flags_are_125(run, flag):
    done = run("true", flags=(flag,), status=125)
    assert done.stderr.startswith("hutch: ")


def test_an_unknown_image_is_125(run, registry):
    run("true", image=f"{registry.host}/no/such:image", status=125)


def test_image_settings_are_honoured(run):
    assert run("sh", "-c", "id; pwd; echo $HOME", flags=("-u", "app")).stdout.splitlines() == [
        "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)", "/", "/home/app",
    ]  # fmt: skip
    assert run("sh", "-c", "pwd; ls -ld .", flags=("-w", "/made/for/me")).stdout.startswith("/made/for/me\ndrwxr-xr-x")
    assert run("-c", "echo via", flags=("--entrypoint", "sh")).stdout == "via\n"
    assert run("env", flags=("-e", "A=b c", "-h", "box")).stdout.splitlines()[1:] == [
        "HOSTNAME=box",
        "A=b c",
        "HOME=/root",
    ]


def test_the_default_posture_inside(run):
    status = dict(line.split(":\t") for line in run("cat", "/proc/self/status").stdout.splitlines() if ":\t" in line)
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert status["CapEff"] == status["CapBnd"] == "00000000800405fb"
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")
    user = run("cat", "/proc/self/status", flags=("-u", "1000")).stdout
    assert "NoNewPrivs:\t1" in user
    assert "CapEff:\t0000000000000000" in user
    assert run("sh", "-c", "ulimit -c; ulimit -n; umask").stdout.split() == ["0", "1024", "0022"]
    assert run("sh", "-c", "ls -A /proc/scsi /sys/firmware /proc/acpi 2>&1 | grep -v :").stdout.strip() == ""
    assert run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").stdout == "0\n"
    assert run("sh", "-c", "readlink /proc/1/exe; echo x > /proc/sys/kernel/domainname", status=1).stderr


def test_b03_nothing_but_stdio_is_open(run):
    assert run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]


def test_c02_capabilities_of_a_user_and_of_root(run):
    shown = run("grep", "Cap", "/proc/self/status", flags=("-u", "1000", "--cap-add", "NET_ADMIN")).stdout
    assert shown.count("0000000000000000") == 4


def test_c04_groups_inside_are_exact(run):
    done = run("grep", "Groups", "/proc/self/status", flags=("-u", "app", "--group-add", "77"))
    assert done.stdout.split() == ["Groups:", "77", "1000", "2000"]
    run("sh", "-c", "touch /tmp/f; chgrp 1000 /tmp/f; chmod 604 /tmp/f")


def test_a14_an_image_volume_is_filled_from_the_image_alone(run, hutch, registry, tmp_path):
    from tests.support.evil import EvilImage, Layer

    layer = (
        Layer().directory("bin").file("bin/busybox", busybox(), mode=0o755).symlink("bin/cat", "busybox")
        .symlink("bin/ls", "busybox").directory("etc").file("etc/own", b"image's own\n", mode=0o640, uid=5)
        .symlink("out", "/etc")
    )  # fmt: skip
    image = EvilImage([layer], config={"Volumes": {"/../../etc": {}, "/out": {}}, "Cmd": ["ls"]})
    name = image.push(registry, "evil/volume:1")
    hutch("pull", "-q", name)
    assert run("ls", "-A", "/etc", image=name).stdout.split() == ["hostname", "hosts", "own", "resolv.conf"]
    assert run("cat", "/etc/own", image=name).stdout == "image's own\n"
    assert os.listdir(f"{hutch_root(hutch)}/volumes") == []


def busybox() -> bytes:
    with open("/bin/busybox", "rb") as file:
        return file.read()


def hutch_root(cli: Cli) -> str:
    return cli.words[cli.words.index("--root") + 1]


def test_a15_a_working_directory_through_a_link_stays_inside(run, hutch, registry, tmp_path):
    from tests.support.evil import EvilImage, Layer

    canary = tmp_path / "canary"
    canary.mkdir()
    layer = (
        Layer().directory("bin").file("bin/busybox", busybox(), mode=0o755).symlink("bin/pwd", "busybox")
        .symlink("place", str(canary)).symlink("etc", str(canary))
    )  # fmt: skip
    image = EvilImage([layer], config={"WorkingDir": "/place/deep/er", "Cmd": ["pwd"]})
    name = image.push(registry, "evil/workdir:1")
    hutch("pull", "-q", name)
    assert run("pwd", image=name).stdout == f"{canary}/deep/er\n"
    assert list(canary.iterdir()) == []


def test_a17_the_engines_files_do_not_follow_the_images_links(run, hutch, registry, tmp_path):
    from tests.support.evil import EvilImage, Layer

    canary = tmp_path / "canary"
    canary.mkdir()
    layer = (
        Layer()
        .directory("bin")
        .file("bin/busybox", busybox(), mode=0o755)
        .symlink("bin/cat", "busybox")
        .directory("etc")
    )
    for target in ("hosts", "resolv.conf", "hostname", "mtab"):
        layer.symlink(f"etc/{target}", f"{canary}/{target}")
    name = EvilImage([layer], config={"Cmd": ["cat"]}).push(registry, "evil/links:1")
    hutch("pull", "-q", name)
    assert "127.0.0.1\tlocalhost" in run("cat", "/etc/hosts", image=name).stdout
    assert list(canary.iterdir()) == []


def test_a18_a_volume_with_content_is_never_filled_again(run, hutch):
    run("sh", "-c", "echo mine > /etc/shells; ln -s /etc/passwd /etc/planted", flags=("-v", "data:/etc"))
    shown = run("sh", "-c", "cat /etc/shells; ls /etc", flags=("-v", "data:/etc")).stdout
    assert shown.startswith("mine\n")
    assert "planted" in shown
    assert os.listdir(f"{hutch_root(hutch)}/volumes") == ["data"]


def test_binds_tmpfs_and_read_only(run, tmp_path):
    (tmp_path / "f").write_text("host\n")
    assert run("cat", "/x/f", flags=("-v", f"{tmp_path}:/x:ro")).stdout == "host\n"
    assert "Read-only file system" in run("touch", "/x/g", flags=("-v", f"{tmp_path}:/x:ro"), status=1).stderr
    run("sh", "-c", "echo in > /x/g", flags=("--mount", f"type=bind,src={tmp_path},dst=/x"))
    assert (tmp_path / "g").read_text() == "in\n"
    assert "Read-only" in run("touch", "/y", flags=("--read-only",), status=1).stderr
    options = run("grep", " /t ", "/proc/mounts", flags=("--tmpfs", "/t:size=1m,mode=700")).stdout
    assert "size=1024k" in options and "nosuid,nodev,noexec" in options
    shown = run("grep", " /x ", "/proc/mounts", flags=("-v", f"{tmp_path}:/x")).stdout
    assert "nosuid,nodev" in shown
    missing = ("--mount", f"type=bind,src={tmp_path}/none,dst=/x")
    assert "bind source path does not exist" in run("true", flags=missing, status=125).stderr


def test_a_memory_hog_dies_at_its_limit_and_that_is_recorded(run, hutch):
    hog = ["sh", "-c", "head -c 200m /dev/zero | tail"]
    done = hutch(*run.argv("--name", "hog", "-m", "24m"), *hog, check=False)
    assert done.returncode == 137
    record = Engine(hutch_root(hutch)).containers.find("hog").record
    assert (record.oom_killed, record.exit_code) == (True, 137)
    assert "Exited (137)" in hutch("ps", "-a").stdout
    hutch("rm", "hog")


def container_id(hutch, name):
    return Engine(hutch_root(hutch)).containers.find(name).record.id


def test_c17_limits_are_in_force_inside(run):
    flags = ("-m", "64m", "--pids-limit", "77", "--cpus", "0.5")
    shown = run("sh", "-c", "cat /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/*/memory.limit_in_bytes "
                "/sys/fs/cgroup/pids.max "
                "/sys/fs/cgroup/memory.max 2>/dev/null; true", flags=flags).stdout.split()  # fmt: skip
    assert {"77", str(64 << 20)} <= set(shown)


def test_a_fork_bomb_meets_the_limit(run):
    bomb = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done"
    done = run("sh", "-c", bomb, flags=("--pids-limit", "12"), status=None)
    assert "can't fork" in done.stderr


def test_two_web_servers_on_one_port(run, hutch):
    serve = "echo $1 > /tmp/index.html; httpd -p 80 -h /tmp; echo up; sleep 60"
    ask = "wget -qO- http://127.0.0.1:80/"
    started = []
    try:
        for name in ("one", "two"):
            argv = hutch_argv(hutch, *run.argv("--rm", "--name", name), "sh", "-c", serve, "sh", name)
            started.append(subprocess.Popen(argv, env=hutch.env, stdout=subprocess.PIPE, text=True))
        for process, name in zip(started, ("one", "two"), strict=True):
            assert process.stdout.readline() == "up\n"
            found = run("sh", "-c", ask, flags=("--network", f"container:{name}"))
            assert found.stdout == f"{name}\n"
        assert sorted(hutch("ps", "--format", "{{.Names}}").stdout.split()) == ["one", "two"]
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL if process.poll() is None else 0)
            process.wait()
            process.stdout.close()
        hutch("rm", "-f", "one", "two")
    wait_until(lambda: hutch("ps", "-aq").stdout == "", 10)


def test_signals_reach_the_container(run, hutch):
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    argv = hutch_argv(hutch, *run.argv("--rm"), "sh", "-c", script)
    with subprocess.Popen(argv, env=hutch.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
        assert process.wait(10) == 9


@pytest.mark.parametrize("keep", [False, True])
def test_a_container_goes_on_without_the_hutch_that_started_it(run, hutch, keep):
    flags = ("--name", "orphan") if keep else ("--rm", "--name", "orphan")
    argv = hutch_argv(hutch, *run.argv(*flags), "sh", "-c", "echo ready; sleep 60")
    with subprocess.Popen(argv, env=hutch.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert hutch("exec", "orphan", "echo", "alive").stdout == "alive\n"
    assert "Up " in hutch("ps").stdout
    hutch("kill", "orphan")
    if keep:
        wait_until(lambda: "Exited (137)" in hutch("ps", "-a").stdout, 10)
        hutch("rm", "orphan")
    wait_until(lambda: hutch("ps", "-aq").stdout == "", 10)


def test_names_are_taken_once_and_removed_containers_free_them(run, hutch):
    hutch(*run.argv("--name", "taken"), "true")
    done = run("true", flags=("--name", "taken"), status=125)
    assert 'the container name "taken" is already in use by container' in done.stderr
    assert hutch("ps", "-aq", "--no-trunc").stdout.strip() == container_id(hutch, "taken")
    assert hutch("rm", container_id(hutch, "taken")[:6]).returncode == 0
    assert "no such container: taken" in hutch.fails("rm", "taken")
    run("true", flags=("--name", "taken"))


def test_rm_refuses_what_runs_and_force_kills_it(run, hutch):
    argv = hutch_argv(hutch, *run.argv("--name", "busy"), "sh", "-c", "echo ready; sleep 60")
    with subprocess.Popen(argv, env=hutch.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert "container is running" in hutch.fails("rm", "busy")
        start = time.monotonic()
        hutch("rm", "-f", "busy")
        assert time.monotonic() - start < 5
        assert process.wait(10) == 137


def test_cidfile(run, tmp_path):
    path = tmp_path / "cid"
    run("true", flags=("--cidfile", str(path)))
    assert len(path.read_text()) == 64
    assert "container ID file found" in run("true", flags=("--cidfile", str(path)), status=125).stderr


def test_a_terminal(run, hutch, tmp_path):
    argv = hutch_argv(hutch, *run.argv("--rm", "-it"), "sh", "-c", "tty; stty size; read line; echo got $line")
    output = tmp_path / "out"
    done = subprocess.run(
        ["script", "-qec", "stty rows 33 cols 99; " + " ".join(map(quoted, argv)), str(output)],
        env={**hutch.env, "SHELL": "/bin/sh"}, input="hello\n", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "/dev/pts/0" in done.stdout
    assert "33 99" in done.stdout
    assert "got hello" in done.stdout
    assert "the input device is not a TTY" in run("true", flags=("-it",), stdin="x", status=125).stderr


def quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_explain_tells_the_steps_and_a_dry_run_takes_none(run, hutch):
    done = run("echo", "hi", flags=("--explain",))
    assert done.stdout == "hi\n"
    for word in ("unshare(CLONE_NEWNS", "pivot_root", "set cgroup limits", "seccomp(", "fsopen"):
        assert word in done.stderr, word
    dry = run("echo", "hi", flags=("--dry-run", "--explain"))
    assert dry.stdout == ""
    assert steps_told(dry.stderr) == steps_told(done.stderr)
    assert hutch("ps", "-aq").stdout == ""


def test_a_reader_of_the_explanation_may_leave(run, hutch):
    words = [*hutch.words, *run.argv("--rm", "--explain"), "echo", "hi"]
    with subprocess.Popen(words, env=hutch.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert b"  1 parent" in running.stderr.readline()
        running.stderr.close()
        assert running.stdout is not None
        assert running.stdout.read() == b"hi\n"
        assert running.wait(60) == 0
    assert hutch("ps", "-aq").stdout == ""


def test_explain_shows_the_values_that_cgroup_files_got(run):
    script = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory.max "
    script += "/sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
    done = run("sh", "-c", script, flags=("--explain", "-m", "48m", "--pids-limit", "77"))
    told = dict(re.findall(r'write\("[^"]*/(pids\.max|memory\.max|memory\.limit_in_bytes)", \'(\d+)\'\)', done.stderr))
    assert sorted(told.values()) == sorted(done.stdout.split()) == ["50331648", "77"]
    (path,) = set(re.findall(r"""write\("(\S+)", '77'\)""", done.stderr))
    assert run.cgroup in path
    assert f'mkdir("{os.path.dirname(path)}")\n' in done.stderr


def steps_told(text):
    """(who, what) of each step, without the container's id."""
    lines = [re.sub("[0-9a-f]{64}", "ID", line[4:]) for line in text.splitlines() if line[:3].strip().isdigit()]
    return [line for line in lines if not line.startswith("parent")]


def test_rootfs_and_its_overlay(run, tmp_path):
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(busybox())
    (tree / "bin/busybox").chmod(0o755)
    (tree / "bin/sh").symlink_to("busybox")
    done = run.cli(
        "run", "--rm", "--cgroup-parent", run.cgroup, "--rootfs", f"{tree}:O", "/bin/sh", "-c", "echo > /made; echo ok"
    )
    assert done.stdout == "ok\n"
    assert not (tree / "made").exists()
    run.cli("run", "--rm", "--cgroup-parent", run.cgroup, "--rootfs", str(tree), "/bin/sh", "-c", "echo kept > /made")
    assert (tree / "made").read_text() == "kept\n"


def test_the_running_system_under_an_overlay(run):
    done = run("sh", "-c", "touch /hutch-was-here; ls /hutch-was-here; cat /etc/os-release | head -1", image="@host")
    assert done.stdout.startswith("/hutch-was-here\n")
    assert not os.path.exists("/hutch-was-here")


def test_an_env_file_that_cannot_be_read(run):
    assert (
        "open /nonexistent: no such file or directory"
        in run("true", flags=("--env-file", "/nonexistent"), status=125).stderr
    )


def test_a_limit_the_host_cannot_set(run):
    run("true", flags=("--cpus", "4096"), status=125)
    assert "cpuset" in run("true", flags=("--cpuset-cpus", "60000"), status=125).stderr


def test_devices(run):
    assert "c" in run("sh", "-c", "ls -l /dev/mynull", flags=("--device", "/dev/null:/dev/mynull:r")).stdout[:1]
    assert run("sh", "-c", "echo > /dev/mynull", flags=("--device", "/dev/loop-control:/dev/mynull:r"), status=1).stderr
    assert "not a device node" in run("true", flags=("--device", "/etc/passwd"), status=125).stderr


def test_host_namespaces_and_privileged(run):
    assert run("readlink", "/proc/self/ns/net", flags=("--network=host",)).stdout.strip() == os.readlink(
        "/proc/self/ns/net"
    )
    assert run("readlink", "/proc/self/ns/pid", flags=("--pid=host",)).stdout.strip() == os.readlink(
        "/proc/self/ns/pid"
    )
    assert run("hostname", flags=("--uts=host",)).stdout.strip() == os.uname().nodename
    status = run("cat", "/proc/self/status", flags=("--privileged",)).stdout
    assert "Seccomp:\t0" in status
    assert run("sh", "-c", "mount -t tmpfs none /tmp && echo ok", flags=("--privileged",)).stdout == "ok\n"


def test_profiles_from_the_command_line(run):
    strict = run(
        "sh",
        "-c",
        "grep -E 'CapBnd|NoNew' /proc/self/status; touch /x",
        flags=("--security-opt", "profile=strict"),
        status=1,
    )
    assert "CapBnd:\t0000000000000000" in strict.stdout
    assert "NoNewPrivs:\t1" in strict.stdout
    assert "Read-only" in strict.stderr
    compat = run("grep", "CapBnd", "/proc/self/status", flags=("--security-opt", "profile=compat"))
    assert compat.stdout == "CapBnd:\t00000000a80425fb\n"


def test_init_reaps_and_forwards(run):
    done = run(
        "sh", "-c", "echo $$; readlink /proc/1/exe; (sleep 0.1 &) ; sleep 0.3; ps -o stat,comm", flags=("--init",)
    )
    lines = done.stdout.splitlines()
    assert lines[0] != "1"
    assert not any(line.startswith("Z") for line in lines[2:])
    run("sh", "-c", "exit 7", flags=("--init",), status=7)


def test_c15_a_profile_this_host_does_not_have_is_refused(run, hutch):
    if os.path.exists("/sys/module/apparmor"):
        pytest.skip("this host has AppArmor")
    assert "AppArmor is not enabled" in run("true", flags=("--security-opt", "apparmor=x"), status=125).stderr
    assert hutch("ps", "-aq").stdout == ""


def test_c14_sysctls(run):
    assert run("cat", "/proc/sys/net/ipv4/ip_forward", flags=("--sysctl", "net.ipv4.ip_forward=1")).stdout == "1\n"
    run("true", flags=("--sysctl", "kernel.core_pattern=|/x"), status=125)


def test_help_and_version(hutch):
    assert hutch("--version").stdout.startswith("hutch version ")
    assert "Example:" in hutch("run", "--help").stdout
    for command in ("ps", "rm", "version", "info", "pull", "images"):
        assert "hutch " + command in hutch(command, "--help").stdout
    assert "Snapshotter" in hutch("info").stdout
    assert json.loads(hutch("info", "--format", "json").stdout)["Rootless"] is False


def test_root_has_private_ids_by_default(run, hutch, tmp_path):
    def first(*flags: str) -> int:
        return int(run("cat", "/proc/self/uid_map", flags=flags).stdout.split()[1])

    assert first() >= 0x10000
    assert run("cat", "/proc/self/uid_map").stdout.split()[2] == "65536"
    assert first("--userns=host") == first("--privileged") == first("--network=host") == 0
    run("sh", "-c", "touch /m/made; chown 5:6 /m/made", flags=("-v", f"{tmp_path}:/m"))
    assert (os.stat(tmp_path / "made").st_uid, os.stat(tmp_path / "made").st_gid) == (5, 6)
    assert run("stat", "-c", "%u", "/bin/busybox", "/etc/hosts").stdout.split() == ["0", "0"]
    assert os.listdir(f"{hutch_root(hutch)}/ids") == []
    assert (
        "conflicting options: --network=host and --userns=auto"
        in run("true", flags=("--userns=auto", "--network=host"), status=125).stderr
    )
    assert "cannot map ids" in run("true", flags=("-v", "/proc:/p")).stderr


def test_another_image_as_a_mount(run, hutch):
    mount = ("--mount", f"type=image,src={run.image},dst=/other")
    assert run("cat", "/other/etc/shells", flags=mount).stdout == "/bin/sh\n"
    assert "Read-only" in run("touch", "/other/x", flags=mount, status=1).stderr
    assert run("cat", "/other/etc/shells", flags=(*mount, "--userns=host")).stdout == "/bin/sh\n"
    hutch(*run.argv("--name", "kept", *mount), "true")
    assert len(os.listdir(f"{hutch_root(hutch)}/snapshots")) == 2
    hutch("rm", "kept")
    assert os.listdir(f"{hutch_root(hutch)}/snapshots") == []


@pytest.mark.parametrize("flags", [(), ("--userns=host",), ("-u", "app")])
def test_another_image_as_a_writable_mount(run, hutch, flags):
    mount = ("--mount", f"type=image,src={run.image},dst=/other,rw=true", *flags)
    place = "/other/tmp" if flags[:1] == ("-u",) else "/other/etc"
    script = (
        f"echo made > {place}/made && cat {place}/made && stat -c %u {place}/made && grep -c ' /other ' /proc/mounts"
    )
    assert run("sh", "-c", script, flags=mount).stdout.split() == [
        "made",
        "1000" if flags[:1] == ("-u",) else "0",
        "1",
    ]
    assert "No such file" in run("cat", f"{place}/made", flags=mount, status=1).stderr
    assert os.listdir(f"{hutch_root(hutch)}/snapshots") == []


@pytest.mark.parametrize("flags", [(), ("--userns=host",), ("-u", "app"), ("-u", "app", "--userns=host")])
def test_dev_stdout_can_be_opened_anew(run, hutch, flags):
    """As images do whose programs write their log to a link to it: the pipe is their user's, whatever ids he has."""
    script = "echo out > /dev/stdout; ln -s /dev/stderr /tmp/log; echo err > /tmp/log"
    done = run("sh", "-c", script, flags=flags)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    hutch(*run.argv("-d", "--name", "logger", *flags), "sh", "-c", f"{script}; exec sleep 60")
    done = hutch("exec", "logger", "sh", "-c", script.replace("log", "other"))
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    done = hutch("logs", "logger")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    hutch("rm", "-f", "logger")
