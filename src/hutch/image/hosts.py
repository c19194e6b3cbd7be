"""Hosts and addresses of registries: what is loopback, what is private, how a name is dialled.

The address that was judged is the address that is dialled: a name is resolved once, its addresses
are looked at, and the socket is connected to one of those (CVE-2026-92543: a name with one
loopback address made plain HTTP go to its other one).
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence

from hutch.errors import InvalidArgument

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
_LOCALHOST = ("127.0.0.1", "::1")


def split_port(host: str) -> tuple[str, int | None]:
    """Split ``host[:port]``; an IPv6 address stands in brackets.

    Raises:
        InvalidArgument: the port is no port.
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.strip("[]").lower(), None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise InvalidArgument(f"registry {host[:300]!r}: port is not a number from 1 to 65535")
    return name.strip("[]").lower(), int(port)


def literal(name: str) -> IPAddress | None:
    """The address that `name` is, or None if it is a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_loopback(name: str) -> bool:
    """Whether `name` is ``localhost`` or a loopback address itself; no resolver is asked."""
    address = literal(name)
    return name == "localhost" or (address is not None and _unmapped(address).is_loopback)


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not loopback, private, link-local or reserved."""
    parsed = literal(address.partition("%")[0])
    return parsed is not None and _unmapped(parsed).is_global


def resolve(name: str, port: int) -> Sequence[str]:
    """The addresses of a host: of ``localhost`` always the loopback ones, whatever a resolver says.

    Raises:
        OSError: (gaierror) no such host.
    """
    if name == "localhost":
        return _LOCALHOST
    if literal(name) is not None:
        return (name,)
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def dial(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    """Connect to the first of `addresses` that answers; the caller closes the socket.

    Raises:
        OSError: of the last address tried.
    """
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError as error:
            failure = error
    raise failure


def speaks_tls(addresses: Sequence[str], port: int, timeout_s: float) -> bool:
    """Whether a server answers a TLS greeting with TLS, whoever it says it is. Nothing is sent but the greeting.

    Raises:
        OSError: nobody listens there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with dial(addresses, port, timeout_s) as plain:
        try:
            context.wrap_socket(plain).close()
        except ssl.SSLError as error:
            # Any other failure is a TLS server's: it wants a certificate or a newer protocol.
            return error.reason not in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
        except OSError:
            return False
    return True


def _unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address in an IPv4-mapped IPv6 one, which the kernel dials as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
