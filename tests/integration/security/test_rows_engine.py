"""Rows A19 to A22, B, C11 to C14, H5 to H10 and X24 where they concern containers that live."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hutch.engine import lifecycle
from hutch.engine.monitor import protocol
from hutch.linux import seqpacket
from tests.integration.security.conftest import Canary, Host, base_layer
from tests.integration.security.lab import Lab, parent
from tests.integration.security.test_faults_kill import EVERY
from tests.support import faults
from tests.support.evil import EvilImage
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root", "program:busybox")

SPOIL = """
for i in etc tmp var home; do rm -rf /$i; ln -s /proc/self/cwd/../../../../../../.. /$i; done
mkdir /tmp2; ln -s /proc/1/root /secret; ln -s ../../../../../.. /up; touch /spoilt; exec sleep 1000
"""


def test_a19_a_root_that_its_container_has_changed_is_met_again_by_restart(lab: Lab, canary: Canary) -> None:
    """Mount points, the working directory and files of the engine's are links by the second start."""
    host = f"{canary.path}/directory"
    flags = ["-w", "/home/work", "-v", f"{host}:/var/data:ro", "--tmpfs", "/tmp/scratch"]
    spoil = f"stat /spoilt && exec sleep 1000; ln -sfn {canary.path} /home/other; {SPOIL}"
    lab.start(*flags, "--userns=host", command=("sh", "-c", spoil))
    wait_until(lambda: lab.cli("exec", "-w", "/", "x", "stat", "/spoilt", check=False).returncode == 0, 10)
    mounts = Path("/proc/self/mountinfo").read_text()
    done = lab.cli("restart", "-t", "0", "x", check=False)
    assert "Traceback" not in done.stderr
    assert Path("/proc/self/mountinfo").read_text() == mounts
    if done.returncode == 0:
        assert lab.cli("exec", "-w", "/", "x", "ls", "/var/data/..", check=False).stdout != os.listdir(canary.path)
    canary.check()
    lab.removed()


def test_a20_exec_where_proc_is_another_file_system(lab: Lab) -> None:
    """What exec must know of the container it asks the host's /proc."""
    fake = "mkdir -p /proc/self/attr /proc/1; echo fake > /proc/self/attr/exec; echo 0 > /proc/self/uid_map"
    hide = f"mount -t tmpfs none /proc && {fake}; touch /hidden; exec sleep 1000"
    lab.start("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", command=("sh", "-c", hide))
    wait_until(lambda: lab.cli("exec", "x", "stat", "/hidden", check=False).returncode == 0, 10)
    assert lab.cli("exec", "x", "cat", "/proc/self/attr/exec").stdout == "fake\n"
    inside = lab.cli("exec", "-u", "7", "x", "id", "-u").stdout
    assert inside == "7\n"
    with subprocess.Popen([*lab.cli.words, "exec", "x", "sleep", "5"], env=lab.cli.env) as process:
        wait_until(lambda: len(lab.cli("top", "x").stdout.splitlines()) == 3, 10)
        same = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in _inside(lab) for kind in ("mnt", "pid", "user")}
        assert len(same) == 3
        process.kill()
    lab.removed()


def _inside(lab: Lab) -> list[int]:
    rows = lab.cli("top", "x", "-o", "pid").stdout.split()[1:]
    return [int(row) for row in rows]


def test_b01_no_program_of_an_exec_can_be_written_to(lab: Lab) -> None:
    look = "while :; do for p in /proc/[0-9]*; do ( : >> $p/exe ) 2>/dev/null && echo $p >> /written; done; done"
    lab.start("--cap-add", "SYS_PTRACE", "--userns=host", command=("sh", "-c", look))
    for _ in range(15):
        lab.cli("exec", "x", "true")
    assert "No such file" in lab.cli("exec", "x", "cat", "/written", check=False).stderr
    for pid in faults.processes(lab.box.roots.state):
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:hutch-python")
    lab.removed()


