"""Resolution below a hostile root, against the kernel's own chroot as the oracle; and races with renames."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal

import pytest

from hutch.linux import mount, namespaces
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE, NR, RENAME_EXCHANGE
from hutch.linux.libc import syscall
from hutch.linux.mountinfo import mountinfo
from hutch.linux.paths import Root
from tests.support import requires
from tests.support.child import in_child

NAMES = ("a", "b", "c", "d", "e", "proc", "etc")
TREES, LOOKUPS = 40, 60


@pytest.fixture
def hostile(tmp_root):
    """A directory with `root` in it, and `outside` beside it that nothing may touch."""
    base = tmp_root.data
    os.makedirs(f"{base}/root")
    os.makedirs(f"{base}/outside/a/b")
    return base


def grow(root: str, rng: random.Random) -> None:
    """Fill `root` with directories, files, and links that are chains, loops, absolute, climbing and dangling."""
    directories = [root]
    for _ in range(rng.randint(5, 12)):
        path = f"{rng.choice(directories)}/{rng.choice(NAMES)}"
        if not os.path.lexists(path):
            os.mkdir(path)
            directories.append(path)
    for _ in range(rng.randint(4, 18)):
        path = f"{rng.choice(directories)}/{rng.choice(NAMES)}"
        if os.path.lexists(path):
            continue
        if rng.random() < 0.15:
            open(path, "w").close()
        else:
            os.symlink(some_path(rng), path)
    for number in range(rng.choice((0, 38, 41))):  # a chain just below and just above the kernel's 40
        if not os.path.lexists(f"{root}/chain{number}"):
            os.symlink(f"chain{number - 1}" if number else "/", f"{root}/chain{number}")


def some_path(rng: random.Random) -> str:
    parts = [rng.choice((*NAMES, *NAMES, "..", "..", ".", "", "chain37", "chain40")) for _ in range(rng.randint(1, 6))]
    return rng.choice(("/", "", "../../../")) + "/".join(parts) or "."


def seen_from_inside(root: str, paths: list[str]) -> list[list[int] | str]:
    """(device, inode) of each path as a process chrooted to `root` finds it, or the errno's name."""

    def look() -> list[list[int] | str]:
        os.chroot(root)
        os.chdir("/")
        found: list[list[int] | str] = []
        for path in paths:
            try:
                status = os.stat(path)
                found.append([status.st_dev, status.st_ino])
            except OSError as problem:
                found.append(errno.errorcode[problem.errno or 0])
        return found

    answer: list[list[int] | str] = in_child(look)
    return answer


def seen_by_root(root: Root, path: str) -> tuple[list[int] | str, str]:
    """The same through `Root`, and where it lies on the host."""
    try:
        fd = root.open(path, os.O_PATH)
    except OSError as problem:
        return errno.errorcode[problem.errno or 0], ""
    try:
        status = os.fstat(fd)
        return [status.st_dev, status.st_ino], os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@requires("root")
@pytest.mark.parametrize("seed", range(TREES))
def test_a13_resolution_is_that_of_a_chroot(hostile, seed):
    rng = random.Random(seed)
    inside = f"{hostile}/root"
    grow(inside, rng)
    lookups = [some_path(rng) for _ in range(LOOKUPS)]
    with Root.at(inside) as root:
        ours = [seen_by_root(root, path) for path in lookups]
        assert [found for found, _ in ours] == seen_from_inside(inside, lookups)
        assert [place for _, place in ours if place and not (place + "/").startswith(inside + "/")] == []
        for path in rng.sample(lookups, 15):
            make_and_check(root, inside, path)
    assert sorted(os.listdir(f"{hostile}/outside")) == ["a"]
    assert os.listdir(f"{hostile}/outside/a/b") == []
    assert sorted(os.listdir(hostile)) == ["outside", "root"]


