"""The mount API on real file systems, in private mount namespaces."""

from __future__ import annotations

import errno
import os

import pytest

from hutch.linux import mount, namespaces
from hutch.linux.abi import AT_FDCWD, AT_RECURSIVE
from hutch.linux.mountinfo import mountinfo
from hutch.linux.paths import Root
from tests.support import requires
from tests.support.child import in_child

pytestmark = [pytest.mark.host, requires("root")]


def privately(function):
    def run():
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=mount.MS_PRIVATE)
        return function()

    return in_child(run)


def tmpfs(**options: str) -> int:
    """A detached tmpfs."""
    context_fd = mount.fsopen("tmpfs")
    try:
        for key, value in options.items():
            mount.fsconfig_string(context_fd, key, value)
        mount.fsconfig_create(context_fd)
        return mount.fsmount(context_fd)
    finally:
        os.close(context_fd)


def at(point: str) -> list[str]:
    """[fstype, options, super options, propagation...] of what is mounted on a path."""
    entry = [entry for entry in mountinfo() if entry.mount_point == point][-1]
    return [entry.fstype, entry.options, entry.super_options, *entry.optional]


def test_detached_tmpfs_is_attached_by_descriptor(tmp_path):
    def run():
        fd = tmpfs(size="64k", mode="0711")
        assert not os.get_inheritable(fd)
        mount.mount_setattr(fd, "", attr_set=mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
        with Root.at(str(tmp_path)) as root:
            target_fd = root.mkdirs("a/b")
            mount.move_mount(fd, "", target_fd, "")
        return at(f"{tmp_path}/a/b")

    fstype, options, super_options = privately(run)
    assert (fstype, options) == ("tmpfs", "rw,nosuid,nodev,relatime")
    assert "size=64k" in super_options
    assert "mode=711" in super_options
    assert not os.path.ismount(tmp_path / "a/b")


def test_bind_of_a_tree_is_made_read_only_as_a_whole(tmp_path):
    def run():
        os.makedirs(tmp_path / "source/sub")
        os.mkdir(tmp_path / "target")
        mount.mount("none", str(tmp_path / "source/sub"), "tmpfs")
        tree_fd = mount.open_tree(AT_FDCWD, str(tmp_path / "source"), mount.OPEN_TREE_CLONE | AT_RECURSIVE)
        assert not os.get_inheritable(tree_fd)
        mount.mount_setattr(tree_fd, "", AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_RDONLY)
        mount.move_mount(tree_fd, "", AT_FDCWD, str(tmp_path / "target"))
        refused = []
        for path in ("target/x", "target/sub/x"):
            with pytest.raises(OSError) as caught:
                os.mkdir(tmp_path / path)
            refused.append(caught.value.errno)
        os.mkdir(tmp_path / "source/sub/x")
        return refused

    assert privately(run) == [errno.EROFS, errno.EROFS]


def test_access_time_rules_replace_each_other(tmp_path):
    def run():
        fd = tmpfs()
        mount.mount_setattr(fd, "", attr_clr=mount.MOUNT_ATTR__ATIME, attr_set=mount.MOUNT_ATTR_NOATIME)
        mount.move_mount(fd, "", AT_FDCWD, str(tmp_path))
        first = at(str(tmp_path))[1]
        with pytest.raises(OSError) as caught:  # without clearing: two rules at once
            mount.mount_setattr(fd, "", attr_set=mount.MOUNT_ATTR_STRICTATIME)
        mount.mount_setattr(fd, "", attr_clr=mount.MOUNT_ATTR__ATIME, attr_set=mount.MOUNT_ATTR_STRICTATIME)
        return [first, at(str(tmp_path))[1], caught.value.errno]

    assert privately(run) == ["rw,noatime", "rw", errno.EINVAL]


def test_propagation_and_its_groups(tmp_path):
    def run():
        for name in ("a", "b", "c"):
            os.mkdir(tmp_path / name)
            mount.mount("none", str(tmp_path / name), "tmpfs")
        fds = [mount.open_tree(AT_FDCWD, str(tmp_path / name)) for name in ("a", "b", "c")]
        mount.mount_setattr(fds[0], "", propagation=mount.MS_SHARED)
        mount.mount("none", str(tmp_path / "b"), None, mount.MS_UNBINDABLE)
        with pytest.raises(OSError):
            mount.set_group(fds[0], fds[1])  # another file system
        copy_fd = mount.open_tree(fds[0], "", mount.OPEN_TREE_CLONE)
        mount.mount_setattr(copy_fd, "", propagation=mount.MS_PRIVATE)
        mount.move_mount(copy_fd, "", fds[2], "")
        before = at(str(tmp_path / "c"))[3:]
        mount.set_group(fds[0], copy_fd)
        return [at(str(tmp_path / name))[3:] for name in ("a", "b", "c")] + [before]

    a, b, c, before = privately(run)
    assert a[0].startswith("shared:")
    assert b == ["unbindable"]
    assert (before, c) == ([], a)


@pytest.mark.parametrize(
    ("fstype", "key", "value", "reason"),
    [
        # Before it had a context of its own, overlay looked at its options when it was mounted.
        pytest.param("overlay", "nonsense", "1", "overlay: Unknown parameter 'nonsense'", marks=requires("kernel:6.5")),
        ("tmpfs", "size", "lots", "tmpfs: Bad value for 'size'"),
        ("tmpfs", "huge", "perhaps", "tmpfs: Bad value for 'huge'"),
        ("proc", "subset", "all", "proc: unsupported subset option - all"),
    ],
)
def test_reasons_of_a_context_are_in_the_error(fstype, key, value, reason):
    context_fd = mount.fsopen(fstype)
    try:
        assert not os.get_inheritable(context_fd)
        with pytest.raises(OSError, match="Invalid argument") as caught:
            mount.fsconfig_string(context_fd, key, value)
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, f"{key}={value}")
        assert reason in caught.value.strerror
        assert mount.context_log(context_fd) == []
        with pytest.raises(OSError) as caught:
            mount.fsmount(context_fd)
        assert (caught.value.errno, caught.value.strerror) == (errno.EINVAL, "Invalid argument")
    finally:
        os.close(context_fd)


