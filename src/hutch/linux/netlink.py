"""A small rtnetlink: what giving a container its network takes, and no more.

One `Netlink` is one socket, bound to the network namespace it was made in, wherever the thread goes
later. Errors carry the kernel's extended text. It does not decide names, addresses or routes.
"""

from __future__ import annotations

import errno
import os
import struct

from hutch.linux.rtmsg import (
    ADDRESS,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_F_NODAD,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    INFO_DATA,
    INFO_KIND,
    LINK,
    NESTED,
    ROUTE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    VETH_INFO_PEER,
    Address,
    Link,
    Route,
    aligned,
    attribute,
    attribute_u32,
    name_attribute,
    network,
    packed_address,
    parse,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Iterator
    from typing import Self
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

_NETLINK_ROUTE = 0
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12

_NLMSG_ERROR, _NLMSG_DONE, _NLMSGERR_ATTR_MSG = 2, 3, 1
_F_REQUEST, _F_ACK, _F_DUMP_INTR, _F_ACK_TLVS = 0x01, 0x04, 0x10, 0x200
_F_EXCL, _F_DUMP, _F_CREATE = 0x200, 0x300, 0x400

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26

_TABLE_MAIN, _PROT_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _TYPE_UNICAST = 254, 4, 0, 253, 1

_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 17  # dumps come in pieces of 32 KiB at most
_DUMP_ATTEMPTS = 8


class Netlink:
    """One rtnetlink socket. Interfaces are named; a missing one is ENODEV. Not thread-safe."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self) -> None:
        """Open the socket in the calling thread's network namespace; closed by close()."""
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_ROUTE)
        self._sequence = 0
        try:
            for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Links

    def link_get(self, name: str) -> Link:
        """The interface `name`, with its counters."""
        body = LINK.pack(0, 0, 0, 0, 0) + name_attribute(name)
        return Link(self._request(_GETLINK, 0, body, name)[0])

    def links(self) -> list[Link]:
        """All interfaces of the namespace."""
        return [Link(payload) for payload in self._dump(_GETLINK, LINK.pack(0, 0, 0, 0, 0))]

    def link_up(self, name: str) -> None:
        """Set the interface up."""
        self._request(_NEWLINK, _F_ACK, LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + name_attribute(name), name)

    def link_down(self, name: str) -> None:
        """Set the interface down."""
        self._request(_NEWLINK, _F_ACK, LINK.pack(0, 0, 0, 0, IFF_UP) + name_attribute(name), name)

    def link_set(
        self,
        name: str,
        *,
        mtu: int | None = None,
        address: bytes | None = None,
        master: str | None = None,
        new_name: str | None = None,
    ) -> None:
        """Change an interface, all or nothing.

        Args:
            name: the interface.
            mtu: bytes.
            address: six bytes.
            master: the bridge to put it in; "" takes it out.
            new_name: another name; the interface must be down (before Linux 6.0).
        """
        body = b""
        if mtu is not None:
            body += attribute_u32(IFLA_MTU, mtu)
        if address is not None:
            body += attribute(IFLA_ADDRESS, address)
        if master is not None:
            body += attribute_u32(IFLA_MASTER, self.link_get(master).index if master else 0)
        if new_name is not None:
            body += name_attribute(new_name)
        self._change(name, body)

    def link_set_netns(self, name: str, netns_fd: int, new_name: str = "") -> None:
        """Move an interface into another network namespace, where it is called `new_name`.

        Raises:
            OSError: EINVAL (an interface that cannot be moved), EEXIST (`new_name` is taken there: the
                kernel has then moved the interface all the same, under its old name).
        """
        self._change(name, attribute_u32(IFLA_NET_NS_FD, netns_fd) + (name_attribute(new_name) if new_name else b""))

    def create_veth(self, name: str, peer: str, *, peer_netns_fd: int = -1, mtu: int | None = None) -> None:
        """Make a pair of interfaces; `peer` right in another namespace if `peer_netns_fd` is given."""
        size = attribute_u32(IFLA_MTU, mtu) if mtu is not None else b""
        other = LINK.pack(0, 0, 0, 0, 0) + name_attribute(peer) + size
        if peer_netns_fd >= 0:
            other += attribute_u32(IFLA_NET_NS_FD, peer_netns_fd)
        data = attribute(INFO_DATA | NESTED, attribute(VETH_INFO_PEER | NESTED, other))
        self._create(name, "veth", data, size)

    def create_bridge(self, name: str) -> None:
        """Make a bridge, down."""
        self._create(name, "bridge")

    def create_dummy(self, name: str) -> None:
        """Make a dummy interface, down."""
        self._create(name, "dummy")

    def link_delete(self, name: str) -> None:
        """Delete an interface; of a veth pair, both."""
        self._request(_DELLINK, _F_ACK, LINK.pack(0, 0, 0, 0, 0) + name_attribute(name), name)

    def _create(self, name: str, kind: str, data: bytes = b"", more: bytes = b"") -> None:
        info = attribute(IFLA_LINKINFO | NESTED, attribute(INFO_KIND, kind.encode()) + data)
        body = LINK.pack(0, 0, 0, 0, 0) + name_attribute(name) + more + info
        self._request(_NEWLINK, _F_ACK | _F_CREATE | _F_EXCL, body, name)

    def _change(self, name: str, attributes: bytes) -> None:
        index = self.link_get(name).index
        self._request(_NEWLINK, _F_ACK, LINK.pack(0, 0, index, 0, 0) + attributes, name)

    # Addresses and routes

    def address_add(self, name: str, address: str, *, dad: bool = True) -> None:
        """Give an interface an address.

        Args:
            name: the interface.
            address: with its prefix length: "10.0.0.2/24", "fd00::2/64".
            dad: False uses an IPv6 address at once, without looking for duplicates.

        Raises:
            OSError: EEXIST (it has it), EINVAL (not an address).
        """
        self._request(*self._address(_NEWADDR, _F_CREATE | _F_EXCL, name, address, dad=dad))

    def address_delete(self, name: str, address: str) -> None:
        """Take an address ("10.0.0.2/24") from an interface; EADDRNOTAVAIL if it has not got it."""
        self._request(*self._address(_DELADDR, 0, name, address, dad=True))

    def _address(self, kind: int, flags: int, name: str, address: str, *, dad: bool) -> tuple[int, int, bytes, str]:
        family, packed, prefix = network(address)
        body = ADDRESS.pack(family, prefix, 0, 0, self.link_get(name).index)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        if family == _socket.AF_INET and prefix < 31:
            hosts = (1 << (32 - prefix)) - 1
            broadcast = int.from_bytes(packed, "big") | hosts
            body += attribute(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
        if not dad and family == _socket.AF_INET6:
            body += attribute_u32(IFA_FLAGS, IFA_F_NODAD)
        return kind, _F_ACK | flags, body, f"{name} {address}"

    def addresses(self, name: str = "") -> list[Address]:
        """The addresses of an interface, or of all."""
        index = self.link_get(name).index if name else 0
        found = (Address(payload) for payload in self._dump(_GETADDR, ADDRESS.pack(0, 0, 0, 0, index)))
        return [address for address in found if not index or address.index == index]

    def route_add(self, destination: str, *, gateway: str = "", name: str = "", metric: int = 0) -> None:
        """Add a route to the main table.

        Args:
            destination: "10.1.0.0/16"; "" or "default" for the default route of the gateway's family.
            gateway: the next hop; "" for what is reached directly on `name`.
            name: the interface; may be left out where the gateway tells.
            metric: 0 for the kernel's default.

        Raises:
            OSError: EEXIST, ENETUNREACH (the gateway cannot be reached), EINVAL.
        """
        body, what = b"", f"{destination or 'default'} {gateway or name}"
        hop: int = _socket.AF_INET6 if ":" in gateway else _socket.AF_INET
        family, length = hop, 0
        if destination not in ("", "default"):
            family, packed, length = network(destination)
            body += attribute(RTA_DST, packed)
        if gateway:
            body += attribute(RTA_GATEWAY, packed_address(hop, gateway))
        if name:
            body += attribute_u32(RTA_OIF, self.link_get(name).index)
        if metric:
            body += attribute_u32(RTA_PRIORITY, metric)
        scope = _SCOPE_UNIVERSE if gateway or family == _socket.AF_INET6 else _SCOPE_LINK
        head = ROUTE.pack(family, length, 0, 0, _TABLE_MAIN, _PROT_STATIC, scope, _TYPE_UNICAST, 0)
        self._request(_NEWROUTE, _F_ACK | _F_CREATE | _F_EXCL, head + body, what)

    def routes(self) -> list[Route]:
        """The unicast routes of the main table, both families."""
        request = ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)
        found = (Route(payload) for payload in self._dump(_GETROUTE, request) if payload[7] == _TYPE_UNICAST)
        return [route for route in found if route.table == _TABLE_MAIN]

    # Messages

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | _F_REQUEST, self._sequence, 0)
        self._socket.sendto(header + body, _socket.MSG_NOSIGNAL, (0, 0))

    def _answers(self, what: str) -> Iterator[tuple[int, int, bytes]]:
        """(type, flags, payload) of the messages that answer the last request; raises what it failed with."""
        while True:
            data, _, flags, sender = self._socket.recvmsg(_BUFFER)
            if flags & _socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE), what)
            if sender[0] != 0:
                continue  # not the kernel
            while len(data) >= _HEADER.size:
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
                if not _HEADER.size <= length <= len(data):
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG), what)
                payload, data = data[_HEADER.size : length], data[aligned(length) :]
                if sequence != self._sequence:
                    continue  # left over from a request that was given up
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    # An error is followed by the request's header, both by attributes if flagged so.
                    skip = 4 + _HEADER.size if kind == _NLMSG_ERROR else 4
                    _raise_for(payload, skip if flags & _F_ACK_TLVS else len(payload), what)
                yield kind, flags, payload

    def _request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """Send a request; its one answer, or none for an acknowledgement."""
        self._send(kind, flags, body)
        for answer, _, payload in self._answers(what):
            return [] if answer == _NLMSG_ERROR else [payload]
        raise AssertionError("unreachable")

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        for _ in range(_DUMP_ATTEMPTS):
            self._send(kind, _F_DUMP, body)
            found, torn = [], False
            for answer, flags, payload in self._answers(""):
                torn = torn or bool(flags & _F_DUMP_INTR)
                if answer == _NLMSG_DONE:
                    break
                found.append(payload)
            if not torn:
                return found
        raise OSError(errno.EINTR, "the table changed again and again while it was read")


def _raise_for(payload: bytes, details_at: int, what: str) -> None:
    """Raise the error that a message reports, with the attributes found `details_at` bytes in."""
    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code >= 0:
        return
    details = dict(parse(payload[details_at:]))
    reason = text(details.get(_NLMSGERR_ATTR_MSG, b""))
    raise OSError(-code, f"{os.strerror(-code)} ({reason})" if reason else os.strerror(-code), what or None)
