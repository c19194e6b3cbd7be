"""`hutch run` as an ordinary user, with subordinate ids and without."""

from __future__ import annotations

import os

import pytest

from tests.support.host import is_cgroup2, requires
from tests.support.images import Image
from tests.support.registries import Registry
from tests.support.users import OrdinaryUser

pytestmark = requires("userns")


def run(user: OrdinaryUser, *argv: str, status: int = 0, **more):
    done = user.run([user.hutch, "run", "--rm", *argv], check=False, **more)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def nothing_is_left(user: OrdinaryUser) -> None:
    data = f"{user.home}/.local/share/hutch"
    assert os.listdir(f"{data}/containers") == []
    assert os.listdir(f"{data}/snapshots") == []
    assert os.listdir(f"{user.runtime_dir}/hutch/runtime") == []


@pytest.mark.host
def test_the_running_system_with_subordinate_ids(ordinary_user):
    done = run(
        ordinary_user,
        "@host",
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; hostname; touch /etc/x && echo wrote; ls /proc | head -1",
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(ordinary_user.uid), "1"]
    first, count = ordinary_user.subids
    assert lines[2].split() == ["1", str(first), str(count)]
    assert lines[4:] == ["wrote", "1"]
    nothing_is_left(ordinary_user)


@pytest.mark.host
def test_the_running_system_with_a_single_id(single_id_user):
    done = run(single_id_user, "@host", "sh", "-c", "id -u; cat /proc/self/uid_map; grep NoNew /proc/self/status")
    assert done.stdout.splitlines()[0] == "0"
    assert done.stdout.splitlines()[1].split() == ["0", str(single_id_user.uid), "1"]
    nothing_is_left(single_id_user)
    message = run(single_id_user, "-u", "5", "@host", "true", status=125).stderr
    assert "id 5 is not mapped" in message
    assert "/etc/subuid" in message


@pytest.mark.parametrize("kind", ["ordinary_user", "single_id_user"])
def test_an_image(kind, request, registry: Registry, busybox_image: Image):
    user = request.getfixturevalue(kind)
    name = busybox_image.push(registry, "user/busybox:latest")
    assert (
        run(user, name, "sh", "-c", "echo $HOME; ls -ld /root | cut -c1-10; echo > /made").stdout
        == "/root\ndrwx------\n"
    )
    assert run(user, "-v", "data:/etc", name, "cat", "/etc/shells").stdout == "/bin/sh\n"
    if kind == "ordinary_user":
        assert run(user, "-u", "app", name, "id").stdout.startswith("uid=1000(app) gid=1000(app)")
        shown = run(user, "--userns", "keep-id", "-u", str(user.uid), name, "id", "-u").stdout
        assert shown == f"{user.uid}\n"
    nothing_is_left(user)


@pytest.mark.host
def test_limits_without_a_cgroup_are_refused_clearly(ordinary_user):
    done = run(ordinary_user, "-m", "64m", "@host", "true", status=125)
    assert "--memory: this user has no cgroup to set limits in: " in done.stderr
    if is_cgroup2():
        unreachable = f"cannot be reached at {ordinary_user.runtime_dir}/bus"  # of one who has a manager elsewhere
        assert f"no systemd manager runs for user {ordinary_user.uid}" in done.stderr or unreachable in done.stderr
    else:
        assert "that takes cgroup v2" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.host
def test_terminal_host_network_and_exit_statuses(ordinary_user):
    assert run(ordinary_user, "-t", "@host", "tty").stdout == "/dev/pts/0\r\n"
    assert run(ordinary_user, "--network=host", "@host", "readlink", "/proc/self/ns/net").stdout.strip() == os.readlink(
        "/proc/self/ns/net"
    )
    run(ordinary_user, "@host", "nosuch", status=127)
    run(ordinary_user, "@host", "sh", "-c", "exit 9", status=9)
    nothing_is_left(ordinary_user)


@pytest.mark.host
def test_modes_a_user_cannot_have(ordinary_user):
    assert (
        "need a user namespace of their own" in run(ordinary_user, "--userns=host", "@host", "true", status=125).stderr
    )


@pytest.mark.host
def test_info_tells_what_a_user_has(ordinary_user):
    done = ordinary_user.run([ordinary_user.hutch, "info"])
    assert "UserNamespace: subordinate ids" in done.stdout
    assert "Rootless: yes" in done.stdout
