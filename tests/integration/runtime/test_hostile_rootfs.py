"""Root file systems and configurations that want out: rows A1 to A24 of the security table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hutch.errors import HutchError
from hutch.linux import mount as kernel
from hutch.linux.mountinfo import mountinfo
from hutch.linux.namespaces import setns
from hutch.linux.paths import Root
from hutch.runtime import rootfs
from hutch.runtime.rootfs_targets import open_target
from hutch.runtime.steps import Setup, Step
from tests.integration.runtime.conftest import Box
from tests.support.child import in_child
from tests.support.files import remove_tree
from tests.support.host import requires
from tests.support.races import swapping

pytestmark = requires("root")

Canary = Callable[[], str]
HOST_FILES = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward")


def replace(box: Box, name: str, target: str) -> None:
    """Put a link where a directory or file of the root file system was."""
    path = f"{box.rootfs}/{name}"
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)


@pytest.mark.parametrize("destination", ["/proc", "/proc/self", "/proc/sys/kernel", "/link/self", "/proc/../proc/1"])
def test_a01_nothing_is_mounted_over_procfs(box: Box, destination: str) -> None:
    os.symlink("proc", f"{box.rootfs}/link")
    box.mount(destination, "tmpfs")
    assert "procfs may be at /proc" in (text := box.fails("true")) or "below /proc" in text or "no such" in text


def test_a01_an_allowed_file_of_procfs_can_be_replaced(box: Box) -> None:
    Path(box.base, "stat").write_text("ours\n")
    box.mount("/proc/uptime", "bind", "bind", source=f"{box.base}/stat")
    assert box.run("cat", "/proc/uptime").out == "ours\n"


def test_a01_a08_settings_go_to_procfs_though_proc_is_covered_meanwhile(box: Box) -> None:
    """PAUSE: init waits for its limits. Then /proc gets covered by a tree that has a file of the setting's name."""
    setting = "sys/net/ipv4/ip_forward"
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}

    def cover(pid: int) -> None:
        join(pid, "mnt")
        kernel.mount("none", f"{box.rootfs}/proc", "tmpfs")
        os.makedirs(f"{box.rootfs}/proc/{os.path.dirname(setting)}")
        Path(f"{box.rootfs}/proc/{setting}").write_text("untouched\n")

    def pause(actor: str, step: Step) -> None:
        if (actor, step.title) == ("parent", "set cgroup limits"):
            in_child(lambda: cover(whose_mounts_have(f"{box.rootfs}/proc")))

    def real() -> str:
        join(container.pid, "net")
        return Path(f"/proc/{setting}").read_text()

    container = box.create("sleep", "100", explain=pause)
    container.start()
    assert Path(f"/proc/{container.pid}/root/proc/{setting}").read_text() == "untouched\n"
    assert in_child(real) == "1\n"


def join(pid: int, kind: str) -> None:
    with open(f"/proc/{pid}/ns/{kind}", "rb") as file:
        setns(file.fileno(), 0)