def test_a_long_line_of_the_log_is_whole():
    def run():
        context_fd = mount.fsopen("tmpfs")
        with pytest.raises(OSError) as caught:
            mount.fsconfig_string(context_fd, "n" * 250, "1")
        return caught.value.strerror

    assert privately(run) == f"Invalid argument (tmpfs: Unknown parameter '{'n' * 250}')"


@requires("kernel:6.7")
def test_overlay_by_descriptors_or_paths(tmp_path):
    def run():
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(tmp_path / name)
        (tmp_path / "lower/file").write_text("below")
        mount.mount("none", str(tmp_path / "upper"), "tmpfs")
        for name in ("upper", "work"):
            os.mkdir(tmp_path / "upper" / name)
        context_fd = mount.fsopen("overlay")
        mount.fsconfig_string(context_fd, "lowerdir+", str(tmp_path / "lower"))
        mount.fsconfig_string(context_fd, "upperdir", str(tmp_path / "upper/upper"))
        mount.fsconfig_string(context_fd, "workdir", str(tmp_path / "upper/work"))
        mount.fsconfig_create(context_fd)
        fd = mount.fsmount(context_fd, mount.MOUNT_ATTR_NODEV)
        mount.move_mount(fd, "", AT_FDCWD, str(tmp_path / "merged"))
        (tmp_path / "merged/new").write_text("x")
        return [
            sorted(os.listdir(tmp_path / "merged")),
            os.listdir(tmp_path / "upper/upper"),
            at(f"{tmp_path}/merged")[:2],
        ]

    assert privately(run) == [["file", "new"], ["new"], ["overlay", "rw,nodev,relatime"]]


def test_reconfigure_a_picked_file_system(tmp_path):
    def run():
        mount.mount("none", str(tmp_path), "tmpfs", 0, "size=64k")
        fd = os.open(tmp_path, os.O_PATH)
        for picked_fd in (mount.fspick(AT_FDCWD, str(tmp_path)), mount.fspick(fd, "")):
            assert not os.get_inheritable(picked_fd)
            mount.fsconfig_flag(picked_fd, "ro")
            mount.fsconfig_reconfigure(picked_fd)
        return at(str(tmp_path))[2]

    assert privately(run).startswith("ro")


@requires("kernel:6.3")  # of tmpfs
def test_idmapped_mount(tmp_path):
    def run():
        mount.mount("none", str(tmp_path), "tmpfs")
        (tmp_path / "file").write_text("")
        os.chown(tmp_path / "file", 5, 6)
        userns_fd = mapped_namespace("0 100000 65536")
        tree_fd = mount.open_tree(AT_FDCWD, str(tmp_path), mount.OPEN_TREE_CLONE)
        mount.mount_setattr(tree_fd, "", userns_fd=userns_fd)
        mount.move_mount(tree_fd, "", AT_FDCWD, str(tmp_path))
        status = os.stat(tmp_path / "file")
        return [status.st_uid, status.st_gid]

    assert privately(run) == [100005, 100006]


def mapped_namespace(mapping: str) -> int:
    """A user namespace with a map, kept alive by the descriptor."""
    ready_r, ready_w = os.pipe()
    done_r, done_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            os.write(ready_w, b"x")
            os.close(done_w)
            os.read(done_r, 1)
        finally:
            os._exit(0)
    os.read(ready_r, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(mapping)
    fd = namespaces.open_namespace(pid, "user")
    os.close(done_w)
    os.waitpid(pid, 0)
    return fd


def test_pivot_root_and_unmount_by_dots(tmp_path):
    def run():
        os.mkdir(tmp_path / "new")
        mount.mount("none", str(tmp_path / "new"), "tmpfs")
        os.mkdir(tmp_path / "new/marker")
        os.chdir(tmp_path / "new")
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/")

    assert privately(run) == ["marker"]


def test_a_mount_that_was_never_attached_goes_with_its_descriptor(tmp_path):
    before = len(mountinfo())
    os.close(tmpfs())
    assert len(mountinfo()) == before


def test_old_calls_name_their_target(tmp_path):
    with pytest.raises(OSError) as caught:
        mount.umount2(str(tmp_path))
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path))
    with pytest.raises(OSError) as caught:
        mount.fsopen("nosuchfs")
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "nosuchfs")


def test_mount_points_with_spaces_and_newlines_are_read_back(tmp_path):
    point = f"{tmp_path}/a b\n\\c\td"

    def run():
        os.mkdir(point)
        mount.mount("a source", point, "tmpfs")
        entry = [entry for entry in mountinfo(f"/proc/{os.getpid()}/mountinfo") if entry.mount_point == point]
        return [len(entry), entry[0].source]

    assert privately(run) == [1, "a source"]
