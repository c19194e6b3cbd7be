from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from hutch.linux import paths
from hutch.linux.paths import Root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_text("root:x:0:0")
    with Root.at(str(tmp_path / "root")) as opened:
        yield opened


def name_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.fixture
def inside(tmp_path):
    return str(tmp_path / "root")


class TestOpen:
    @pytest.mark.parametrize(
        "path", ["etc/passwd", "/etc/passwd", "../../etc/passwd", "/etc/../../etc/passwd", b"etc/passwd"]
    )
    def test_every_spelling_stays_below(self, root, inside, path):
        assert name_of(root.open(path, os.O_RDONLY)) == f"{inside}/etc/passwd"

    @pytest.mark.parametrize("path", ["", "/", "..", ".", "//"])
    def test_the_root_itself(self, root, inside, path):
        assert name_of(root.open(path, os.O_PATH)) == inside

    def test_links_are_links_inside(self, root, inside):
        os.symlink("/etc", f"{inside}/absolute")
        os.symlink("../../../../etc", f"{inside}/relative")
        for name in ("absolute", "relative"):
            assert name_of(root.open(f"{name}/passwd", os.O_PATH)) == f"{inside}/etc/passwd"

    def test_what_is_outside_is_missing(self, root, tmp_path, inside):
        os.symlink(str(tmp_path / "outside"), f"{inside}/out")
        with pytest.raises(FileNotFoundError) as caught:
            root.open("out/secret", os.O_RDONLY)
        assert caught.value.filename == "out/secret"

    def test_descriptor_is_close_on_exec(self, root):
        fd = root.open("etc", os.O_RDONLY)
        assert not os.get_inheritable(fd)
        os.close(fd)

    def test_magic_links_are_refused(self, root):
        with Root.at("/proc") as proc, pytest.raises(OSError) as caught:
            proc.open("self/cwd", os.O_PATH)
        assert caught.value.errno == errno.ELOOP

    def test_empty_path_is_not_the_directory_for_openat2(self, root):
        with pytest.raises(FileNotFoundError):
            paths.openat2(root.fd, "", os.O_PATH)

    def test_endless_races_end(self, root, monkeypatch):
        calls = []

        def lost(*_: object, path: str) -> int:
            calls.append(path)
            raise OSError(errno.EAGAIN, "again", path)

        monkeypatch.setattr(paths, "syscall", lost)
        with pytest.raises(BlockingIOError):
            root.open("etc", os.O_PATH)
        assert 100 < len(calls) < 1000


class TestParent:
    @pytest.mark.parametrize(
        ("path", "directory", "name"),
        [
            ("etc/passwd", "/etc", b"passwd"),
            ("/etc/passwd/", "/etc", b"passwd"),
            ("passwd", "", b"passwd"),
            ("/", "", b"."),
            ("", "", b"."),
            ("..", "", b"."),
            ("etc/.", "/etc", b"."),
            ("etc/..", "", b"."),
            ("etc/../etc/new", "/etc", b"new"),
            ("link/new", "/etc", b"new"),
            ("link", "", b"link"),
        ],
    )
    def test_where_and_what(self, root, inside, path, directory, name):
        os.symlink("/etc", f"{inside}/link")
        fd, last = root.parent(path)
        assert (name_of(fd), last) == (inside + directory, name)

    def test_the_dot_it_gives_cannot_be_removed(self, root):
        fd, last = root.parent("etc/.")
        with pytest.raises(OSError, match="Invalid argument"):
            os.rmdir(last, dir_fd=fd)
        os.close(fd)


