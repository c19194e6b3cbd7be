"""The wire format of rtnetlink: attributes, and the messages about links, addresses and routes."""

from __future__ import annotations

import errno
import os
import struct

from hutch.linux.libc import c_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Iterator
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_STATS64, IFLA_NET_NS_FD = 18, 23, 28
INFO_KIND, INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15

IFF_UP = 1
IFA_F_NODAD = 2

NESTED = 0x8000
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")


class Link:
    """A network interface.

    Attributes:
        index, name, kind ("veth", "bridge", "" for hardware and loopback), up, mtu, master (index or 0),
        peer (index of what it is linked to, or 0), address (bytes), and the counters rx and tx:
        (bytes, packets, errors, dropped).
    """

    __slots__ = ("address", "index", "kind", "master", "mtu", "name", "peer", "rx", "tx", "up")

    def __init__(self, payload: bytes) -> None:
        _, _, self.index, flags, _ = LINK.unpack_from(payload)
        attributes = dict(parse(payload[LINK.size :]))
        self.name = text(attributes.get(IFLA_IFNAME, b""))
        self.up = bool(flags & IFF_UP)
        self.mtu, self.master, self.peer = (u32(attributes.get(key)) for key in (IFLA_MTU, IFLA_MASTER, IFLA_LINK))
        self.address = attributes.get(IFLA_ADDRESS, b"")
        info = dict(parse(attributes.get(IFLA_LINKINFO, b"")))
        self.kind = text(info.get(INFO_KIND, b""))
        counters = struct.unpack_from("=8Q", attributes.get(IFLA_STATS64, b"").ljust(64, b"\0"))
        rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = counters
        self.rx = (rx_bytes, rx_packets, rx_errors, rx_dropped)
        self.tx = (tx_bytes, tx_packets, tx_errors, tx_dropped)

    def __repr__(self) -> str:
        return f"<Link {self.index} {self.name!r} {self.kind} {'up' if self.up else 'down'} mtu {self.mtu}>"


class Address:
    """An address of an interface: `index`, `text` ("10.0.0.2"), `prefix` (length), `scope`."""

    __slots__ = ("index", "prefix", "scope", "text")

    def __init__(self, payload: bytes) -> None:
        family, self.prefix, _, self.scope, self.index = ADDRESS.unpack_from(payload)
        attributes = dict(parse(payload[ADDRESS.size :]))
        packed = attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS]
        self.text = _socket.inet_ntop(family, packed)

    def __repr__(self) -> str:
        return f"<Address {self.text}/{self.prefix} of {self.index}>"


class Route:
    """A route: `destination` ("10.0.0.0/8", "" for the default one), `gateway` or "", `index`, `table`."""

    __slots__ = ("destination", "family", "gateway", "index", "table")

    def __init__(self, payload: bytes) -> None:
        self.family, length, _, _, table, *_ = ROUTE.unpack_from(payload)
        attributes = dict(parse(payload[ROUTE.size :]))
        destination, gateway = attributes.get(RTA_DST), attributes.get(RTA_GATEWAY)
        self.destination = f"{_socket.inet_ntop(self.family, destination)}/{length}" if destination else ""
        self.gateway = _socket.inet_ntop(self.family, gateway) if gateway else ""
        self.index = u32(attributes.get(RTA_OIF))
        self.table = u32(attributes.get(RTA_TABLE)) or table

    def __repr__(self) -> str:
        return f"<Route {self.destination or 'default'} via {self.gateway or self.index}>"


def aligned(length: int) -> int:
    """`length` rounded up to four bytes."""
    return (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute; OR NESTED into `kind` where the value is attributes itself."""
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust(aligned(4 + len(value)), b"\0")


def attribute_u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute; EINVAL out of range."""
    if not 0 <= value < 1 << 32:
        raise OSError(errno.EINVAL, f"out of range: {value}")
    return attribute(kind, struct.pack("=I", value))


def name_attribute(name: str) -> bytes:
    """IFLA_IFNAME; EINVAL for what cannot be an interface's name."""
    encoded = c_string(name)
    if not 0 < len(encoded) < 16:
        raise OSError(errno.EINVAL, "an interface's name is 1 to 15 bytes long", name)
    return attribute(IFLA_IFNAME, encoded + b"\0")


def parse(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of each attribute, up to the first that does not hold together."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[aligned(length) :]


def text(value: bytes) -> str:
    """A string attribute."""
    return os.fsdecode(value.split(b"\0", 1)[0])


def u32(value: bytes | None) -> int:
    """A 32-bit attribute, 0 where it is missing."""
    return int(struct.unpack_from("=I", value)[0]) if value else 0


def packed_address(family: int, address: str) -> bytes:
    """An address in network order; EINVAL if it is not one."""
    try:
        return _socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise OSError(errno.EINVAL, "not an address", address) from None


def network(cidr: str) -> tuple[int, bytes, int]:
    """(family, packed address, prefix length) of "10.0.0.2/24"."""
    address, slash, prefix = cidr.partition("/")
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    packed = packed_address(family, address)
    if not slash or not (prefix.isascii() and prefix.isdigit()) or int(prefix) > len(packed) * 8:
        raise OSError(errno.EINVAL, "not an address with a prefix length", cidr)
    return family, packed, int(prefix)
