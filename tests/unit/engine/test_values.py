from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.engine import values
from hutch.engine.mountspec import parse_device, parse_mount, parse_tmpfs, parse_volume, parse_volumes_from
from hutch.engine.options import parse_add_host, parse_dns_search, parse_security, parse_sysctl, parse_ulimit
from hutch.engine.record import Record
from hutch.errors import InvalidArgument, NotSupported


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("32", 32), ("32b", 32), ("32B", 32), ("32k", 32768), ("32K", 32768),
        ("32kb", 32768), ("32KiB", 32768),
        ("32Mb", 32 << 20), ("1.5g", 3 << 29), ("32.3kb", 33075), ("1T", 1 << 40), ("1p", 1 << 50), ("32 kb", 32768),
    ],
)  # fmt: skip
def test_sizes_as_docker_reads_them(text, size):
    assert values.parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "hello", "-32", ".3kb", "32.mb", "32ib", "32m b", "32bm", "٣", "1e9", "9" * 30, "99999p"]
)
def test_what_is_no_size(text):
    with pytest.raises(InvalidArgument):
        values.parse_bytes(text)


@given(st.integers(0, 10**11))
def test_nano_cpus_keep_every_digit(nanos):
    assert values.parse_nano_cpus(f"{nanos // 10**9}.{nanos % 10**9:09d}") == nanos


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text):
    for parse in (
        values.parse_bytes, values.parse_nano_cpus, values.parse_cpuset, values.parse_signal, values.parse_env,
        parse_volume, parse_mount, parse_tmpfs, parse_device, parse_add_host, parse_sysctl, parse_ulimit,
        parse_volumes_from, parse_dns_search,
    ):  # fmt: skip
        try:
            parse(text)
        except (InvalidArgument, NotSupported):
            continue


def test_signals():
    assert [values.parse_signal(text) for text in ("TERM", "sigkill", "SIGRTMIN+3", "9")] == [15, 9, 37, 9]


def test_volumes():
    bind = parse_volume("/src:/a/../dst/:ro,rshared")
    assert (bind.kind, bind.source, bind.target, bind.read_only, bind.propagation) == (
        "bind",
        "/src",
        "/dst",
        True,
        "rshared",
    )
    assert parse_volume("./x:/y").kind == "bind"
    named = parse_volume("data:/var/lib:nocopy")
    assert (named.kind, named.source, named.copy_up) == ("volume", "data", False)
    assert parse_volume("/only").source == ""


def test_mounts():
    found = parse_mount('type=bind,"src=/a,b",dst=/c,readonly,bind-propagation=rslave')
    assert (found.source, found.target, found.read_only, found.propagation) == ("/a,b", "/c", True, "rslave")
    tmpfs = parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770")
    assert tmpfs.data == ("size=1048576", "mode=1770")
    assert parse_mount("type=image,src=busybox,dst=/i").read_only is True
    assert parse_tmpfs("/t:size=64k,mode=700,exec,ro").data == ("size=65536", "mode=700")


def test_devices():
    assert parse_device("/dev/fuse").access == "rwm"
    found = parse_device("/dev/a:/dev/b:r")
    assert (found.target, found.access) == ("/dev/b", "r")
    assert parse_device("/dev/a:rw").target == "/dev/a"


@pytest.mark.parametrize(
    "text",
    [
        "kernel.core_pattern=|/x", "kernel.sysrq=1", "vm.swappiness=1", "net/../kernel.core_pattern=1", "net..x=1",
        "net.ipv4.ip_forward=1\nkernel.core_pattern=x", "net.ipv4.x=1+kernel.y=2", "kernel.msgmax=", "net.ipv4.x",
    ],
)  # fmt: skip
def test_c14_sysctls_outside_the_namespaced_list_or_charset(text):
    with pytest.raises(InvalidArgument):
        parse_sysctl(text)


@pytest.mark.parametrize("text", ["a\nb:1.2.3.4", "a:1.2.3.4\n5.6.7.8 evil", "a b:1.2.3.4", "a:b", "x=1.2.3.4\r"])
def test_c10_hosts_that_would_inject_a_line(text):
    with pytest.raises(InvalidArgument):
        parse_add_host(text)


def test_security_options_gather():
    found = parse_security(("no-new-privileges", "seccomp=unconfined", "profile=strict", "label:disable"))
    assert (found.no_new_privileges, found.seccomp, found.profile, found.labels) == (
        True,
        "unconfined",
        "strict",
        ("disable",),
    )
    assert parse_security(("no-new-privileges=false",)).no_new_privileges is False


def test_records_are_frozen_values():
    class Point(Record):
        x: int
        y: int = 2

    assert Point(x=1) == Point(x=1, y=2)
    assert Point(x=1).replace(y=3).y == 3
    assert hash(Point(x=1)) == hash(Point(x=1, y=2))
    with pytest.raises(AttributeError):
        Point(x=1).x = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="needs the field 'x'"):
        Point()
    with pytest.raises(TypeError, match="no field 'z'"):
        Point(x=1, z=1)


def test_volumes_with_options_and_from_others():
    given = parse_mount('src=v,dst=/x,volume-subpath=a/b,volume-opt=type=tmpfs,"volume-opt=o=size=1m,uid=5"')
    assert (given.subpath, given.volume_options) == ("a/b", (("type", "tmpfs"), ("o", "size=1m,uid=5")))
    for text, message in (
        ("src=v,dst=/x,volume-subpath=", "must be a relative path"),
        ("src=v,dst=/x,volume-subpath=a/../b", "must be a relative path"),
        ("src=v,dst=/x,volume-opt=size", "must be key=value"),
        ("type=tmpfs,dst=/x,volume-opt=a=b", r"cannot mix 'volume-\*' options"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            parse_mount(text)
    other = parse_volumes_from("web:ro")
    assert (other.kind, other.source, other.read_only) == ("from", "web", True)
    assert not parse_volumes_from("web").read_only
    for text in ("", ":ro", "web:", "web:rx", "web:ro:rw", "a\nb"):
        with pytest.raises(InvalidArgument, match="invalid"):
            parse_volumes_from(text)


@pytest.mark.parametrize("text", [".", "example.org", "a", "a-b.c1.", "1.2.x", "x" * 63 + ".org"])
def test_search_domains(text):
    assert parse_dns_search(text) == text


@pytest.mark.parametrize(
    "text", ["", "..", "bad..name", "-a.org", "a-.org", "a_b.org", "1.2.3", "a b", "a\n", "x." * 127 + "xx", "ä.org"]
)
def test_what_is_no_search_domain(text):
    with pytest.raises(InvalidArgument, match="is not a valid domain"):
        parse_dns_search(text)
