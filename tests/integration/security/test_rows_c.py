"""Rows C of the security table, and the default posture, seen from inside a running container in both modes."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.security.conftest import Host
from tests.support.evil import Layer, pax_record
from tests.support.host import is_cgroup2, read, requires

pytestmark = requires("root", "program:busybox")

MIB = 1 << 20


def fields(text: str) -> dict[str, str]:
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in text.splitlines())}


@contextlib.contextmanager
def running(box: Host, image: str, *flags: str) -> Iterator[int]:
    """A container that sleeps; yields the host's pid of its process 1."""
    words = box.argv(image, "sh", "-c", "echo up; sleep 60", flags=("--name", "box", *flags))
    with subprocess.Popen(words, env=box.cli.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield box.record("box").pid
        finally:
            box.cli("rm", "-f", "box")
            process.wait(20)


def capability(permitted: int, inheritable: int, *, effective: bool) -> bytes:
    """A security.capability attribute, version 2."""
    return struct.pack("<IIIII", 0x02000000 | effective, permitted, inheritable, 0, 0)


def with_capability(layer: Layer, name: str, data: bytes, value: bytes) -> Layer:
    layer.entry("pax", pax_record("SCHILY.xattr.security.capability", value), typeflag=b"x")
    return layer.file(name, data, mode=0o755)


def busybox() -> bytes:
    return Path(os.path.realpath("/bin/busybox")).read_bytes()


def test_c01_a_file_with_inheritable_capabilities_gains_none(box: Host) -> None:
    every = 0x3FFFFFF
    layer = Layer().directory("i").directory("p")
    with_capability(layer, "i/cat", busybox(), capability(0, every, effective=True))
    with_capability(layer, "p/cat", busybox(), capability(1 << 10, 0, effective=True))
    image = box.image("caps", layer)
    flags = ("-u", "1000", "--security-opt", "no-new-privileges=false")
    found = fields(box.run(image, "/i/cat", "/proc/self/status", flags=flags).stdout)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    # The other half: capabilities of files do count here, so the zeros above are the empty inheritable set's.
    found = fields(box.run(image, "/p/cat", "/proc/self/status", flags=flags).stdout)
    assert found["CapEff"] == f"{1 << 10:016x}"


@pytest.mark.parametrize("flags", [(), ("--cap-add", "NET_ADMIN"), ("--privileged",), ("--init",)])
def test_c01_c02_sets_of_root_and_of_a_user(box: Host, flags: tuple[str, ...]) -> None:
    if "--privileged" in flags and box.mode == "auto":
        pytest.skip("--privileged has no private ids")
    image = box.image("sets")
    found = fields(box.run(image, "cat", "/proc/self/status", flags=flags).stdout)
    assert (found["CapInh"], found["CapAmb"]) == ("0" * 16, "0" * 16)
    assert found["CapEff"] == found["CapBnd"] != "0" * 16
    found = fields(box.run(image, "cat", "/proc/self/status", flags=(*flags, "-u", "1000:1000")).stdout)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_c04_a_group_that_is_denied_stays_denied(box: Host) -> None:
    layer = Layer().directory("etc").file("etc/passwd", b"app:x:1000:1000::/:/bin/sh\n")
    layer.file("etc/group", b"app:x:1000:\nout:x:77:app\n").file("secret", b"secret\n", mode=0o604, gid=77)
    image = box.image("negative", layer)
    assert "denied" in box.run(image, "cat", "/secret", flags=("-u", "app"), status=1).stderr
    assert box.run(image, "cat", "/secret", flags=("-u", "1001")).stdout == "secret\n"
    shown = fields(box.run(image, "cat", "/proc/self/status", flags=("-u", "app", "--group-add", "88")).stdout)
    assert shown["Groups"] == "77 88 1000"


def test_c05_a_user_out_of_range_is_an_error_and_never_root(own_box: Host) -> None:
    plain = own_box.image("user")
    for user in ("2147483648", "4294967295", "4294967296", "-1", "1e3", "０", "0:4294967296", "1000 ", "a\nb"):
        assert own_box.run(plain, "id", "-u", flags=("-u", user), status=125).stdout == ""
    for number, user in enumerate(("2147483648", "4294967296", "０", "a\nb")):
        assert own_box.run(own_box.image(f"user{number}", User=user), "id", "-u", status=125).stdout == ""


def test_c06_a_name_of_digits_in_passwd_is_not_looked_up(box: Host) -> None:
    layer = Layer().directory("etc").file("etc/passwd", b"1000:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n")
    layer.file("etc/group", b"1000:x:0:\n")
    image = box.image("digits", layer, User="1000:1000")
    assert box.run(image, "id").stdout.split()[:2] == ["uid=1000", "gid=1000"]
    assert box.run(image, "id", "-u", flags=("-u", "2147483648"), status=125).stdout == ""


def hostile_passwd(kind: str) -> Layer:
    layer = Layer().directory("etc")
    if kind == "fifo":
        return layer.fifo("etc/passwd").fifo("etc/group")
    if kind == "device":
        return layer.device("etc/passwd", 1, 5).device("etc/group", 1, 5)
    if kind == "link to the host's":
        return layer.symlink("etc/passwd", "/dev/zero").symlink("etc/group", "/proc/kmsg")
    if kind == "one line":
        return layer.file("etc/passwd", b"app:x:0:0::" + b"/" * (2 * MIB)).file("etc/group", b"x" * (2 * MIB))
    return layer.file("etc/passwd", b"app:x:1000:1000::/:/bin/sh\n").file(
        "etc/group", b"".join(b"g%d:x:%d:app\n" % (n, n) for n in range(200_000))
    )


@pytest.mark.parametrize("kind", ["fifo", "device", "link to the host's", "one line", "many groups"])
def test_c08_c09_hostile_passwd_and_group_files_cost_little(own_box: Host, kind: str) -> None:
    image = own_box.image("passwd", hostile_passwd(kind))
    start = time.monotonic()
    done = own_box.run(image, "id", "-u", flags=("-u", "app"), status=125)
    assert time.monotonic() - start < 5
    assert done.stdout == ""
    assert done.stderr.startswith("hutch: ")


NASTY = ["a\nb", "a\x1bb"]


@pytest.mark.parametrize("text", NASTY)
def test_c10_control_characters_do_not_get_into_files_of_lines(own_box: Host, text: str) -> None:
    image = own_box.image("lines")
    for flags in (
        ("--hostname", text),
        ("--domainname", text),
        ("--add-host", f"{text}:127.0.0.1"),
        ("--add-host", f"name:{text}"),
        ("--dns", text),
        ("--dns-search", text),
        ("--dns-option", text),
        ("--name", text),
        ("--user", text),
        ("--cgroup-parent", text),
    ):
        done = own_box.run(image, "true", flags=flags, status=125)
        assert done.stderr.startswith("hutch: ")
        assert "\x1b" not in done.stderr


def limits_of(pid: int) -> dict[str, str]:
    """What the kernel holds the process to, read from outside in the cgroup that it is really in."""
    found = {}
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base = f"/sys/fs/cgroup/{controllers or ('unified' if not is_cgroup2() else '')}{path}"
        for name in ("pids.max", "memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max"):
            if text := read(f"{base}/{name}").strip():
                found[name] = text
    return found


def test_c17_the_process_is_in_its_cgroup_and_its_limits_are_in_force(box: Host) -> None:
    image = box.image("limits")
    with running(box, image, "-m", "64m", "--pids-limit", "77", "--cpus", "0.5") as pid:
        places = {line.split(":", 2)[2] for line in read(f"/proc/{pid}/cgroup").splitlines()}
        assert all(place.startswith(f"{box.cgroup}/") for place in places), places
        found = limits_of(pid)
        mapped = read(f"/proc/{pid}/uid_map").split()
    assert found["pids.max"] == "77"
    assert str(64 * MIB) in (found.get("memory.limit_in_bytes"), found.get("memory.max"))
    assert found.get("cpu.cfs_quota_us", found.get("cpu.max", "")).split()[0] == "50000"
    assert (mapped[1] == "0") == (box.mode == "host")


def test_c17_a_default_container_has_a_limit_of_processes(box: Host) -> None:
    with running(box, box.image("limits")) as pid:
        assert limits_of(pid)["pids.max"] == "4096"


def a_disk() -> tuple[int, int]:
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram")):
            major, minor = read(f"/sys/block/{name}/dev").strip().split(":")
            return int(major), int(minor)
    pytest.skip("this machine has no disk to try")


def test_j04_no_device_but_the_default_ones_opens(box: Host) -> None:
    major, minor = a_disk()
    image = box.image("nodes", Layer().device("disk", major, minor, block=True, mode=0o666).device("fuse", 10, 229))
    script = (
        f"mknod /tmp/made b {major} {minor}; mknod /dev/made b {major} {minor}; mknod /dev/fuse c 10 229; "
        "for i in /disk /fuse /tmp/made /dev/made /dev/fuse; do head -c 1 $i && echo OPENED $i; done; "
        "for i in null zero full random urandom tty; do [ -c /dev/$i ] || echo missing $i; done; "
        "head -c 1 /dev/zero | tr '\\0' z"
    )
    for flags in ((), ("--cap-add", "MKNOD"), ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")):
        done = box.run(image, "sh", "-c", script, flags=flags)
        assert done.stdout == "z", (flags, done.stdout, done.stderr)


def test_j04_the_device_cgroup_alone_refuses_too(own_box: Host) -> None:
    """Without private ids and with MKNOD, a node on a mount that allows devices opens only by the cgroup's rules."""
    own_box.mode = "host"
    major, minor = a_disk()
    image = own_box.image("nodes")
    script = f"mknod /dev/made b {major} {minor} && head -c 1 /dev/made | dd of=/dev/null"
    done = own_box.run(image, "sh", "-c", script, flags=("--cap-add", "MKNOD"), status=None)
    assert "Operation not permitted" in done.stderr


MASKED = [
    *"""/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi
    /proc/timer_list /proc/timer_stats /proc/kallsyms /proc/kpagecount /proc/kpageflags /proc/kpagecgroup /proc/slabinfo
    /proc/vmallocinfo /proc/pagetypeinfo""".split(),
    *"""/sys/firmware /sys/devices/virtual/powercap /sys/kernel/debug /sys/kernel/tracing /sys/kernel/security
    /sys/fs/bpf /sys/fs/pstore /sys/fs/selinux""".split(),
]
WRITABLE_BY_NOBODY = (
    "/proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /sys/kernel/uevent_helper".split()
)
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /sys /sys/fs/cgroup".split()


def test_j01_masked_and_read_only_paths_of_the_default_posture(box: Host) -> None:
    image = box.image("masks")
    script = (
        f"for i in {' '.join(MASKED)}; do [ -d $i ] && ls -A $i | head -1; [ -f $i ] && head -c 9 $i; "
        "[ -c $i ] && cat $i; done; "
        f"for i in {' '.join(READ_ONLY)}; do touch $i/x 2>/dev/null && echo wrote $i; done; "
        f"for i in {' '.join(WRITABLE_BY_NOBODY)}; do (echo x > $i) 2>/dev/null && echo wrote $i; done; "
        "for i in /sys/devices/system/cpu/cpu*/thermal_throttle; do [ -d $i ] && ls -A $i; done; true"
    )
    done = box.run(image, "sh", "-c", script)
    assert done.stdout == ""


def test_j02_no_release_agent_can_be_set(box: Host) -> None:
    write = (
        "for i in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/tasks "
        "/sys/fs/cgroup/*/cgroup.procs; do [ -e $i ] && (echo 1 > $i) 2>/dev/null && echo wrote $i; done; "
    )
    mount = (
        "mount -t cgroup -o memory none /tmp && echo mounted; mount -t cgroup2 none /tmp && echo mounted; "
        "mount -o remount,rw /sys/fs/cgroup && echo remounted; mount -t tmpfs none /tmp && echo mounted; "
    )
    image = box.image("agent")
    assert box.run(image, "sh", "-c", f"{write}{mount}true").stdout == ""
    if box.mode == "auto":  # CAP_SYS_ADMIN over the container's own user namespace alone
        assert box.run(image, "sh", "-c", f"{write}true", flags=("--cap-add", "ALL")).stdout == ""


def test_the_rest_of_the_default_posture(box: Host) -> None:
    image = box.image("posture")
    found = fields(box.run(image, "cat", "/proc/self/status").stdout)
    assert (found["Seccomp"], found["NoNewPrivs"], found["Umask"]) == ("2", "0", "0022")
    assert (found["SigIgn"], found["SigBlk"]) == ("0" * 16, "0" * 16)
    mounts = {
        line.split()[1]: line.split()[3].split(",")
        for line in box.run(image, "cat", "/proc/mounts").stdout.splitlines()
    }
    for place in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/shm", "/dev/mqueue", "/etc/hosts"):
        assert {"nosuid", "nodev", "noexec"} <= set(mounts[place]), place
    assert {"nosuid", "noexec"} <= set(mounts["/dev"])
    assert "nodev" in mounts["/"]
    assert {"ro"} <= set(mounts["/sys"]) & set(mounts["/sys/fs/cgroup"])
    limits = box.run(image, "cat", "/proc/self/limits").stdout.splitlines()
    assert any(line.split()[:4] == ["Max", "core", "file", "size"] and line.split()[4] == "0" for line in limits)
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup")]
    script = "for i in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$i; done"
    assert not set(own) & set(box.run(image, "sh", "-c", script).stdout.split())


def test_the_hosts_ipc_namespace_with_or_without_its_queues(own_box: Host) -> None:
    own_box.mode = "host"
    done = own_box.run(own_box.image("ipc"), "readlink", "/proc/self/ns/ipc", flags=("--ipc", "host"))
    assert done.stdout.strip() == os.readlink("/proc/self/ns/ipc")
