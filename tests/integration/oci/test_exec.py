"""exec: identity, environment, terminal, cgroup, and what an attacker inside may see of it."""

from __future__ import annotations

import array
import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import oci
from tests.support.host import is_cgroup2, read, requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox")

STATUS = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status"


def fields(text: str) -> dict[str, str]:
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in text.splitlines())}


def run_process(runtime: oci.Runtime, container_id: str, process: dict[str, Any], **options: Any) -> Any:
    path = f"{runtime.root}-process.json"
    Path(path).write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, **process}))
    return runtime("exec", "--process", path, container_id, **options)


def test_status_and_streams(either: oci.Runtime) -> None:
    either.running("box")
    done = either("exec", "box", "sh", "-c", "cat; echo oops >&2; exit 7", input="text\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("text\n", "oops\n", 7)
    assert either("exec", "box", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    assert either.status("box") == "running"


@pytest.mark.host
def test_it_is_inside(either: oci.Runtime) -> None:
    state = either.running("box")
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
    theirs = either("exec", "box", "sh", "-c", f"for i in {' '.join(names)}; do readlink /proc/self/ns/$i; done").stdout
    assert theirs.split() == [os.readlink(f"/proc/{state['pid']}/ns/{name}") for name in names]
    inside = either("exec", "box", "cat", "/proc/self/cgroup").stdout
    # On v2 the default configuration has a cgroup namespace, whose root is the container's cgroup.
    assert inside == ("0::/\n" if is_cgroup2() else Path(f"/proc/{state['pid']}/cgroup").read_text())


def test_flags_change_the_container_s_process(either: oci.Runtime) -> None:
    bundle = either.bundle("box", "sleep", "1000")
    bundle.process["env"] += ["A=1", "B=2"]
    either.create(bundle, "box")
    either("start", "box")
    script = f"pwd; echo $A$B$C; {STATUS}"
    words = ["--cwd", "/tmp", "-e", "B=3", "-e", "C=4", "-u", "7:8", "-g", "9", "-g", "10"]
    done = either("exec", *words, "box", "sh", "-c", script)
    assert done.stdout.splitlines()[:2] == ["/tmp", "134"]
    found = fields(done.stdout)
    assert found["Uid"] == "7 7 7 7"
    assert found["Gid"] == "8 8 8 8"
    assert found["Groups"] in ("9 10", "8 9 10")
    assert found["NoNewPrivs"] == "1"


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="the kernel is built without NUMA")
def test_the_memory_policy_is_the_container_s(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    bundle.spec["linux"]["memoryPolicy"] = {"mode": "MPOL_INTERLEAVE", "nodes": "0"}
    runtime.create(bundle, "box")
    runtime("start", "box")
    assert " interleave:0 " in runtime("exec", "box", "cat", "/proc/self/numa_maps").stdout


def test_process_json(either: oci.Runtime) -> None:
    either.running("box")
    done = run_process(
        either,
        "box",
        {
            "args": ["sh", "-c", f"umask; ulimit -n; {STATUS}"],
            "user": {"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [12]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}],
            "capabilities": {name: ["CAP_KILL"] for name in ("bounding", "permitted", "effective")},
            "noNewPrivileges": True,
        },
    )
    found = fields(done.stdout)
    assert done.stdout.split("\n")[:2] == ["0077", "77"] or either.program == "runc"  # whose Go raises soft limits
    assert found["Uid"].split()[0] == "5"
    assert found["CapBnd"] == f"{1 << 5:016x}"
    assert found["NoNewPrivs"] == "1"
    bad = run_process(either, "box", {"args": []}, check=False)
    assert bad.returncode in (1, 255)


def test_detached_with_a_pid_file(either: oci.Runtime) -> None:
    either.running("box")
    path = f"{either.root}-pid"
    argv = either.argv("exec", "--detach", "--pid-file", path, "box", "sleep", "500")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
    pid = int(Path(path).read_bytes())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00500\x00"
    assert pid in json.loads(either("ps", "-f", "json", "box").stdout)
    end(pid)


def end(pid: int) -> None:
    """Kill and reap a process that became ours: the container's init cannot end before it has been."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, control, _, _ = connection.recvmsg(1000, socket.CMSG_SPACE(4))
        return array.array("i", control[0][2])[0]


@pytest.mark.parametrize("long_path", [False, True])
def test_console_socket(runtime: oci.Runtime, tmp_path: Path, long_path: bool) -> None:
    runtime.running("box")
    directory = tmp_path / ("d" * 100 if long_path else "d")
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(directory, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        listener.listen()
        words = ["--detach", "--tty", "--pid-file", f"{directory}/pid", "--console-socket", f"{directory}/socket"]
        runtime("exec", *words, "box", "sh", "-c", "tty; read x")
        master = receive_terminal(listener)
        os.close(here)
    try:
        assert os.read(master, 100).strip() in (b"/dev/pts/0", b"/dev/pts/1")
    finally:
        os.close(master)
        end(int((directory / "pid").read_text()))


def talk(argv: list[str], *steps: tuple[bytes, bytes], size: tuple[int, int] = (31, 91)) -> tuple[int, str]:
    """Run a program on a terminal: wait for each text, then type the answer; (status, everything it wrote)."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "rows", str(size[0]), "cols", str(size[1])], stdin=theirs, check=True)
    before = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
    output = b""
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        for wanted, answer in steps:
            while wanted not in output:
                output += os.read(ours, 1000)
            os.write(ours, answer)
        status = process.wait(30)
    os.set_blocking(ours, False)
    try:
        while chunk := os.read(ours, 10000):
            output += chunk
    except BlockingIOError:
        pass
    after = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
    os.close(theirs)
    os.close(ours)
    assert after == before, "the caller's terminal was left in another mode"
    return status, output.decode().replace("\r", "")


def test_terminal_in_the_foreground(runtime: oci.Runtime) -> None:
    runtime.running("box")
    script = "stty size; [ -t 0 ] && echo terminal; read x; echo got $x; exit 6"
    status, output = talk(runtime.argv("exec", "-t", "box", "sh", "-c", script), (b"terminal", b"word\n"))
    assert status == 6
    assert output.splitlines()[:2] == ["31 91", "terminal"]
    assert output.splitlines()[-1] == "got word"


def test_run_on_a_terminal(runtime: oci.Runtime) -> None:
    # One long sleep could be started after the signal and outlast the wait for the end.
    wait = "while :; do sleep 1; done"
    bundle = runtime.bundle("term", "sh", "-c", f"trap 'exit 3' INT; stty size; tty; read x; echo got $x; {wait}")
    bundle.process["terminal"] = True
    status, output = talk(
        runtime.argv("run", "--bundle", bundle.write(), "term"), (b"/dev/", b"word\n"), (b"got word", b"\x03")
    )
    assert status == 3
    assert "31 91\n" in output
    assert runtime("list", "-q").stdout == ""


def test_output_larger_than_every_buffer_is_complete(runtime: oci.Runtime) -> None:
    runtime.running("box")
    done = runtime("exec", "-t", "box", "sh", "-c", "stty -opost; seq 100000", input="")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 100001))


def test_paused_and_stopped(either: oci.Runtime) -> None:
    either.running("box")
    either("pause", "box")
    refused = either("exec", "box", "true", check=False)
    assert refused.returncode == 255
    assert "cannot exec in a paused container (use --ignore-paused to override)" in refused.stderr
    with subprocess.Popen(either.argv("exec", "--ignore-paused", "box", "true"), stdin=subprocess.DEVNULL) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        either("resume", "box")
        assert process.wait(20) == 0


def test_cgroup_below_the_container_s(runtime: oci.Runtime) -> None:
    state = runtime.running("box")
    (place,) = {
        line.split(":")[2] for line in read(f"/proc/{state['pid']}/cgroup").splitlines() if ":pids:" in line
    } or {""}
    if not place:
        pytest.skip("no pids controller of version 1")
    os.mkdir(f"/sys/fs/cgroup/pids{place}/sub")
    done = runtime("exec", "--cgroup", "pids:sub", "box", "cat", "/proc/self/cgroup")
    assert f":pids:{place}/sub\n" in done.stdout
    for wrong, message in (
        ("pids:../x", "not a path below"),
        ("pids:none", "no such file"),
        ("foo:sub", "unknown controller"),
    ):
        refused = runtime("exec", "--cgroup", wrong, "box", "true", check=False)
        assert refused.returncode == 255
        assert message in refused.stderr


def test_c07_a_user_is_the_one_that_was_asked_for_or_none(runtime: oci.Runtime) -> None:
    runtime.running("box")
    for user in ("x", "-1", "1:", ":1", "1:x", "01x", "4294967295", "4294967296", "1e3", "0x1", "٣", "1 "):
        done = runtime("exec", f"--user={user}", "box", "id", "-u", check=False)
        assert (user, done.returncode, done.stdout) == (user, 255, "")
        assert "--user" in done.stderr
    for user in ("0", "1", "01", "65534:1", "2147483648", "4294967294:4294967294"):
        uid, _, gid = user.partition(":")
        done = runtime("exec", "--user", user, "box", "sh", "-c", "grep -E '^[UG]id' /proc/self/status")
        assert fields(done.stdout) == {"Uid": " ".join([str(int(uid))] * 4), "Gid": " ".join([str(int(gid or 0))] * 4)}


def test_c01_c02_c03_capabilities_are_what_was_asked_for(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    wanted = ["CAP_KILL", "CAP_CHOWN"]
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), wanted)
    runtime.create(bundle, "box")
    runtime("start", "box")
    own = f"{(1 << 5) | 1:016x}"
    more = f"{(1 << 12) | (1 << 5) | 1:016x}"
    found = fields(runtime("exec", "box", "sh", "-c", STATUS).stdout)
    assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
        "0" * 16,
        own,
        own,
        own,
        "0" * 16,
    ]
    found = fields(runtime("exec", "--cap", "CAP_NET_ADMIN", "box", "sh", "-c", STATUS).stdout)
    assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
        "0" * 16,
        more,
        more,
        more,
        "0" * 16,
    ]
    found = fields(runtime("exec", "--user", "1000", "box", "sh", "-c", STATUS).stdout)
    assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == ["0" * 16] * 4
    assert found["CapBnd"] == own
    refused = runtime("exec", "--cap", "CAP_MADE_UP", "box", "true", check=False)
    assert refused.returncode == 0 or "CAP_MADE_UP" in refused.stderr


