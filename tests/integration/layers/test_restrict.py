"""What is left to the process that unpacks a layer: few system calls, and no file but the layer's (security.md, 2)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hutch.image.unpack import Unpacked, unpack_into
from hutch.linux import landlock, process, seccomp
from hutch.linux.abi import MACHINE
from hutch.linux.libc import syscall
from hutch.runtime.seccomp import compile_profile
from hutch.runtime.syscalls import numbers
from hutch.snapshot import confine, restrict
from tests.integration.layers.conftest import Place
from tests.support.child import in_child
from tests.support.evil import Layer
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root")

NR = numbers(MACHINE)
needs_landlock = pytest.mark.skipif(landlock.abi() < 2, reason="the kernel has no Landlock that knows hard links")

# Calls that the kernel would not answer with EPERM by itself, the unpacker's capabilities being what they are.
FORBIDDEN: dict[str, tuple[object, ...]] = {
    "socket": (1, 1, 0),
    "ptrace": (0, 0, 0, 0),
    "mount": (None, None, None, 0, None),
    "umount2": (None, 0),
    "bpf": (0, None, 0),
    "keyctl": (0, -3, 0),
    "add_key": (None, None, None, 0, 0),
    "unshare": (0,),
    "setns": (-1, 0),
    "chroot": (None,),
    "execve": (None, None, None),
    "prctl": (3,),
    "process_vm_readv": (0, None, 0, None, 0, 0),
    "perf_event_open": (None, 0, -1, -1, 0),
    "io_uring_setup": (0, None),
    "userfaultfd": (-1,),
    "open_by_handle_at": (-1, None, 0),
    "memfd_create": (None, 0),
    "pidfd_open": (0, 0),
    "kill": (0, 0),
    "ioctl": (-1, 0, 0),
    "mmap": (None, 4096, 4, 0x22, -1, 0),
}


def confined(directory: str, *lowers: str) -> int:
    """What the unpacking child does to itself, in its order; returns the directory's descriptor."""
    confine.enter_namespaces(None)
    root_fd = confine.hold(directory, writable=True)
    lower_fds = [confine.hold(lower, writable=False) for lower in lowers]
    program = restrict.compiled_filter()
    confine.give_up_paths()
    confine.give_up_powers()
    restrict.restrict(root_fd, lower_fds, program)
    return root_fd


def error_of(name: str) -> int:
    try:
        syscall(NR[name], *FORBIDDEN[name])
    except OSError as problem:
        return problem.errno or 0
    return 0


def test_what_unpacking_does_not_take_is_not_permitted(place: Place) -> None:
    def without() -> dict[str, int]:
        confine.enter_namespaces(None)
        return {name: error_of(name) for name in FORBIDDEN if name != "ptrace"}  # traced by us, it would hang

    def within() -> dict[str, int]:
        confined(place.directory)
        return {name: error_of(name) for name in FORBIDDEN}

    assert errno.EPERM not in in_child(without).values()
    assert in_child(within) == dict.fromkeys(FORBIDDEN, errno.EPERM)


def test_threads_may_be_started_and_processes_not(place: Place) -> None:
    def run() -> list[Any]:
        confined(place.directory)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(error_of("socket")))
        thread.start()
        thread.join()
        try:
            os.fork()
        except OSError as problem:
            found.append(problem.errno)
        return found

    assert in_child(run) == [errno.EPERM, errno.EPERM]


