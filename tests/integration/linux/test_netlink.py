"""rtnetlink in private network namespaces, with pyroute2 as the second opinion."""

from __future__ import annotations

import errno
import os

import pytest

from hutch.linux import namespaces
from hutch.linux.netlink import Netlink
from tests.support import requires
from tests.support.child import in_child

pytestmark = requires("root", "module:pyroute2")


def in_netns(function):
    """`function` in a child with an empty network namespace."""

    def run():
        namespaces.unshare(namespaces.CLONE_NEWNET)
        return function()

    return in_child(run)


def oracle():
    from pyroute2 import IPRoute

    return IPRoute()


def seen(ipr) -> dict[str, dict[str, object]]:
    """Interfaces by name, as pyroute2 sees them."""
    found = {}
    for link in ipr.get_links():
        info = link.get_attr("IFLA_LINKINFO")
        found[link.get_attr("IFLA_IFNAME")] = {
            "index": link["index"],
            "up": bool(link["flags"] & 1),
            "mtu": link.get_attr("IFLA_MTU"),
            "address": link.get_attr("IFLA_ADDRESS"),
            "master": link.get_attr("IFLA_MASTER") or 0,
            "kind": (info and info.get_attr("IFLA_INFO_KIND")) or "",
        }
    return found


def told(netlink: Netlink) -> dict[str, dict[str, object]]:
    """The same, as we tell it."""
    return {
        link.name: {
            "index": link.index,
            "up": link.up,
            "mtu": link.mtu,
            "address": ":".join(f"{byte:02x}" for byte in link.address),
            "master": link.master,
            "kind": link.kind,
        }
        for link in netlink.links()
    }


def test_links_are_what_pyroute2_sees():
    def run():
        with Netlink() as netlink, oracle() as ipr:
            netlink.link_up("lo")
            netlink.create_veth("left", "right", mtu=1400)
            netlink.create_bridge("br0")
            netlink.create_bridge("br1")
            netlink.link_set("left", master="br0", address=b"\x02\0\0\0\0\x01")
            netlink.link_set("br1", mtu=9000, new_name="renamed")
            netlink.link_up("br0")
            ours, theirs = told(netlink), seen(ipr)
            assert ours == theirs
            assert ours["left"]["mtu"] == 1400
            assert ours["left"]["master"] == ours["br0"]["index"]
            assert ours["left"]["address"] == "02:00:00:00:00:01"
            assert (ours["renamed"]["mtu"], ours["renamed"]["kind"]) == (9000, "bridge")
            assert (ours["lo"]["up"], ours["br0"]["up"], ours["right"]["up"]) == (True, True, False)
            assert netlink.link_get("left").peer == ours["right"]["index"]
            netlink.link_down("br0")
            netlink.link_set("left", master="")
            netlink.link_delete("right")
            assert told(netlink) == seen(ipr)
            return sorted(told(netlink))

    assert in_netns(run) == ["br0", "lo", "renamed"]


def test_addresses_and_routes_are_what_pyroute2_sees():
    def run():
        with Netlink() as netlink, oracle() as ipr:
            netlink.create_veth("d0", "d1")
            netlink.link_up("d1")
            netlink.link_up("d0")
            netlink.address_add("d0", "10.9.0.1/24")
            netlink.address_add("d0", "10.9.8.7/32")
            netlink.address_add("d0", "fd00:9::1/64", dad=False)
            netlink.route_add("default", gateway="10.9.0.254")
            netlink.route_add("10.77.0.0/16", name="d0", metric=5)
            netlink.route_add("", gateway="fd00:9::fe")
            netlink.route_add("fd77::/48", name="d0")
            ours = {(entry.index, entry.text, entry.prefix) for entry in netlink.addresses()}
            theirs = {(a["index"], a.get_attr("IFA_ADDRESS"), a["prefixlen"]) for a in ipr.get_addr()}
            assert ours == theirs
            addresses = {address.get_attr("IFA_ADDRESS"): address for address in ipr.get_addr()}
            assert addresses["10.9.0.1"].get_attr("IFA_BROADCAST") == "10.9.0.255"
            assert addresses["fd00:9::1"].get_attr("IFA_FLAGS") & 0x42 == 0x02  # nodad, not tentative
            routes = {
                (
                    f"{dst}/{route['dst_len']}" if (dst := route.get_attr("RTA_DST")) else "",
                    route.get_attr("RTA_GATEWAY") or "",
                    route.get_attr("RTA_OIF"),
                )
                for family in (2, 10)
                for route in ipr.get_routes(family=family, table=254)
                if route["type"] == 1
            }
            mine = {(route.destination, route.gateway, route.index) for route in netlink.routes()}
            assert mine == routes
            netlink.address_delete("d0", "10.9.8.7/32")
            left = [entry.text for entry in netlink.addresses("d0")]
            metrics = [
                r.get_attr("RTA_PRIORITY") for r in ipr.get_routes(family=2) if r.get_attr("RTA_DST") == "10.77.0.0"
            ]
            return [left, sorted(entry[0] for entry in mine), metrics]

    addresses, routes, metrics = in_netns(run)
    assert {"10.9.0.1", "fd00:9::1"} <= set(addresses)
    assert "10.9.8.7" not in addresses
    assert {"", "10.9.0.0/24", "10.77.0.0/16", "fd77::/48"} <= set(routes)
    assert metrics == [5]


