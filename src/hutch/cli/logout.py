"""`hutch logout`: forget the credentials for a registry."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.engine.engine import Engine
from hutch.image.credentials import CredentialStore
from hutch.image.registry import logout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(_given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    host = arguments[0] if arguments else engine.registries.default
    known = logout(host, store=CredentialStore())
    print(f"Removing login credentials for {host}" if known else f"Not logged in to {host}")
    return 0


COMMAND = Command(
    "logout",
    arguments="[SERVER]",
    summary="Forget the credentials for a registry",
    flags=(),
    run=_run,
    example="hutch logout registry.example.org",
    most=1,
)