class TestMkdirs:
    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_makes_what_is_missing_with_the_exact_mode(self, root, inside, umask):
        before = os.umask(umask)
        try:
            made = name_of(root.mkdirs("/etc/a/b/../c", 0o751))
        finally:
            os.umask(before)
        assert made == f"{inside}/etc/a/c"
        assert [stat.S_IMODE(os.stat(f"{inside}/etc/{name}").st_mode) for name in ("a", "a/b", "a/c")] == [0o751] * 3

    def test_set_group_id_is_inherited_not_lost(self, root, inside):
        os.chmod(f"{inside}/etc", 0o2755)
        os.close(root.mkdirs("etc/new", 0o770))
        assert stat.S_IMODE(os.stat(f"{inside}/etc/new").st_mode) == 0o2770

    @pytest.mark.parametrize("target", ["/run", "../run", "/etc/../run/.", "../../../run"])
    def test_dangling_link_makes_its_target_inside(self, root, inside, target):
        os.mkdir(f"{inside}/var")
        os.symlink(target, f"{inside}/var/run")
        assert name_of(root.mkdirs("var/run/app")) == f"{inside}/run/app"

    def test_existing_is_opened(self, root, inside):
        assert name_of(root.mkdirs("etc")) == f"{inside}/etc"

    def test_a_file_in_the_way(self, root):
        with pytest.raises(NotADirectoryError) as caught:
            root.mkdirs("etc/passwd/x/y")
        assert caught.value.filename == "etc/passwd/x/y"

    def test_loop(self, root, inside):
        os.symlink("b", f"{inside}/a")
        os.symlink("a", f"{inside}/b")
        with pytest.raises(OSError) as caught:
            root.mkdirs("a/x")
        assert caught.value.errno == errno.ELOOP

    def test_loop_met_while_making(self, root, inside):
        os.symlink("/missing/../deep/loop", f"{inside}/etc/loop")
        os.mkdir(f"{inside}/deep")
        os.symlink("/etc/loop", f"{inside}/deep/loop")
        with pytest.raises(OSError) as caught:
            root.mkdirs("etc/loop/x")
        assert caught.value.errno == errno.ELOOP

    def test_no_descriptor_is_left(self, root, inside):
        before = os.listdir("/proc/self/fd")
        os.symlink("/gone/for/good", f"{inside}/link")
        os.close(root.mkdirs("link/a/../../b"))
        with pytest.raises(NotADirectoryError):
            root.mkdirs("new/../etc/passwd/x")
        assert os.listdir("/proc/self/fd") == before


class TestCreate:
    def test_exact_mode_and_parents(self, root, inside):
        before = os.umask(0o077)
        try:
            fd = root.create("run/secrets/key", 0o640)
        finally:
            os.umask(before)
        os.write(fd, b"k")
        assert os.pread(fd, 10, 0) == b"k"
        assert not os.get_inheritable(fd)
        os.close(fd)
        assert stat.S_IMODE(os.stat(f"{inside}/run/secrets/key").st_mode) == 0o640
        assert stat.S_IMODE(os.stat(f"{inside}/run/secrets").st_mode) == 0o755

    @pytest.mark.parametrize("target", ["/nowhere", "/etc/passwd", "../../outside/new"])
    def test_a_link_of_that_name_is_refused(self, root, inside, tmp_path, target):
        os.symlink(target, f"{inside}/etc/hosts")
        with pytest.raises(FileExistsError) as caught:
            root.create("etc/hosts")
        assert caught.value.filename == "etc/hosts"
        assert os.listdir(tmp_path / "outside") == ["secret"]

    @pytest.mark.parametrize("path", ["", "/", "etc/.", "etc/.."])
    def test_no_name(self, root, path):
        with pytest.raises(IsADirectoryError):
            root.create(path)


class TestRead:
    def test_limit_is_inclusive(self, root):
        assert root.read("etc/passwd", 10) == b"root:x:0:0"
        with pytest.raises(OSError) as caught:
            root.read("etc/passwd", 9)
        assert caught.value.errno == errno.EFBIG

    def test_sparse_giant_is_refused_without_reading_it(self, root, inside):
        with open(f"{inside}/etc/group", "wb") as file:
            file.truncate(10 << 30)
        began = time.monotonic()
        with pytest.raises(OSError) as caught:
            root.read("etc/group", 1 << 20)
        assert caught.value.errno == errno.EFBIG
        assert time.monotonic() - began < 1

    def test_c09_fifo_neither_hangs_nor_counts(self, root, inside):
        os.mkfifo(f"{inside}/etc/fifo")
        began = time.monotonic()
        for path in ("etc/fifo", "etc"):
            with pytest.raises(OSError, match="not a regular file") as caught:
                root.read(path, 100)
            assert caught.value.errno == errno.EINVAL
        assert time.monotonic() - began < 1

    def test_no_descriptor_is_left(self, root):
        before = os.listdir("/proc/self/fd")
        for path in ("etc", "etc/passwd"):
            with pytest.raises(OSError):
                root.read(path, 1)
        assert os.listdir("/proc/self/fd") == before


def test_close_twice(root):
    fd = root.fd
    root.close()
    root.close()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_filesystem_type_of_o_path_descriptors():
    fd = paths.open_path("/proc/self/status")
    assert paths.filesystem_type(fd) == 0x9FA0
    os.close(fd)