def test_b03_an_init_and_an_exec_have_three_descriptors_whatever_their_engine_was_started_with(lab: Lab) -> None:
    from hutch.engine.forkserver import client

    client.end(lab.box.roots.state)  # the next one is started by a program with many open files
    opened = [os.open("/etc", os.O_RDONLY) for _ in range(38)]
    lab.create(command=("sh", "-c", "ls /proc/self/fd; exec sleep 1000"))
    try:
        for words in (["start", "x"], ["exec", "x", "ls", "/proc/self/fd"]):
            done = subprocess.run(
                [*lab.cli.words, *words],
                env=lab.cli.env,
                capture_output=True,
                text=True,
                pass_fds=opened,
                timeout=30,
                check=True,
            )
    finally:
        for fd in opened:
            os.close(fd)
    assert done.stdout.split() == ["0", "1", "2", "3"]  # the last is the directory that ls reads
    wait_until(lambda: lab.cli("logs", "x").stdout.split() == ["0", "1", "2", "3"], 5)
    for pid in faults.processes(lab.box.roots.state):
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert "/etc" not in links
    lab.removed()


MESSAGES: list[bytes] = [
    b"",
    b"\0",
    b"{",
    b"{}",
    b'{"op":7}',
    b'{"op":"kill"}',
    b'{"op":"kill","signal":"9"}',
    b'{"op":"kill","signal":1e99}',
    b'{"op":"kill","signal":-1}',
    b'{"op":"stop","timeout":"x"}',
    b'{"op":"exec"}',
    b'{"op":"exec","args":7}',
    b'{"op":"exec","args":["a\\u0000b"]}',
    b'{"op":"exec","args":["true"],"env":["A=\\u0000"]}',
    b'{"op":"exec","args":["true"],"cwd":"\\u0000"}',
    b'{"op":"exec","args":["true"],"user":"\\u0000\\n"}',
    b'{"op":"exec","args":["true"],"size":"x"}',
    b'{"op":"attach","stdin":{}}',
    b'{"op":"capture"}',
    b'{"op":"start"}',
    b'{"op":"start","id":"../../../etc"}',
    b'{"op":"start","id":7}',
    b"[" * 100_000,
    b'{"op":"' + b"x" * 65536 + b'"}',
    b'{"op":"exec","args":["' + b"y" * 150_000 + b'"]}',
    b"\xff" * 4096,
]


def test_b07_h05_messages_that_nobody_sends(lab: Lab) -> None:
    """To the monitor and to the fork server: refused, with nothing started, and they go on."""
    lab.start()
    monitor = parent(lab.record("x").pid)
    resident = _resident(monitor)
    for directory, name in (
        (f"{lab.box.roots.state}/monitors", lab.record("x").id),
        (lab.box.roots.state, "fork-server.sock"),
    ):
        dir_fd = os.open(directory, os.O_RDONLY)
        for message in MESSAGES:
            with seqpacket.connect(dir_fd, name) as channel:
                if message:
                    channel.send(message)
                    channel.send(protocol.RESIZE + b"x")
                    for kind in (protocol.SIGNAL, protocol.STDIN + bytes(60000), b"?", protocol.RELEASE):
                        try:
                            channel.send(kind)
                        except (BrokenPipeError, ConnectionResetError):
                            break
                try:
                    channel.shutdown()
                except OSError:
                    pass
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as large:
            large.connect(f"/proc/self/fd/{dir_fd}/{name}")
            with pytest.raises(OSError, match="[Mm]essage too long"):
                large.send(bytes(64 << 20))
        with seqpacket.connect(dir_fd, name) as channel:  # with more descriptors than anybody asked for
            channel.send(b'{"op":"attach"}', [0] * 200)
        os.close(dir_fd)
    time.sleep(0.5)
    assert lab.status().startswith("Up ")
    assert lab.cli("exec", "x", "true").returncode == 0
    assert _resident(monitor) - resident < 8 << 20
    Path(lab.box.roots.state, "fork-server.log").write_text("")  # which names the malformed ones
    lab.removed()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [64 << 10, 120 << 10, 1 << 20])
