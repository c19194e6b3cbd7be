"""What the runtime does to a container's network: lo up, and devices of the host moved in. The rest is the engine's.

Netlink is imported when a step is planned: a step that runs inside cannot import any more.
"""

from __future__ import annotations

import fcntl
import os
import struct

from hutch.linux.namespaces import open_namespace
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket

    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Spec
else:
    try:
        import _socket
    except ImportError:
        import socket as _socket

_IFREQ = struct.Struct("16sH22x")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_SCOPE_UNIVERSE = 0


def loopback() -> Step:
    """Bring lo up in the new network namespace: by two ioctls, which need no netlink to be loaded."""

    def action(_: Setup) -> None:
        control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            request = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
            flags = _IFREQ.unpack(request)[1]
            fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
        finally:
            control.close()

    return Step("bring lo up", 'ioctl(SIOCSIFFLAGS, "lo", IFF_UP)', action, command="ip link set lo up")


def devices(spec: Spec) -> tuple[list[Step], list[Step], list[Step]]:
    """The steps for linux.netDevices: (the child's, the parent's, init's).

    An interface loses its addresses when it changes namespaces: the child notes them while it is still in the host's,
    init gives them back and brings the interface up. OCI runtime-spec config-linux.md#network-devices.
    """
    wanted = (spec.get("linux") or {}).get("netDevices") or {}
    pairs = [(name, device.get("name") or name) for name, device in wanted.items()]
    return [_note(*pair) for pair in pairs], [_move(*pair) for pair in pairs], [_bring_up(*pair) for pair in pairs]


def _note(name: str, new_name: str) -> Step:
    from hutch.linux.netlink import Netlink

    def action(setup: Setup) -> None:
        with Netlink() as netlink:
            found = [entry for entry in netlink.addresses(name) if entry.scope == _SCOPE_UNIVERSE]
            setup.addresses[new_name] = [f"{entry.text}/{entry.prefix}" for entry in found]

    return Step(
        f"note addresses of network device {name}", f"RTM_GETADDR({name})", action, command=f"ip addr show {name}"
    )


def _move(name: str, new_name: str) -> Step:
    from hutch.linux.netlink import Netlink

    def action(setup: Setup) -> None:
        netns_fd = open_namespace(setup.init_pid, "network")
        try:
            with Netlink() as netlink:
                netlink.link_set_netns(name, netns_fd, new_name)
        finally:
            os.close(netns_fd)

    call = f"RTM_NEWLINK({name}, IFLA_NET_NS_FD, IFLA_IFNAME={new_name})"
    return Step(f"move network device {name}", call, action, command=f"ip link set {name} netns INIT name {new_name}")


def _bring_up(name: str, new_name: str) -> Step:
    from hutch.linux.netlink import Netlink

    def action(setup: Setup) -> None:
        with Netlink() as netlink:
            for address in setup.addresses.get(new_name, ()):
                netlink.address_add(new_name, address)
            netlink.link_up(new_name)

    title = f"bring network device {name} up"
    return Step(
        title, f"RTM_NEWADDR({new_name}); RTM_NEWLINK({new_name}, IFF_UP)", action, command=f"ip link set {new_name} up"
    )
