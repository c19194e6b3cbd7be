"""The sealed image: what is checked in is what the source gives, and it does what it says."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hutch.runtime import trampoline
from hutch.runtime.trampoline_image import IMAGES

ROOT = Path(__file__).parents[3]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_trampoline", ROOT / "tools/build_trampoline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(program: str, *args: str, wait: bool = False, seccomp: bytes = b"") -> tuple[int, str]:
    """Become the image in a child; (exit status, what it wrote)."""
    out_read, out_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.set_inheritable(go_read, True)
            os.dup2(out_write, 1)
            os.dup2(out_write, 2)
            fd = trampoline.build(wait_fd=go_read if wait else -1, seccomp=seccomp)
            trampoline.execute(fd, program, [program, *args], {b"ONLY": b"this"})
        finally:
            os._exit(99)
    os.close(out_write)
    os.close(go_read)
    if wait:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        os.write(go_write, b"x")
    os.close(go_write)
    text = b""
    while chunk := os.read(out_read, 65536):
        text += chunk
    os.close(out_read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()


@pytest.mark.parametrize("machine", sorted(IMAGES))
def test_the_image_is_what_the_source_compiles_to(machine: str) -> None:
    """Another compiler may give other bytes; it must give an image of the same kind that Debian's gave."""
    build = builder()
    if not shutil.which(build.COMPILERS[machine]):
        pytest.skip(f"{build.COMPILERS[machine]} is not installed")
    made = build.compile_image(machine)
    assert made[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", made, 18) == struct.unpack_from("<H", IMAGES[machine], 18)
    version = subprocess.run([build.COMPILERS[machine], "--version"], capture_output=True, text=True, check=True).stdout
    if "Debian 12.2" in version:
        assert made == IMAGES[machine]


def test_the_image_is_small() -> None:
    assert all(len(image) < 2048 for image in IMAGES.values())


def test_it_becomes_the_program_with_its_arguments_and_environment() -> None:
    assert run("/bin/sh", "-c", 'echo "$0 $1 $ONLY"; env | wc -l; exit 3', "zero", "one")[0] == 3
    assert run("/bin/sh", "-c", 'echo "$0 $1 $ONLY"', "zero", "one") == (0, "zero one this\n")


def test_it_waits_until_it_is_told() -> None:
    assert run("/bin/echo", "done", wait=True) == (0, "done\n")


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("/nothing/there", 127, "exec /nothing/there: no such file or directory\n"),
        ("/etc/passwd/x", 127, "exec /etc/passwd/x: not a directory\n"),
        ("/etc/passwd", 126, "exec /etc/passwd: permission denied\n"),
    ],
)
def test_what_cannot_be_executed_is_said(program: str, status: int, message: str) -> None:
    assert run(program) == (status, message)


def test_it_is_sealed() -> None:
    fd = trampoline.build()
    try:
        assert fcntl.fcntl(fd, 1034) == 0xF  # F_GET_SEALS: SEAL, SHRINK, GROW, WRITE
        for action in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
            with pytest.raises(PermissionError):
                action()
    finally:
        os.close(fd)


def test_b01_a_script_of_proc_self_exe_reaches_only_the_image(tmp_path: Path) -> None:
    """The kernel runs the interpreter line's /proc/self/exe: the sealed image, not the Python that made it."""
    script = tmp_path / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    before = Path(sys.executable).stat().st_mtime_ns
    assert run(str(script), wait=True) == (126, "wait for start: error 9\n")
    assert Path(sys.executable).stat().st_mtime_ns == before


def test_it_loads_the_filter_last() -> None:
    """A filter that denies openat with EDOM: set in the image, felt by the program."""
    from hutch.linux import process

    assert os.uname().machine in IMAGES
    number = {"x86_64": 83, "aarch64": 34}[os.uname().machine]  # mkdir, mkdirat
    program = b"".join(
        struct.pack("<HBBI", *row)
        for row in ((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x00050021), (6, 0, 0, 0x7FFF0000))
    )
    pid = os.fork()
    if not pid:
        process.set_no_new_privs()
        fd = trampoline.build(seccomp=program)
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 2)
        trampoline.execute(fd, "/bin/sh", ["sh", "-c", "mkdir /tmp/never$$; test $? = 1"], {b"PATH": b"/bin:/usr/bin"})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not shutil.which("qemu-aarch64-static"), reason="qemu-aarch64-static is not installed")
def test_the_other_machines_image_runs(tmp_path: Path) -> None:
    image = trampoline._with_segment_size(
        IMAGES["aarch64"] + b"\0" * (-len(IMAGES["aarch64"]) % 8) + trampoline._CONFIG.pack(-1, -1, 0, 0, 0, 0, 0, 0)
    )
    path = tmp_path / "image"
    path.write_bytes(image)
    path.chmod(0o755)
    done = subprocess.run(["qemu-aarch64-static", path], capture_output=True, text=True, check=False)
    assert done.returncode in (126, 127)
    assert done.stderr.startswith("exec ")