def test_seccomp_and_signals_are_the_container_s(runtime: oci.Runtime) -> None:
    for no_new_privileges in (True, False):
        name = f"box{int(no_new_privileges)}"
        bundle = runtime.bundle(name, "sleep", "1000")
        bundle.process["noNewPrivileges"] = no_new_privileges
        bundle.spec["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}],
        }
        runtime.create(bundle, name)
        runtime("start", name)
        done = runtime("exec", name, "sh", "-c", f"{STATUS}; mkdir /tmp/x 2>&1 || true")
        found = fields(done.stdout)
        assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", str(int(no_new_privileges)))
        assert (found["SigIgn"], found["SigBlk"]) == ("0" * 16, "0" * 16)
        assert "Cannot assign requested address" in done.stdout


HOSTILE_DIRECTORIES = (*(f"/proc/self/fd/{fd}" for fd in range(3, 20)), "/proc/1/cwd", "/proc/1/root", "/link")


def test_a16_a_working_directory_cannot_be_the_host_s(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    os.symlink("/proc/self/fd/7", f"{bundle.own_rootfs()}/link")
    runtime.create(bundle, "box")
    runtime("start", "box")
    for cwd in HOSTILE_DIRECTORIES:
        done = runtime("exec", "--cwd", cwd, "box", "pwd", check=False)
        assert (cwd, done.returncode, done.stdout) == (cwd, 255, "")


def test_a16_nor_that_of_run(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "pwd")
    os.symlink("/proc/self/fd/7", f"{bundle.own_rootfs()}/link")
    for cwd in HOSTILE_DIRECTORIES:
        bundle.process["cwd"] = cwd
        done = runtime("run", "--bundle", bundle.write(), "box", check=False)
        assert (cwd, done.returncode, done.stdout) == (cwd, 1, "")


def test_a20_exec_does_not_trust_the_container_s_proc(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    bundle.spec["mounts"] = [
        {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"} if mount["destination"] == "/proc" else mount
        for mount in bundle.spec["mounts"]
    ]
    bundle.spec["linux"]["maskedPaths"] = bundle.spec["linux"]["readonlyPaths"] = []
    done = runtime("create", "--bundle", bundle.write(), "box", check=False)
    if done.returncode:
        assert "/proc" in done.stderr  # refused: as good
        return
    runtime("start", "box")
    path = f"{runtime.root}-pid"
    argv = runtime.argv("exec", "--detach", "--pid-file", path, "box", "sleep", "500")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    pid = int(Path(path).read_text())
    assert "CapInh:\t0000000000000000" in read(f"/proc/{pid}/status")
    end(pid)


def test_b03_only_stdio_is_open(runtime: oci.Runtime) -> None:
    runtime.running("box")
    opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(38)]
    try:
        argv = runtime.argv("exec", "box", "ls", "/proc/self/fd")
        done = subprocess.run(argv, capture_output=True, text=True, check=True, pass_fds=opened, timeout=30)
    finally:
        for fd in opened:
            os.close(fd)
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_preserved_descriptors(runtime: oci.Runtime, tmp_path: Path) -> None:
    runtime.running("box")
    (tmp_path / "x").write_text("content\n")
    argv = ["sh", "-c", f'exec "$@" 3<{tmp_path}/x 4</dev/null', "sh"]
    argv += runtime.argv("exec", "--preserve-fds", "1", "box", "sh", "-c", "cat <&3; ls /proc/self/fd | wc -l")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == ("content\n5\n", "")
    refused = runtime("exec", "--preserve-fds", "9", "box", "true", check=False)
    assert refused.returncode == 255
    assert "cannot be preserved: bad file descriptor" in refused.stderr


STOP_INSIDE = """
import hutch.runtime.exec as e, os
original = e.init.final_steps
def stopping(setup, options):
    *steps, last = original(setup, options)
    def stop_and_go_on(setup):
        os.kill(os.getpid(), 19)
        last.run(setup)
    return [*steps, type(last)(last.title, "", stop_and_go_on)]
e.init.final_steps = stopping
"""


def interpreter_hash() -> str:
    return hashlib.sha256(Path(f"/proc/{os.getpid()}/exe").read_bytes()).hexdigest()


@pytest.mark.parametrize("capabilities", ["docker's", "all"])
def test_b01_b02_the_process_about_to_be_cannot_be_touched_from_inside(runtime: oci.Runtime, capabilities: str) -> None:
    """Stop exec in the container's pid namespace, an instruction before the program, and look at it from there."""
    bundle = runtime.bundle("box", "sleep", "1000")
    if capabilities == "all":
        every = json.loads(runtime("features").stdout)["linux"]["capabilities"]
        bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    runtime.create(bundle, "box")
    runtime("start", "box")
    stopping = oci.launcher(os.path.dirname(runtime.root), "stopping", before=STOP_INSIDE)
    before = interpreter_hash()
    with subprocess.Popen(
        [stopping, "--root", runtime.root, "exec", "box", "true"], stdin=subprocess.DEVNULL
    ) as process:

        def stopped() -> list[int]:
            pids = json.loads(runtime("ps", "-f", "json", "box").stdout)
            return [pid for pid in pids if read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["T"]]

        wait_until(lambda: bool(stopped()), 10)
        (pid,) = stopped()
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:"), "not in a sealed interpreter"
        assert "\nDumpable" not in read(f"/proc/{pid}/status")
        (inner,) = [line.split()[-1] for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("NSpid:")]
        script = (
            f"echo x 2>/dev/null >>/proc/{inner}/exe && echo EXE WRITTEN; "
            f"dd if=/dev/zero of=/proc/{inner}/exe bs=1 count=1 conv=notrunc 2>/dev/null && echo EXE WRITTEN; "
            f"for i in fd/0 fd/1 root cwd exe; do readlink /proc/{inner}/$i && echo $i READ; done; "
            f'[ -z "$(ls /proc/{inner}/map_files)" ] || echo map_files READ; '
            f"cat /proc/{inner}/mem 2>&1 | grep -q 'denied' || echo MEM; true"
        )
        if capabilities == "docker's":
            assert (
                subprocess.run(
                    runtime.argv("exec", "box", "sh", "-c", script), capture_output=True, text=True, check=True
                ).stdout
                == ""
            )
        else:
            # CAP_SYS_PTRACE over the same user namespace sees it all; the program still cannot be changed
            said = subprocess.run(
                runtime.argv("exec", "box", "sh", "-c", script), capture_output=True, text=True, check=True
            ).stdout
            assert "EXE WRITTEN" not in said
        os.kill(pid, signal.SIGCONT)
        assert process.wait(20) == 0
    assert interpreter_hash() == before


def test_b01_create_that_joins_a_pid_namespace_is_sealed_too(runtime: oci.Runtime) -> None:
    state = runtime.running("first")
    bundle = runtime.bundle("second", "sh", "-c", "cat /proc/1/comm; echo $$")
    for entry in bundle.spec["linux"]["namespaces"]:
        if entry["type"] == "pid":
            entry["path"] = f"/proc/{state['pid']}/ns/pid"
    before = """
import os, hutch.runtime.create as c
original = c._Creation.run
def tell(self, options):
    os.write(2, os.readlink("/proc/self/exe").encode())
    original(self, options)
c._Creation.run = tell
"""
    telling = oci.launcher(os.path.dirname(runtime.root), "telling", before=before)
    argv = [telling, "--root", runtime.root, "run", "--bundle", bundle.write(), "second"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr.partition(":")[0]) == (0, "/memfd"), done.stderr
    assert done.stdout.splitlines()[0] == "sleep"
    assert int(done.stdout.splitlines()[1]) > 1


def test_exec_in_a_user_namespace(either: oci.Runtime) -> None:
    bundle = either.bundle("box", "sleep", "1000")
    rootfs = bundle.own_rootfs()
    for path in (rootfs, os.path.dirname(rootfs), os.path.dirname(os.path.dirname(rootfs))):
        os.chmod(path, 0o755)
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
    either.create(bundle, "box")
    either("start", "box")
    done = either("exec", "box", "sh", "-c", f"{STATUS}; cat /proc/self/uid_map; readlink /proc/self/ns/user")
    assert fields(done.stdout)["Uid"] == "0 0 0 0"
    assert done.stdout.splitlines()[-2].split() == ["0", "100000", "65536"]
    assert done.stdout.splitlines()[-1] == os.readlink(f"/proc/{either.state('box')['pid']}/ns/user")
    done = either("exec", "-u", "7:8", "box", "sh", "-c", "id -u; id -g")
    assert done.stdout == "7\n8\n"


def test_b01_the_program_of_a_running_exec_is_not_the_interpreter(runtime: oci.Runtime) -> None:
    """The shebang trick: a script whose interpreter is /proc/self/exe gets a sealed file of ours, not python."""
    bundle = runtime.bundle("box", "sleep", "1000")
    rootfs = bundle.own_rootfs()
    Path(rootfs, "bin/trick").write_text("#!/proc/self/exe\n")
    os.chmod(f"{rootfs}/bin/trick", 0o755)
    runtime.create(bundle, "box")
    runtime("start", "box")
    before = hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest()
    with subprocess.Popen(runtime.argv("exec", "box", "/bin/trick"), stdin=subprocess.DEVNULL) as process:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:  # the image of the last hop goes round in circles, as a script asked it to
            for pid in json.loads(runtime("ps", "-f", "json", "box").stdout):
                assert os.readlink(f"/proc/{pid}/exe").startswith(("/memfd:hutch-init", "/bin/busybox"))
            runtime("kill", "--all", "box", "KILL")
    assert hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest() == before


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 64 << 20])
def test_b07_no_length_overflows_into_another_field(runtime: oci.Runtime, size: int) -> None:
    runtime.running("box")
    done = run_process(runtime, "box", {"args": ["true"], "env": [f"A={'x' * size}"]}, check=False)
    assert done.returncode == (0 if size < (128 << 10) else 255)
    if done.returncode:
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < 2000


@pytest.mark.parametrize(
    "process",
    [{"env": ["A=1\0B=2"]}, {"args": ["true\0"]}, {"cwd": "/\0tmp"}, {"cwd": "relative"}, {"user": {"uid": -1}}],
)
def test_b07_nul_and_nonsense_are_refused(runtime: oci.Runtime, process: dict[str, Any]) -> None:
    runtime.running("box")
    done = run_process(runtime, "box", {"args": ["true"], **process}, check=False)
    assert done.returncode == 255, done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_is_left_when_it_fails(runtime: oci.Runtime) -> None:
    state = runtime.running("box")
    for words in (["nope"], ["--cwd", "/nope", "box", "true"]):
        runtime("exec", *(words if len(words) > 1 else ["box", *words]), check=False)
    failing = oci.launcher(
        os.path.dirname(runtime.root),
        "failing",
        before="import hutch.runtime.exec as e, os\ne.setns = lambda *_: os._exit(9)",
    )
    done = subprocess.run(
        [failing, "--root", runtime.root, "exec", "box", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 255
    assert "the process was killed after PLACE" in done.stderr
    assert json.loads(runtime("ps", "-f", "json", "box").stdout) == [state["pid"]]