def test_into_another_namespace_under_another_name():
    def run():
        here_fd = namespaces.open_namespace("self", "network")
        with Netlink() as outer:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            there_fd = namespaces.open_namespace("self", "network")
            with Netlink() as inner:
                namespaces.setns(here_fd, namespaces.CLONE_NEWNET)
                outer.create_veth("host0", "tmp0")
                outer.link_set_netns("tmp0", there_fd, "eth0")
                outer.create_veth("host1", "eth1", peer_netns_fd=there_fd)
                inner.address_add("eth0", "10.1.0.2/24")
                inner.link_up("eth0")
                inner.route_add("default", gateway="10.1.0.1")
                assert "host0" not in told(inner)
                with pytest.raises(FileExistsError) as caught:
                    outer.link_set_netns("host1", there_fd, "eth0")
                assert caught.value.filename == "host1"
                return [sorted(told(outer)), sorted(told(inner))]

    outer, inner = in_netns(run)
    assert outer == ["host0", "lo"]
    assert inner == ["eth0", "eth1", "host1", "lo"]  # moved, though not renamed


FAILURES = [
    (lambda netlink: netlink.link_get("nope"), errno.ENODEV, "nope", ""),
    (lambda netlink: netlink.link_up("nope"), errno.ENODEV, "nope", ""),
    (lambda netlink: netlink.link_set("lo", master="nope"), errno.ENODEV, "nope", ""),
    (lambda netlink: netlink.create_bridge("lo"), errno.EEXIST, "lo", ""),
    (lambda netlink: netlink.create_bridge("sixteen-bytes-xx"), errno.EINVAL, "sixteen-bytes-xx", "1 to 15 bytes"),
    (lambda netlink: netlink.create_bridge("a/b"), errno.EINVAL, "a/b", ""),
    (lambda netlink: netlink.link_set("lo", mtu=-1), errno.EINVAL, None, "out of range"),
    (lambda netlink: netlink.address_add("lo", "10.0.0.1"), errno.EINVAL, "10.0.0.1", "prefix length"),
    (lambda netlink: netlink.address_add("lo", "10.0.0.1/33"), errno.EINVAL, "10.0.0.1/33", "prefix length"),
    (lambda netlink: netlink.address_add("lo", "10.0.0.256/8"), errno.EINVAL, "10.0.0.256", "not an address"),
    (lambda netlink: netlink.address_add("lo", "10.0.0.1/\u0661"), errno.EINVAL, "10.0.0.1/\u0661", "prefix length"),
    (lambda netlink: netlink.route_add("", gateway="1.2.3.4"), errno.ENETUNREACH, "default 1.2.3.4", "gateway"),
    (lambda netlink: netlink.route_add("10.0.0.1/8", name="lo"), errno.EINVAL, "10.0.0.1/8 lo", "prefix"),
]


@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_failures_say_what_and_why(number):
    call, code, name, reason = FAILURES[number]

    def run():
        with Netlink() as netlink:
            netlink.link_up("lo")
            with pytest.raises(OSError) as caught:
                call(netlink)
            links = len(netlink.links())  # the socket is still good
        return [caught.value.errno, caught.value.filename, str(caught.value), links]

    got_code, got_name, text, links = in_netns(run)
    assert (got_code, got_name, links) == (code, name, 1)
    assert reason in text.replace("Gateway", "gateway")


def test_dummy():
    def run():
        with Netlink() as netlink:
            try:
                netlink.create_dummy("d0")
            except OSError as problem:
                return [problem.errno, str(problem)]
            return [0, netlink.link_get("d0").kind]

    code, text = in_netns(run)
    if code == errno.EOPNOTSUPP and "Unknown device type" in text:
        pytest.skip("this kernel has no dummy interfaces")
    assert (code, text) == (0, "dummy")


def test_many_links_in_one_dump():
    def run():
        with Netlink() as netlink:
            for number in range(150):
                netlink.create_bridge(f"b{number}")
            return len(netlink.links())

    assert in_netns(run) == 151


def test_socket_is_close_on_exec_and_counts_traffic():
    def run():
        import socket

        with Netlink() as netlink:
            netlink.link_up("lo")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x" * 100, ("127.0.0.1", 9))
            loopback = netlink.link_get("lo")
            assert not os.get_inheritable(netlink._socket.fileno())
            return [loopback.rx, loopback.tx]

    rx, tx = in_netns(run)
    assert rx == tx
    assert rx[0] >= 128
    assert rx[1] >= 1