def test_calls_of_another_architecture_are_not_permitted() -> None:
    """int 0x80 would have numbers of its own: the filter looks at the architecture first."""
    program = restrict.compiled_filter()
    load, compare = program[:8], program[8:16]
    assert load[0] == 0x20
    assert int.from_bytes(load[4:], "little") == 4
    assert int.from_bytes(compare[4:], "little") == {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[MACHINE]


@needs_landlock
def test_no_file_but_the_layers_can_be_opened(place: Place, tmp_path: Path) -> None:
    (tmp_path / "below").write_text("below")
    canary_fd = os.open(place.canary, os.O_RDONLY | os.O_DIRECTORY)

    def run() -> dict[str, Any]:
        held_fd = os.dup(canary_fd)  # such as one that was forgotten: it is from outside of what may be opened
        confine.enter_namespaces(None)
        root_fd, lower_fd = confine.hold(place.directory, writable=True), confine.hold(str(tmp_path), writable=False)
        program = restrict.compiled_filter()
        confine.give_up_paths()
        confine.give_up_powers()
        restrict.restrict(root_fd, [lower_fd], program)

        def attempt(action: Callable[[], object]) -> int:
            try:
                action()
            except OSError as problem:
                return problem.errno or 0
            return 0

        def make(path: str, dir_fd: int) -> None:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, dir_fd=dir_fd))

        os.mkdir("one", dir_fd=root_fd)
        make("one/file", root_fd)
        return {
            "read": attempt(lambda: os.open("file", os.O_RDONLY, dir_fd=held_fd)),
            "list": attempt(lambda: os.open("directory", os.O_RDONLY | os.O_DIRECTORY, dir_fd=held_fd)),
            "make": attempt(lambda: make("new", held_fd)),
            "remove": attempt(lambda: os.unlink("file", dir_fd=held_fd)),
            "root": attempt(lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY)),
            "below": attempt(lambda: os.open("below", os.O_RDONLY, dir_fd=lower_fd)),
            "link": attempt(lambda: os.link("one/file", "link", src_dir_fd=root_fd, dst_dir_fd=root_fd)),
            "link out": attempt(lambda: os.link("link", "stolen", src_dir_fd=root_fd, dst_dir_fd=held_fd)),
        }

    try:
        found = in_child(run)
    finally:
        os.close(canary_fd)
    assert found.pop("link out") in (errno.EXDEV, errno.EACCES)
    assert found == {
        "read": errno.EACCES, "list": errno.EACCES, "make": errno.EACCES, "remove": errno.EACCES,
        "root": errno.EACCES, "below": 0, "link": 0,
    }  # fmt: skip


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_landlock_unpacks(place: Place, answer: int) -> None:
    """ENOSYS is a kernel without it, EOPNOTSUPP one that has it switched off at boot."""
    layer = Layer("").directory("one").file("one/file", b"text").hardlink("two", "one/file")

    def run() -> list[Any]:
        process.set_no_new_privs()
        refusal = {"names": ["landlock_create_ruleset"], "action": "SCMP_ACT_ERRNO", "errnoRet": answer}
        program = compile_profile(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refusal]},  # type: ignore[typeddict-item]
            architecture=MACHINE,
        )
        seccomp.load(program.code, program.flags)
        version = landlock.abi()
        return [version, place.unpack(layer).inodes]

    assert in_child(run) == [0, 3]
    assert place.read("two") == b"text"


def test_the_unpacking_process_itself_is_filtered(place: Place) -> None:
    """Not only what a test does in its place: seen from outside while it waits for the rest of its layer."""
    blob = Layer("").file("file", b"text").blob
    read_fd, write_fd = os.pipe()
    found: list[Unpacked] = []
    thread = threading.Thread(target=lambda: found.append(unpack_into(place.directory, read_fd)))
    thread.start()
    try:
        os.write(write_fd, blob[:1])
        wait_until(lambda: bool(_status_of("hutch.image.unpack_child", "Seccomp:\t2")), 20)
        status = _status_of("hutch.image.unpack_child", "Seccomp:\t2")
        os.write(write_fd, blob[1:])
    finally:
        os.close(write_fd)
        thread.join()
        os.close(read_fd)
    assert "NoNewPrivs:\t1" in status
    assert found[0].inodes == 1


def _status_of(module: str, line: str) -> str:
    """The status of our child that runs `module`, once it has the line; "" before."""
    for pid in _children():
        try:
            text = Path(f"/proc/{pid}/status").read_text()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if module.encode() in words and line in text:
            return text
    return ""


def _children() -> list[str]:
    """Of all our threads: a child is that thread's who started it."""
    found: list[str] = []
    for thread in os.listdir("/proc/self/task"):
        found += Path(f"/proc/self/task/{thread}/children").read_text().split()
    return found
