"""Rows B of the security table: descriptors, the interpreter, and what is loaded once inside."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Roots
from tests.integration.security.conftest import Host
from tests.support import oci
from tests.support.evil import Layer
from tests.support.host import read, requires
from tests.support.programs import run

pytestmark = requires("root", "program:busybox")


@pytest.fixture
def runtime(tmp_root: Roots, cgroup_parent: str) -> Iterator[oci.Runtime]:
    with oci.runtime(tmp_root.base, cgroup_parent) as found:
        yield found


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def interpreter() -> dict[str, str]:
    """The digest of every file that a Python like ours has mapped to execute."""
    lines = [line.split(None, 5) for line in Path("/proc/self/maps").read_text().splitlines()]
    files = {line[5].strip() for line in lines if line[1] == "r-xp" and len(line) == 6}
    return {path: digest(path) for path in files | {os.path.realpath(sys.executable)} if os.path.isfile(path)}


LOOK = r"""
while [ ! -e /tmp/stop ]; do
  for p in /proc/[0-9]*; do
    readlink $p/exe >> /tmp/seen 2>/dev/null
    ( : >> $p/exe ) 2>/dev/null && echo "$p $(readlink $p/exe)" >> /tmp/written
    dd if=/dev/zero of=$p/exe bs=1 count=1 conv=notrunc 2>/dev/null && echo "$p dd" >> /tmp/written
  done
done
"""


def test_b01_no_program_can_be_opened_for_writing_while_execs_come_and_go(runtime: oci.Runtime) -> None:
    before = interpreter()
    bundle = runtime.bundle("box", "sh", "-c", LOOK)
    rootfs = bundle.own_rootfs()
    held = [*oci.CAPABILITIES, "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), held)
    runtime.create(bundle, "box")
    runtime("start", "box")
    tries = 0
    while "memfd:" not in read(f"{rootfs}/tmp/seen") or tries < 12:  # it has to look while there is something to see
        runtime("exec", "box", "true")
        tries += 1
        assert tries < 200, "the loop never saw an exec on its way in"
    Path(rootfs, "tmp/stop").touch()
    runtime.wait_stopped("box")
    assert not os.path.exists(f"{rootfs}/tmp/written")
    assert interpreter() == before


def test_b01_an_entry_point_that_is_the_runtimes_own_program(box: Host) -> None:
    """#!/proc/self/exe makes the kernel run whatever runs the container; that must not be the interpreter."""
    trick = Layer().file("trick", b"#!/proc/self/exe\n", mode=0o755)
    trick.file("shared.so", b"\x7fELF", mode=0o755)
    image = box.image("trick", trick)
    before = interpreter()
    for command in (["/trick"], ["/proc/self/exe"], ["/proc/1/exe"]):
        done = box.run(image, *command, status=None)
        assert done.returncode != 0
        assert "Python" not in done.stdout + done.stderr
    assert interpreter() == before


@pytest.mark.parametrize("streams", [(0,), (1,), (2,), (0, 1, 2)])
def test_b03_a_closed_stream_is_a_pipe_and_no_directory_of_the_engine(own_box: Host, streams: tuple[int]) -> None:
    own_box.mode = "host"
    image = own_box.image("streams")
    look = "for i in 0 1 2; do stat -L -c '%t:%T %F' /proc/1/fd/$i; done; ls -l /proc/1/fd"
    script = f'found=$({look}); echo "$found" > /out/found'
    out = f"{own_box.roots.base}/out"
    os.mkdir(out)
    words = own_box.argv(image, "sh", "-c", script, flags=("-i", "-v", f"{out}:/out"))
    closing = " ".join(f"{fd}<&-" for fd in streams)
    run(["sh", "-c", f'exec "$@" {closing}', "sh", *words], env=own_box.cli.env)
    found = Path(out, "found").read_text().splitlines()
    for fd in streams:
        assert found[fd] == "0:0 fifo", found  # the monitor's; whoever started it has no say in them
    assert own_box.roots.data not in "".join(found)


@pytest.mark.parametrize("command", ["run", "exec"])
def test_b03_a_closed_stream_of_the_runtime_is_the_null_device(runtime: oci.Runtime, command: str) -> None:
    script = "stat -L -c '%t:%T %F' /proc/self/fd/0 >&2"
    if command == "run":
        bundle = runtime.bundle("box", "sh", "-c", script)
        words = runtime.argv("run", "--bundle", bundle.write(), "box")
    else:
        runtime.running("box")
        words = runtime.argv("exec", "box", "sh", "-c", script)
    done = run(["sh", "-c", 'exec "$@" 0<&- 1>&-', "sh", *words])
    assert done.stderr == "1:3 character special file\n"