def test_b07_long_strings_on_the_command_line(lab: Lab, size: int) -> None:
    """Taken, or refused in one line; execve(2) itself takes no longer word than 128 KiB."""
    lab.start()
    words = ["A=" + "y" * 100_000] * (size // 100_000)
    flags = [word for text in words for word in ("-e", text)]
    long = "x" * min(size, 120 << 10)
    done = lab.cli("exec", *flags, "x", "sh", "-c", "true", long, check=False)
    assert done.returncode == 0 or "too long" in done.stderr or "too large" in done.stderr, done.stderr[-300:]
    done = lab.cli("exec", *flags, "x", "nosuch" + long, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    lab.removed()


@pytest.mark.requires("program:setpriv")
def test_b07_h02_h08_no_other_user_comes_near_the_sockets(lab: Lab) -> None:
    lab.start()
    places = [
        lab.box.roots.state,
        f"{lab.box.roots.state}/monitors",
        lab.box.roots.data,
        f"{lab.box.roots.state}/runtime",
    ]
    for place in places:
        assert stat.S_IMODE(os.stat(place).st_mode) & 0o077 == 0, place
    for top, directories, files in os.walk(lab.box.roots.state):
        for name in (*directories, *files):
            found = os.lstat(os.path.join(top, name))
            assert found.st_uid == 0
    with open("/proc/net/unix", encoding="utf-8") as file:
        assert "@hutch" not in file.read()
    # Even let in by a careless administrator, another user is turned away by who he is.
    os.chmod(lab.box.roots.base, 0o711)
    os.chmod(lab.box.roots.state, 0o711)
    os.chmod(f"{lab.box.roots.state}/monitors", 0o711)
    socket_path = f"{lab.box.roots.state}/monitors/{lab.record('x').id}"
    os.chmod(socket_path, 0o666)
    script = (
        "import os, socket; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.connect('/proc/self/fd/9/{lab.record('x').id}')\n"
        'try:\n    s.send(b\'{"op":"kill","signal":9}\')\n    print(s.recv(100))\n'
        "except OSError as error:\n    print(b'', error)\n"
    )
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip("no python that another user can run")
    words = ["sh", "-c", f'exec 9< {lab.box.roots.state}/monitors; exec "$@"', "sh", python, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout.startswith("b''"), (done.stdout, done.stderr)
    assert lab.status().startswith("Up ")
    os.chmod(lab.box.roots.state, 0o700)
    lab.removed()


def test_b08_what_a_container_types_into_its_terminal_stays_there(lab: Lab) -> None:
    """It has a terminal of its own; that of whoever looks at it is nowhere inside, to push input into it (TIOCSTI)."""
    lab.start()
    master, terminal = pty.openpty()
    try:
        words = [
            *lab.cli.words,
            "exec",
            "-it",
            "x",
            "readlink",
            "/proc/self/fd/0",
        ]
        done = subprocess.run(
            words, env=lab.cli.env, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, timeout=30, check=False
        )
        shown = os.read(master, 4096).decode()
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert "/dev/pts/0" in shown  # its own, of its own devpts; the host's is never inside
    lab.removed()


PREFIXES = "io.hutch hutch com.docker io.containerd containerd.io io.podman io.kubernetes.cri run.oci".split()
RESERVED = {
    name: value
    for prefix in PREFIXES
    for name, value in {
        f"{prefix}.restore": "/etc",
        f"{prefix}.checkpoint": "/x",
        f"{prefix}.privileged": "true",
        f"{prefix}.runtime": "/bin/evil",
        f"{prefix}.status": "running",
        f"{prefix}.auto_remove": "true",
        f"{prefix}.annotations.seccomp": "unconfined",
        f"{prefix}.hooks.stdin": "/bin/evil",
    }.items()
} | {
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.seccomp": "unconfined",
    "io.podman.annotations.checkpoint.name": "x",
    "org.criu.checkpoint.container.name": "x",
    "io.container.manager": "libpod",
    "org.systemd.property.ExecStop": "'/bin/evil'",
    "run.oci.keep_original_groups": "1",
    "run.oci.handler": "krun",
    "PODMAN_SYSTEMD_UNIT": "evil.service",
    "maintainer": "x\n[Service]\nExecStart=/bin/evil",
}


def test_c11_c12_c13_labels_and_unknown_settings_of_an_image_decide_nothing(own_box: Host) -> None:
    """config.json is the same to the byte as that of an image without any."""
    plain = own_box.image("plain")
    odd: dict[str, Any] = {
        "Labels": RESERVED,
        "HostConfig": {"Privileged": True, "Binds": ["/:/host"]},
        "Privileged": True,
        "SecurityOpt": ["seccomp=unconfined"],
        "CapAdd": ["ALL"],
        "NetworkMode": "host",
        "Annotations": RESERVED,
        "Runtime": "evil",
        "Sysctls": {"kernel.core_pattern": "|/x"},
        "RestartPolicy": {"Name": "always"},
        "AutoRemove": True,
        "OnBuild": ["RUN x"],
        "Shell": ["/evil"],
    }
    evil = EvilImage([base_layer()], config=odd, manifest_document={"annotations": RESERVED})
    layout = evil.write_layout(f"{own_box.roots.base}/evil", "evil")
    image_id = own_box.cli("load", "-i", layout).stdout.split()[-1]
    found = []
    for image in (plain, image_id):
        words = [
            "create",
            "--hostname",
            "same",
            "--userns=host",
            "--cgroup-parent",
            own_box.cgroup,
            image,
            "sleep",
            "1",
        ]
        container = own_box.cli(*words).stdout.strip()
        config = Path(own_box.roots.data, "containers", container, "config.json").read_text()
        spec = json.loads(config.replace(container, "ID").replace(container[:12], "ID"))
        found.append(spec)
        inspected = json.loads(own_box.cli("inspect", container).stdout)[0]
        assert inspected["HostConfig"]["Privileged"] is False
        assert inspected["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
        own_box.cli("rm", container)
    assert json.dumps(found[0]) == json.dumps(found[1])
    status = own_box.run(image_id, "cat", "/proc/self/status").stdout
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+[01]$", status, re.MULTILINE)


SYSCTLS = [
    "kernel.core_pattern=|/x",
    "kernel.modprobe=/x",
    "vm.overcommit_memory=1",
    "fs.file-max=1",
    "net.ipv4.ip_forward=1+1",
    "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/x",
    "kernel.shmmax=1 2",
    "../kernel.core_pattern=x",
    "kernel/../x=1",
    "net.ipv4.../../../kernel.core_pattern=x",
    "=1",
    "kernel.shmmax",
    "kernel.shmmax=",
    "kernel.shmmax=" + "1" * 100_000,
]


def test_c14_sysctls_that_are_not_the_containers(own_box: Host) -> None:
    names = ("kernel/core_pattern", "kernel/shmmax", "kernel/shm_rmid_forced", "vm/overcommit_memory", "fs/file-max")
    before = {name: Path("/proc/sys", name).read_text() for name in names}
    image = own_box.image("sysctl")
    for sysctl in SYSCTLS:
        assert len(own_box.run(image, "true", flags=("--sysctl", sysctl), status=125).stderr) < 2000, sysctl[:99]
    assert {name: Path("/proc/sys", name).read_text() for name in before} == before


def test_c14_sysctls_of_a_namespace_that_is_the_hosts(own_box: Host) -> None:
    image = own_box.image("sysctl")
    own_box.mode = "host"
    own_box.run(image, "true", flags=("--network=host", "--sysctl", "net.ipv4.ip_forward=1"), status=125)
    own_box.run(image, "true", flags=("--ipc=host", "--sysctl", "kernel.shmmax=1"), status=125)


SETS = ["1-4294967295", "1000000000", "0-99999999999999999999", ",".join(["0"] * 50_000), "0-", "-1", "a"]


def test_h06_sets_of_processors_of_any_length(own_box: Host) -> None:
    image = own_box.image("cpuset")
    for text in SETS:
        begin = time.monotonic()
        done = own_box.run(image, "true", flags=("--cpuset-cpus", text), status=None)
        assert time.monotonic() - begin < 5
        assert done.returncode == 125 or text.startswith("0,0")
        assert len(done.stderr) < 2000


def test_h07_what_one_is_given_does_not_reach_the_next(lab: Lab) -> None:
    """All come from one fork server, which keeps nothing of a request or of who made it."""
    lines = [
        [
            *lab.cli.words,
            "run",
            "--rm",
            "-e",
            f"MARK=m{number}",
            "-e",
            f"ONLY{number}=1",
            "-w",
            f"/w{number}",
            "--hostname",
            f"h{number}",
            *lab.flags,
            lab.image,
            "sh",
            "-c",
            "cat /proc/self/environ | tr '\\0' ' '; readlink /proc/self/cwd",
        ]
        for number in range(8)
    ]
    running = [
        subprocess.Popen(
            line, env={**lab.cli.env, f"SECRET{number}": "s", "LD_PRELOAD": ""}, stdout=subprocess.PIPE, text=True
        )
        for number, line in enumerate(lines)
    ]
    for number, process in enumerate(running):
        shown, _ = process.communicate(timeout=60)
        assert f"MARK=m{number} " in shown
        assert re.findall(r"ONLY(\d+)=1", shown) == [str(number)]
        assert "SECRET" not in shown
        assert f"/w{number}" in shown
    server = faults.server(lab.box.roots.state)
    assert b"SECRET" not in Path(f"/proc/{server}/environ").read_bytes()
    lab.removed()


def test_h08_links_that_wait_where_the_engine_writes(own_box: Host, canary: Canary) -> None:
    """In its own directories, which nobody else can write to; a link there is followed all the same by nothing."""
    image = own_box.image("links")
    own_box.run(image, "true")
    own_box.cli("rm", "-f", "none", check=False)
    container = own_box.cli("create", "--cgroup-parent", own_box.cgroup, image, "sh", "-c", "echo out").stdout.strip()
    directory = Path(own_box.roots.data, "containers", container)
    for name in (f"{container}-json.log", ".config.json.new", "mounts.json"):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(canary.path / "secret")
    own_box.cli("start", "-a", container, check=False)
    canary.check()
    own_box.cli("rm", "-f", container)
    os.symlink(canary.path, f"{own_box.roots.data}/containers/{'0' * 64}")
    own_box.run(image, "true")
    os.unlink(f"{own_box.roots.data}/containers/{'0' * 64}")


def test_h09_what_is_replaced_is_replaced_as_a_whole(tmp_path: Path) -> None:
    from hutch.engine.containers import write_atomically

    dir_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for data in (b"long" * 1000, b"short", b""):
            write_atomically(dir_fd, "file", data, durable=True)
            assert (tmp_path / "file").read_bytes() == data
        (tmp_path / ".file.new").write_bytes(b"torn by a power cut" * 100)
        write_atomically(dir_fd, "file", b"x", durable=True)
        assert os.listdir(tmp_path) == ["file"]
        assert (tmp_path / "file").read_bytes() == b"x"
    finally:
        os.close(dir_fd)


NAMES = ["..", "../x", "-rf", ".hidden", "a\n", "a\0b", "x" * 10_240, ""]
MORE_NAMES = [".", "/etc/passwd", "a/b", "a\\b", "a b", "ä", "a:b", "a;b", "$(x)", "a%2e%2e", "a\x1b[2J", "*"]


def test_a22_h10_names_that_are_none(lab: Lab, canary: Canary) -> None:
    """Whatever takes a name or an id: refused, or not found; never a path."""
    known = set(os.listdir(f"{lab.box.roots.data}/containers"))
    engine = lab.engine
    for name in [*NAMES, *(MORE_NAMES if EVERY else ())]:
        if "\0" in name or not name:
            with pytest.raises(Exception, match="no such container|invalid"):
                lifecycle.remove(engine, name, force=True)
            continue
        for words in (
            ["create", f"--name={name}", *lab.flags, lab.image, "true"],
            ["rename", "bystander", name],
            ["volume", "create", "--", name],
            ["rm", "-f", "--", name],
            ["stop", "--", name],
            ["exec", "--", name, "true"],
            ["logs", "--", name],
            ["inspect", "--", name],
            ["volume", "rm", "--", name],
            ["create", "-v", f"{name}:/v:ro", "--name=ok-name", "--cgroup-parent", "/../x", lab.image],
            ["cp", f"{name}:/etc", "-"],
            ["rmi", "--", name],
        ):
            done = lab.cli(*words, check=False)
            assert "Traceback" not in done.stderr, (words[:2], name[:20], done.stderr)
            assert "internal error" not in done.stderr, (words[:2], name[:20], done.stderr)
            assert "\x1b" not in done.stderr
            assert len(done.stderr) < 4000
            if words[0] not in ("rm", "stop"):
                assert done.returncode != 0, (words[:2], name[:20])
    assert set(os.listdir(f"{lab.box.roots.data}/containers")) == known
    canary.check()
    lab.removed()


def test_x24_no_timeout_depends_on_the_wall_clock() -> None:
    """Timers of monitors count the time since boot, through suspends; the date is only ever written down."""
    import hutch.engine.monitor as package

    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                assert node.attr in ("clock_gettime", "CLOCK_BOOTTIME", "time_ns"), (path.name, node.lineno, node.attr)
