from __future__ import annotations

import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.engine.rootview import LayersView
from hutch.engine.users import ID_MAX, resolve_user
from hutch.errors import InvalidArgument

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n1234:x:0:0::/:/bin/sh\nweb:x:33:33::/srv:\n"
)
GROUP = b"root:x:0:\napp:x:1001:\nwheel:x:10:app,web\naudio:x:63:app\n1234:x:0:app\n"


@pytest.fixture
def view(tmp_path):
    os.mkdir(tmp_path / "etc")
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    (tmp_path / "etc/group").write_bytes(GROUP)
    with LayersView([str(tmp_path)], "trusted") as opened:
        yield opened


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0,), "/root"),
        ("app", 1000, 1001, (1001, 10, 63, 0), "/home/app"),
        ("1000", 1000, 1001, (1001, 10, 63, 0), "/home/app"),
        ("app:wheel", 1000, 10, (10,), "/home/app"),
        ("app:5", 1000, 5, (5,), "/home/app"),
        ("77", 77, 0, (0,), "/"),
        ("77:88", 77, 88, (88,), "/"),
        (":10", 0, 10, (10,), "/root"),
    ],
)
def test_users_as_docker_resolves_them(view, user, uid, gid, groups, home):
    found = resolve_user(user, (), view)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


def test_c04_groups_are_the_primary_then_the_files_then_the_flags(view):
    assert resolve_user("app", ("audio", "99"), view).groups == (1001, 10, 63, 0, 99)
    assert resolve_user("web", (), view).groups == (33, 10)


@pytest.mark.parametrize(
    "user",
    [
        "2147483648",
        "4294967295",
        "4294967296",
        "-1",
        "1e3",
        "０",
        "٠",
        "0x10",
        "1:4294967295",
        "99999999999999999999",
        "app:-1",
    ],
)
def test_c05_ids_outside_the_range_are_errors(view, user):
    with pytest.raises(InvalidArgument):
        resolve_user(user, (), view)


def test_c06_digits_are_never_a_name(view):
    assert resolve_user("1234", (), view).uid == 1234
    assert resolve_user("app:1234", (), view).gid == 1234


@given(uid=st.integers(0, ID_MAX), gid=st.integers(0, ID_MAX))
def test_c07_numbers_come_back_as_they_went_in(uid, gid):
    class Nothing:
        def read(self, path, limit):
            raise FileNotFoundError(2, "no such file")

    found = resolve_user(f"{uid}:{gid}", (), Nothing())
    assert (found.uid, found.gid) == (uid, gid)


def test_c08_files_beyond_the_bounds_are_errors(tmp_path):
    os.mkdir(tmp_path / "etc")
    for name, make in (
        ("sparse", lambda file: file.truncate(10 << 30)),
        ("one line", lambda file: file.write(b"x" * 70_000)),
    ):
        with open(tmp_path / "etc/passwd", "wb") as file:
            make(file)
        with (
            LayersView([str(tmp_path)], "trusted") as view,
            pytest.raises(InvalidArgument, match="larger than|longer than"),
        ):
            resolve_user(name.replace(" ", ""), (), view)


def test_c08_a_million_groups_cost_bounded_time(tmp_path):
    os.mkdir(tmp_path / "etc")
    (tmp_path / "etc/passwd").write_bytes(b"a:x:1:1::/:\n")
    (tmp_path / "etc/group").write_bytes(b"".join(b"g%d:x:%d:a\n" % (n, n) for n in range(1_000_000)))
    with LayersView([str(tmp_path)], "trusted") as view, pytest.raises(InvalidArgument, match="larger than"):
        resolve_user("a", (), view)


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "link to a fifo outside", "loop"])
def test_c09_what_is_not_a_regular_file_is_an_error_at_once(tmp_path, kind):
    root = tmp_path / "root"
    os.makedirs(root / "etc")
    target = root / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "directory":
        os.mkdir(target)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            old = os.getcwd()
            os.chdir(root / "etc")
            made.bind("passwd")
            os.chdir(old)
    elif kind == "loop":
        os.symlink("passwd", target)
    else:
        os.mkfifo(tmp_path / "pipe")
        os.symlink(str(tmp_path / "pipe"), target)
    start = time.monotonic()
    with LayersView([str(root)], "trusted") as view, pytest.raises(InvalidArgument, match="passwd"):
        resolve_user("app", (), view)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("user", ["a\nb", "a\0", "root:x:0", "a:b:c", "root\r"])
def test_c10_control_characters_and_extra_fields_are_refused(view, user):
    with pytest.raises(InvalidArgument):
        resolve_user(user, (), view)


def test_c10_a_home_that_would_inject_is_refused(tmp_path):
    os.mkdir(tmp_path / "etc")
    (tmp_path / "etc/passwd").write_bytes(b"a:x:1:1::/home/\x0bx:\n")
    with LayersView([str(tmp_path)], "trusted") as view, pytest.raises(InvalidArgument, match="home"):
        resolve_user("a", (), view)


def test_the_files_are_found_through_layers_links_and_whiteouts(tmp_path):
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    os.makedirs(base / "usr/lib")
    os.makedirs(base / "etc")
    (base / "usr/lib/passwd").write_bytes(PASSWD)
    os.makedirs(middle / "etc")
    os.symlink("../../../usr/lib/passwd", middle / "etc/passwd")
    os.makedirs(top / "usr")
    with LayersView([str(top), str(middle), str(base)], "trusted") as view:
        assert resolve_user("app", (), view).uid == 1000
    (top / "usr/.wh.lib").write_bytes(b"")
    with (
        LayersView([str(top), str(middle), str(base)], "plain") as view,
        pytest.raises(InvalidArgument, match="unable to find user"),
    ):
        resolve_user("app", (), view)