def make_and_check(root: Root, inside: str, path: str) -> None:
    """What mkdirs makes is what a chrooted process then finds at that path."""
    try:
        fd = root.mkdirs(path)
    except OSError as problem:
        if problem.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        return
    try:
        made = os.fstat(fd)
        assert (os.readlink(f"/proc/self/fd/{fd}") + "/").startswith(inside + "/")
    finally:
        os.close(fd)
    assert seen_by_root(root, path)[0] == [made.st_dev, made.st_ino]


@contextlib.contextmanager
def swapping(first: str, second: str):
    """A process that keeps exchanging two names; SWAP in the table of attacks."""
    read_fd, write_fd = os.pipe()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            while os.getppid() == parent:
                for _ in range(100):
                    syscall(NR.renameat2, AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
                if write_fd >= 0:
                    os.close(write_fd)
                    write_fd = -1
        finally:
            os._exit(0)
    os.close(write_fd)
    os.read(read_fd, 1)  # it is at it
    os.close(read_fd)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def count(path: str) -> int:
    return sum(len(names) + len(files) for _, names, files in os.walk(path))


@pytest.fixture
def contested(hostile):
    """`root/v/d` is by turns a directory and a link to the directory outside."""
    inside = f"{hostile}/root"
    os.makedirs(f"{inside}/v/d")
    os.symlink(f"{hostile}/outside", f"{inside}/v/absolute")
    os.symlink("../../outside", f"{inside}/v/climbing")
    return hostile


@pytest.mark.parametrize("link", ["absolute", "climbing"])
def test_a05_nothing_is_made_outside_while_a_parent_is_swapped_for_a_link(contested, link):
    inside, landed, refused = f"{contested}/root", 0, 0
    before = count(f"{contested}/outside")
    with swapping(f"{inside}/v/d", f"{inside}/v/{link}"), Root.at(inside) as root:
        for number in range(2000):
            try:
                if number % 2:
                    os.close(root.mkdirs(f"v/d/n{number}/x/y"))
                else:
                    os.close(root.create(f"v/d/n{number}/file"))
                landed += 1
            except OSError as problem:
                if problem.errno not in (errno.EAGAIN, errno.EEXIST, errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                    raise
                refused += 1
    assert count(f"{contested}/outside") == before
    assert landed > 1000, f"only {landed} of {landed + refused} came through"


def test_a05_the_same_race_does_catch_walking_by_path(contested):
    inside = f"{contested}/root"
    before = count(f"{contested}/outside")
    with swapping(f"{inside}/v/d", f"{inside}/v/absolute"):
        for number in range(50_000):
            with contextlib.suppress(OSError):
                if not os.path.islink(f"{inside}/v/d"):
                    os.mkdir(f"{inside}/v/d/n{number}")
            if number % 50 == 0 and count(f"{contested}/outside") > before:
                return
    pytest.fail("the harness lost every race, so that the test above shows nothing")


@requires("root")
def test_a04_a_mount_lands_below_the_root_or_nowhere(contested):
    inside = f"{contested}/root"

    def attach() -> list[str]:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=mount.MS_PRIVATE)
        landed, strays = 0, []
        with swapping(f"{inside}/v/d", f"{inside}/v/climbing"), Root.at(inside) as root:
            for number in range(1000):
                tree_fd = mount.open_tree(AT_FDCWD, "/proc/self", mount.OPEN_TREE_CLONE)
                target_fd = -1
                try:
                    target_fd = root.mkdirs(f"v/d/m{number % 7}/x")
                    mount.move_mount(tree_fd, "", target_fd, "")
                    landed += 1
                    mine = [entry.mount_point for entry in mountinfo()][-1]
                    if not mine.startswith(f"{inside}/"):
                        strays.append(mine)
                    mount.umount2(f"/proc/self/fd/{tree_fd}", mount.MNT_DETACH)
                except OSError:
                    continue
                finally:
                    os.close(tree_fd)
                    if target_fd >= 0:
                        os.close(target_fd)
        assert landed > 300, landed
        return strays

    assert in_child(attach) == []
    assert count(f"{contested}/outside") == 2