def whose_mounts_have(path: str) -> int:
    """The process in whose mount namespace there is a mount at `path`."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f" {path} " in Path(f"/proc/{name}/mountinfo").read_text():
                return int(name)
        except OSError:  # ended meanwhile, or not ours to look at
            continue
    raise AssertionError(f"nobody has a mount at {path}")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("target", ["{canary}", "tmp"])
def test_a02_a03_a09_links_in_place_of_fixed_directories(
    box: Box, canary: Canary, name: str, user: bool, target: str
) -> None:
    replace(box, name, target.format(canary=canary()))
    if user:
        box.user_namespace()
    before = sorted(os.listdir("/dev"))
    assert f"/{name} of the root file system must be an ordinary directory" in box.fails("true")
    assert sorted(os.listdir("/dev")) == before


def test_a04_a_target_is_found_once_and_mounted_by_descriptor(box: Box, canary: Canary) -> None:
    """The parent of a target is exchanged with a link out while targets are opened."""
    os.makedirs(f"{box.rootfs}/vol/in")
    root = Root.at(box.rootfs)
    device, inode = os.stat(canary()).st_dev, {entry.stat().st_ino for entry in Path(canary()).rglob("*")}
    with root, swapping(f"{box.rootfs}/vol", canary()):
        for index in range(2000):
            try:
                fd = open_target(root, "/vol/in", directory=bool(index % 2))
            except (OSError, HutchError):
                continue
            found = os.fstat(fd)
            os.close(fd)
            assert not (found.st_dev == device and found.st_ino in inode)


def test_a05_making_targets_never_leaves_the_root(box: Box, canary: Canary) -> None:
    os.makedirs(f"{box.rootfs}/vol")
    root = Root.at(box.rootfs)
    with root, swapping(f"{box.rootfs}/vol", canary()):
        for index in range(1000):
            try:
                os.close(open_target(root, f"/vol/new{index}/deep", directory=bool(index % 2)))
            except (OSError, HutchError):
                continue


def test_a04_a05_mounts_below_a_swapped_parent_stay_inside(box: Box, canary: Canary) -> None:
    os.makedirs(f"{box.rootfs}/vol")
    box.mount("/vol/data", "tmpfs")
    before = {entry.mount_point for entry in mountinfo()}
    with swapping(f"{box.rootfs}/vol", canary()):
        # create forks and wants one thread: another process does it, while this one swaps.
        for _ in range(40):
            pid = os.fork()
            if not pid:
                try:
                    with box.create("true") as container:
                        container.delete(force=True)
                except HutchError:
                    pass
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
    assert {entry.mount_point for entry in mountinfo()} == before


@pytest.mark.parametrize("kind", ["link", "file", "absent"])
def test_a06_masks_do_not_come_from_the_images_null_device(box: Box, kind: str) -> None:
    null = f"{box.rootfs}/dev/null"
    if kind == "link":
        os.symlink("/proc/sys/kernel/core_pattern", null)
    elif kind == "file":
        Path(null).write_text("content")
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if not mount["destination"].startswith("/dev")]
    box.linux["maskedPaths"] = ["/proc/timer_list", "/proc/keys", "/etc/passwd"]
    script = "cat /proc/timer_list /proc/keys /etc/passwd | wc -c; echo x > /proc/keys; cat /proc/keys | wc -c"
    if kind == "absent":
        assert box.sh(script).out.split() == ["0", "0"]
    else:
        assert "create device /dev/null: " in box.fails("true")


def test_a06_a_mask_is_the_hosts_verified_null_device(box: Box) -> None:
    Path(box.rootfs, "secret").write_text("x")
    box.linux["maskedPaths"] = ["/secret"]
    assert box.run("stat", "-c", "%t:%T %F", "/secret").out == "1:3 character special file\n"


def test_a07_the_console_is_the_terminal_made_for_it(
    box: Box, console: tuple[int, Callable[[], int]], canary: Canary
) -> None:
    """The container's devpts is the only place it can come from, whatever stands in the image's /dev/pts."""
    os.makedirs(f"{box.rootfs}/dev/pts")
    os.symlink(f"{canary()}/file", f"{box.rootfs}/dev/pts/0")
    box.process["terminal"] = True
    container = box.create("sh", "-c", "stat -c %t:%T /dev/console > /tmp/seen", console_socket=console[0])
    terminal = console[1]()
    container.start()
    container.wait()
    os.close(terminal)
    assert Path(box.rootfs, "tmp/seen").read_text() == "88:0\n"


def test_a07_without_a_devpts_there_is_no_terminal(box: Box, console: tuple[int, Callable[[], int]]) -> None:
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if mount["type"] != "devpts"]
    box.process["terminal"] = True
    assert "open terminal" in box.fails("true", console_socket=console[0])


def test_a08_writes_to_procfs_go_to_one_that_nobody_can_cover(box: Box) -> None:
    """The container's own /proc is covered with a copy of the host's sysctls; the write lands in the right file."""
    before = [Path(name).read_text() for name in HOST_FILES]
    Path(box.base, "decoy").write_text("decoy")
    os.makedirs(f"{box.base}/sysctl/net/ipv4")
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    done = box.run("cat", "/proc/sys/net/ipv4/ip_forward")
    assert done.out == "1\n"
    assert [Path(name).read_text() for name in HOST_FILES] == before


def test_a10_a_link_at_dev_console(box: Box, console: tuple[int, Callable[[], int]], canary: Canary) -> None:
    os.symlink(f"{canary()}/made", f"{box.rootfs}/dev/console")
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if mount["destination"] != "/dev"]
    os.makedirs(f"{box.rootfs}/dev/pts", exist_ok=True)
    box.process["terminal"] = True
    assert "open terminal" in box.fails("true", console_socket=console[0])
    box.process["terminal"] = False
    box.run("true")


def test_a11_stdio_is_never_opened_anew(box: Box, canary: Canary) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    fd = os.open(f"{canary()}/file", os.O_RDONLY)
    try:
        box.mount("/dev/null", "bind", "bind", source=f"{canary()}/file")
        try:
            container = box.create("sleep", "1000", stdio=(fd, fd, fd))
        except HutchError as error:
            assert "create device /dev/null" in str(error)  # it is not the null device
        else:
            found = os.stat(f"/proc/{container.pid}/fd/0")
            assert (found.st_ino, found.st_uid) == (os.fstat(fd).st_ino, 0)
    finally:
        os.close(fd)


def test_a11_pipes_become_the_users_and_files_do_not(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    reader, writer = os.pipe()
    path = f"{box.base}/log"
    file_fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        box.run("sh", "-c", "echo ok > /dev/stdout", stdio=(file_fd, writer, file_fd))
        assert os.read(reader, 10) == b"ok\n"
        assert os.stat(path).st_uid == 0
    finally:
        for fd in (reader, writer, file_fd):
            os.close(fd)


def test_a12_read_only_is_set_on_the_held_mount_and_verified(box: Box) -> None:
    os.symlink("/proc/self/fd/3", f"{box.rootfs}/self")
    os.makedirs(f"{box.rootfs}/vol")
    box.spec["root"]["readonly"] = True
    box.linux["readonlyPaths"] = ["/self"]
    assert "make /self read-only: /self: too many levels of symbolic links" in box.fails("true")
    box.linux["readonlyPaths"] = ["/vol"]
    done = box.sh(
        "for i in / /vol /etc /root; do touch $i/x && echo writable $i; done; grep ' / / ' /proc/self/mountinfo"
    )
    assert "writable" not in done.out
    assert done.err.count("Read-only file system") == 4


def test_a13_links_resolve_as_after_chroot(box: Box, canary: Canary) -> None:
    """Chains, loops, absolute and dotted links: each target is where a process inside would find it, or refused."""
    links = {
        "a": "/b/c", "b": "../../../tmp", "up": "../" * 30, "abs": canary(), "loop1": "loop2", "loop2": "loop1",
        "chain0": "/etc", **{f"chain{n}": f"chain{n - 1}" for n in range(1, 45)}, "magic": "/proc/self/root/etc",
    }  # fmt: skip
    for name, target in links.items():
        os.symlink(target, f"{box.rootfs}/{name}")
    with Root.at(box.rootfs) as root:
        for name in [*links, "a/x", "up/etc", "abs/x", "chain30/y", "chain44/y", "magic/z"]:
            inside = _realpath_in_chroot(box.rootfs, name)
            try:
                fd = open_target(root, f"/{name}", directory=True)
            except (OSError, HutchError):
                # The last few of the kernel's 40 links may be refused here and allowed there.
                long = name.startswith("chain") and int(name[5:].partition("/")[0]) > 35
                assert long or inside is None or not os.path.isdir(box.rootfs + inside), name
                continue
            found = os.readlink(f"/proc/self/fd/{fd}")
            os.close(fd)
            assert found == box.rootfs or found.startswith(f"{box.rootfs}/"), name
            assert found == (box.rootfs + (_realpath_in_chroot(box.rootfs, name) or "?")).rstrip("/"), name


def _realpath_in_chroot(root: str, name: str) -> str | None:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chroot(root)
            os.chdir("/")
            os.close(os.open(f"/{name}", os.O_PATH))  # with the kernel's own limit of links
            os.write(writer, os.path.realpath(f"/{name}", strict=True).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    text = os.read(reader, 4096).decode()
    os.close(reader)
    return text or None


@pytest.mark.parametrize("number", [3, 5, 7, 10, 17, 40])
@pytest.mark.parametrize("form", ["/proc/self/fd/{}", "/link", "/proc/1/cwd", "/proc/thread-self/fd/{}/../.."])
def test_a16_the_working_directory_is_inside(box: Box, number: int, form: str) -> None:
    os.symlink(f"/proc/self/fd/{number}", f"{box.rootfs}/link")
    box.process["cwd"] = form.format(number)
    text = box.fails("pwd")
    assert "working directory" in text or "chdir" in text


def test_a17_files_are_mounted_on_links_only_inside(box: Box, canary: Canary) -> None:
    Path(box.base, "resolv.conf").write_text("nameserver 192.0.2.1\n")
    os.symlink("../run/dangling/resolv.conf", f"{box.rootfs}/etc/resolv.conf")
    os.symlink(f"{canary()}/new", f"{box.rootfs}/etc/hosts")
    for name in ("resolv.conf", "hosts"):
        box.mount(f"/etc/{name}", "bind", "bind", "ro", source=f"{box.base}/resolv.conf")
    done = box.run("cat", "/etc/resolv.conf", "/etc/hosts")
    assert done.out == "nameserver 192.0.2.1\n" * 2
    assert os.path.exists(f"{box.rootfs}/run/dangling/resolv.conf")
    assert os.path.exists(f"{box.rootfs}{canary()}/new")


def test_a21_hooks_have_their_own_environment_and_nothing_open(box: Box) -> None:
    box.process["env"] = ["LD_PRELOAD=/evil.so", "PATH=/evil", "PYTHONPATH=/evil"]
    log = f"{box.base}/hook"
    script = f"{{ tr '\\0' '\\n' < /proc/self/environ; echo cwd=$(pwd); ls /proc/self/fd | tr '\\n' ' '; }} > {log}.$1"
    box.spec["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script, "sh", kind], "env": ["PATH=/usr/bin:/bin", "ONE=1"]}]
        for kind in ("prestart", "createRuntime", "createContainer")
    }
    inherited = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        box.run("/bin/true")
    finally:
        os.close(inherited)
    for kind in box.spec["hooks"]:
        lines = Path(f"{log}.{kind}").read_text().splitlines()
        assert set(lines[:-1]) == {"PATH=/usr/bin:/bin", "ONE=1", "cwd=/"}, kind
        assert set(lines[-1].split()) <= {"0", "1", "2", "3"}, kind


def test_a23_the_hosts_mounts_and_their_propagation_stay(box: Box) -> None:
    def table() -> list[tuple[Any, ...]]:
        return [(entry.mount_id, entry.mount_point, entry.options, entry.optional) for entry in mountinfo()]

    before = table()
    for propagation in ("private", "slave", "rshared", "unbindable", None):
        box.linux["rootfsPropagation"] = propagation
        assert box.run("true").status == 0
        assert table() == before


def test_a23_without_a_mount_namespace_nothing_is_created(box: Box) -> None:
    box.linux["namespaces"] = [entry for entry in box.linux["namespaces"] if entry["type"] != "mount"]
    assert "a mount namespace is required" in box.fails("true")


def test_a24_nothing_is_written_into_the_root_file_system(box: Box) -> None:
    def names() -> set[str]:
        return {str(path.relative_to(box.rootfs)) for path in Path(box.rootfs).rglob("*")}

    before = names()
    box.run("true")
    assert names() - before <= {"dev/pts", "dev/shm", "dev/mqueue"}


def test_a_mask_that_cannot_be_made_is_fatal() -> None:
    """Unit-like: a failing mask raises instead of being skipped."""
    _, steps = rootfs.masks({"ociVersion": "1.0.0", "linux": {"maskedPaths": ["/etc/passwd"]}})
    setup = Setup.__new__(Setup)
    setup.root = Root.at("/")
    try:
        with pytest.raises(OSError, match="null device was not prepared"):
            steps[0].run(setup)
    finally:
        setup.root.close()


def test_a12_verification_sees_a_writable_mount() -> None:
    fd = kernel.open_tree(-100, "/tmp", kernel.OPEN_TREE_CLONE)
    try:
        from hutch.runtime.rootfs_mounts import verify_read_only

        with pytest.raises(OSError, match="still writable"):
            verify_read_only(fd, "/tmp")
        kernel.mount_setattr(fd, "", attr_set=kernel.MOUNT_ATTR_RDONLY)
        verify_read_only(fd, "/tmp")
    finally:
        os.close(fd)