def test_b03_descriptors_that_the_engine_was_started_with_go_no_further(box: Host) -> None:
    image = box.image("descriptors")
    opened = [os.open("/etc", os.O_RDONLY) for _ in range(38)]
    try:
        words = box.argv(image, "ls", "-l", "/proc/self/fd")
        done = subprocess.run(
            words, env=box.cli.env, capture_output=True, text=True, pass_fds=opened, timeout=30, check=True
        )
    finally:
        for fd in opened:
            os.close(fd)
    assert [line.split()[8] for line in done.stdout.splitlines()[1:]] == ["0", "1", "2", "3"]
    assert "/etc" not in done.stdout


LOADED = re.compile(r"\.so\b|\.py|/nsswitch|/locale|/gconv|/python3|libnss|ld\.so|zoneinfo")
STRACE = ("strace", "-f", "-qq", "-s", "300")
OPENS = ("open(", "openat(", "openat2(", "execve(", "stat(", "newfstatat(", "access(", "readlink(", "faccessat2(")


def after_entering(log: str, marks: tuple[str, ...]) -> dict[str, list[str]]:
    """What each process of an strace log did with paths between entering the container and executing its program."""
    found: dict[str, list[str]] = {}
    for line in log.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith(marks) and call.endswith("= 0"):
            found.setdefault(pid, [])
        elif pid in found and call.startswith("execve(") and call.endswith("= 0"):
            found.pop(pid + " done", None)
            found[pid + " done"] = found.pop(pid)
        elif pid in found and call.startswith(OPENS):
            found[pid].append(call)
    return found


EVIL_NSS = b"passwd: evil files\ngroup: evil files\nhosts: evil\n"


def evil_libraries() -> Layer:
    layer = Layer().directory("etc").file("etc/nsswitch.conf", EVIL_NSS).file("etc/ld.so.preload", b"/lib/evil.so\n")
    layer.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").file(
        "etc/group", b"root:x:0:\n"
    )
    layer.directory("lib").file("lib/libnss_evil.so.2", b"\x7fELF", mode=0o755).file(
        "lib/evil.so", b"\x7fELF", mode=0o755
    )
    return layer.directory("usr").directory("usr/lib").file("usr/lib/libc.so.6", b"\x7fELF", mode=0o755)


@requires("program:strace")
def test_b04_nothing_is_loaded_from_below_the_containers_root(own_box: Host) -> None:
    image = own_box.image(
        "nss", evil_libraries(), User="app", Env=["PATH=/bin", "LD_PRELOAD=/lib/evil.so", "LANG=xx_YY"]
    )
    log = f"{own_box.roots.base}/strace"
    words = own_box.argv(image, "true", flags=("-u", "app"))
    run([*STRACE, "-o", log, "-e", "trace=%file,pivot_root,chroot", *words], env=own_box.cli.env)
    text = Path(log).read_text(errors="backslashreplace")
    entered = after_entering(text, ("pivot_root(", "chroot("))
    assert entered, "nobody entered a root: what is traced?"
    assert [call for calls in entered.values() for call in calls if LOADED.search(call)] == []
    assert "libnss_evil" not in text
    opened = [line for line in text.splitlines() if "nsswitch" in line]
    assert opened == []


@requires("program:strace")
def test_b04_exec_loads_nothing_once_it_has_joined(runtime: oci.Runtime) -> None:
    bundle = runtime.bundle("box", "sleep", "1000")
    rootfs = bundle.own_rootfs()
    Path(rootfs, "etc/nsswitch.conf").write_bytes(EVIL_NSS)
    runtime.create(bundle, "box")
    runtime("start", "box")
    log = f"{runtime.root}-strace"
    words = runtime.argv("exec", "--user", "1000", "box", "true")
    run([*STRACE, "-o", log, "-e", "trace=%file,setns", *words])
    text = Path(log).read_text(errors="backslashreplace")
    entered = after_entering(text, ("setns(",))
    assert entered, "nobody joined a namespace: what is traced?"
    assert [call for calls in entered.values() for call in calls if LOADED.search(call)] == []
    assert "nsswitch" not in text
