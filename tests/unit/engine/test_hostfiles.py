from __future__ import annotations

import os

import pytest

from hutch.engine import hostfiles
from hutch.engine.host import HostFacts
from hutch.engine.options import RunOptions
from hutch.engine.userns import check_available, id_maps
from hutch.errors import InvalidArgument, NotSupported


def test_hosts_has_loopback_the_container_and_what_was_added():
    options = RunOptions(add_host=(("db", "10.0.0.9"),), domainname="lan")
    text = hostfiles.hosts(options, "box")
    assert "127.0.0.1\tlocalhost\n" in text
    assert "10.0.0.9\tdb\n" in text
    assert text.endswith("127.0.1.1\tbox.lan box\n")


def test_hosts_of_the_host_network_are_the_hosts(tmp_path):
    (tmp_path / "hosts").write_text("1.2.3.4 here")
    options = RunOptions(network="host", add_host=(("db", "::1"),))
    assert hostfiles.hosts(options, "box", host_file=str(tmp_path / "hosts")) == "1.2.3.4 here\n::1\tdb\n"


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "a\x1b", "a\u2028b"])
def test_c10_no_value_starts_a_line_of_its_own(value):
    with pytest.raises(InvalidArgument):
        hostfiles.hostname_file(value)
    with pytest.raises(InvalidArgument):
        hostfiles.hosts(RunOptions(add_host=((value, "1.2.3.4"),)), "box")
    with pytest.raises(InvalidArgument):
        hostfiles.resolv_conf(RunOptions(dns=(value,)), host_file="/nonexistent")


def test_resolv_conf(tmp_path):
    host = tmp_path / "resolv.conf"
    host.write_text("nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n# comment\n")
    assert hostfiles.resolv_conf(RunOptions(network="host"), host_file=str(host)) == (
        "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"
    )
    assert "nameserver" not in hostfiles.resolv_conf(RunOptions(), host_file=str(host))
    given = RunOptions(network="host", dns=("1.1.1.1",), dns_search=(".",), dns_option=("x",))
    assert hostfiles.resolv_conf(given, host_file=str(host)) == "nameserver 1.1.1.1\noptions x\n"


def test_files_are_written_anew_and_never_through_a_link(tmp_path):
    hostfiles.write_files(str(tmp_path), {"hosts": "x"}, None)
    assert (tmp_path / "hosts").read_text() == "x"
    os.symlink("/etc/passwd", tmp_path / "hostname")
    with pytest.raises(OSError, match="symbolic links"):
        hostfiles.write_files(str(tmp_path), {"hostname": "x"}, None)


@pytest.mark.parametrize("name", ["user/max_user_namespaces", "kernel/unprivileged_userns_clone"])
def test_a_host_without_user_namespaces_is_told_by_its_setting(tmp_path, name):
    os.makedirs(tmp_path / os.path.dirname(name))
    (tmp_path / name).write_text("0\n")
    with pytest.raises(NotSupported, match="user namespaces are disabled") as caught:
        check_available(str(tmp_path))
    assert name.replace("/", ".") in caught.value.hint
    (tmp_path / name).write_text("100\n")
    check_available(str(tmp_path))


def test_root_falls_back_or_refuses_when_something_rules_a_private_range_out(tmp_path):
    facts = HostFacts()
    for options in (RunOptions(network="host"), RunOptions(privileged=True), RunOptions(userns="host")):
        assert id_maps(options, facts, lambda: 1 << 20, root=str(tmp_path)).uids == ()
    with pytest.raises(InvalidArgument, match="conflicting options: --pid=host and --userns=auto"):
        id_maps(RunOptions(pid="host", userns="auto"), facts, lambda: 1 << 20, root=str(tmp_path))
