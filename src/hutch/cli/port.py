"""`hutch port`: where a container's ports are published."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.engine.engine import Engine
from hutch.engine.values import only_digits
from hutch.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    with engine.containers.find(arguments[0]) as directory:
        ports: dict[str, Any] = directory.record.ports
    if len(arguments) == 1:
        for port in sorted(ports, key=_order):
            for address in _addresses(ports[port]):
                print(f"{port} -> {address}")
        return 0
    number, _, protocol = arguments[1].partition("/")
    if not only_digits(number) or not 0 < int(number[:6]) <= 65535:
        raise InvalidArgument(f"invalid port: '{arguments[1][:32]}'", hint="a number, or NUMBER/udp")
    addresses = _addresses(ports.get(f"{number}/{protocol or 'tcp'}"))
    if not addresses:
        raise NotFound(f"no public port '{arguments[1]}' published for {arguments[0]}")
    print("\n".join(addresses))
    return 0


def _order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number) if only_digits(number) else 0, protocol


def _addresses(bindings: Sequence[dict[str, str]] | None) -> list[str]:
    found = []
    for binding in bindings or ():
        host = binding.get("HostIp") or "0.0.0.0"
        found.append(f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}")
    return found


COMMAND = Command(
    "port",
    arguments="CONTAINER [PRIVATE_PORT[/PROTO]]",
    summary="Show where a container's ports are published",
    flags=(),
    run=_run,
    example="hutch port web 80",
    least=1,
    most=2,
)
