from __future__ import annotations

import os

import pytest

from hutch.engine import inits
from hutch.engine.host import HostFacts
from hutch.engine.options import RunOptions, parse_security
from hutch.engine.rootview import LayersView
from hutch.errors import InvalidArgument


@pytest.mark.parametrize(
    "words",
    "/sbin/init,/usr/sbin/init,/usr/local/sbin/init,/bin/init,init,systemd,/lib/systemd/systemd,openrc-init,"
    "/usr/lib/systemd/systemd --system,/sbin/openrc-init,busybox init,/bin/busybox init".split(","),
)
def test_an_init_is_known_by_its_command(words):
    assert inits.is_candidate(words.split())


@pytest.mark.parametrize(
    "words", ["sh", "/opt/app/init", "/init", "busybox", "busybox sh", "/sbin/initctl", "systemd2"]
)
def test_other_commands_are_none(words):
    assert not inits.is_candidate(words.split())


def test_modes():
    assert [inits.parse_mode(text) for text in ("auto", "true", "always", "false")] == [
        "auto",
        "auto",
        "always",
        "false",
    ]
    with pytest.raises(InvalidArgument, match="invalid --systemd value 'yes'"):
        inits.parse_mode("yes")


def test_what_sbin_init_is_a_link_to_says_which_init_it_is(tmp_path):
    os.makedirs(tmp_path / "usr/sbin")
    os.makedirs(tmp_path / "bin")
    os.symlink("usr/sbin", tmp_path / "sbin")
    (tmp_path / "bin/busybox").write_text("")
    (tmp_path / "usr/sbin/openrc-init").write_text("")
    with LayersView([str(tmp_path)], "user") as view:

        def stops(*args: str) -> str:
            return inits.init_system(list(args), view).stop_signal

        assert stops("/sbin/init") == "RTMIN+3"  # there is none: it fails when it is started, not here
        os.symlink("/bin/busybox", tmp_path / "usr/sbin/init")
        assert stops("/sbin/init") == stops("init") == stops("busybox", "init") == "USR2"
        os.unlink(tmp_path / "usr/sbin/init")
        os.symlink("openrc-init", tmp_path / "usr/sbin/init")
        assert stops("/sbin/init") == stops("/sbin/openrc-init") == "TERM"
        os.unlink(tmp_path / "usr/sbin/init")
        os.symlink("init", tmp_path / "usr/sbin/init")
        assert stops("/sbin/init") == "RTMIN+3"  # a loop is no reason to fail either
    assert inits.init_system(["/lib/systemd/systemd"], view).masked


def test_reboot_is_given_along_with_private_ids_and_processes_alone():
    facts = HostFacts(permitted=frozenset(["CAP_SYS_BOOT"]))
    assert inits.may_reboot(RunOptions(), facts, userns=True)
    assert not inits.may_reboot(RunOptions(), facts, userns=False)  # it would be kexec_load(2) of the host's kernel
    assert not inits.may_reboot(RunOptions(pid="host"), facts, userns=True)
    assert not inits.may_reboot(RunOptions(cap_drop=("sys_boot",)), facts, userns=True)
    assert not inits.may_reboot(RunOptions(cap_drop=("ALL",)), facts, userns=True)
    assert not inits.may_reboot(RunOptions(security=parse_security(("profile=strict",))), facts, userns=True)
    assert not inits.may_reboot(RunOptions(), HostFacts(), userns=True)


def test_on_cgroup_v2_the_whole_cgroup_can_be_written():
    found = {mount["destination"]: mount for mount in inits.mounts(inits.InitSystem(), HostFacts(cgroup2=True))}
    assert list(found) == ["/run", "/run/lock", "/tmp", "/var/log/journal", "/sys/fs/cgroup"]
    assert found["/sys/fs/cgroup"]["type"] == "cgroup"
    assert "ro" not in found["/sys/fs/cgroup"]["options"]
    assert "noexec" not in found["/run"]["options"]


def test_two_inits_are_too_many():
    with pytest.raises(InvalidArgument, match="conflicting options: --init and --systemd=always"):
        RunOptions(init=True, systemd="always").checked()
