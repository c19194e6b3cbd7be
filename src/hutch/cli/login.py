"""`hutch login`: try credentials at a registry, and keep them."""

from __future__ import annotations

import getpass
import sys

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument
from hutch.image.credentials import Credentials, CredentialStore
from hutch.image.registry import login
from hutch.image.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_PASSWORD_BYTES = 64 << 10


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    host = arguments[0] if arguments else engine.registries.default
    username, password = given["username"], given["password"]
    if given["password_stdin"]:
        if password is not None:
            raise InvalidArgument("conflicting options: --password and --password-stdin")
        if not username:
            raise InvalidArgument("must provide --username with --password-stdin")
        password = _password_from_stdin()
    elif password is not None:
        warn("a password on the command line can be seen by others")
    if not username or password is None:
        username, password = _ask(username, password)
    transport = Transport(engine.registries)
    try:
        kept = login(host, Credentials(username, password), transport=transport, store=CredentialStore())
    finally:
        transport.close()
    print(f"Login Succeeded, kept in {kept}" if given["verbose"] else "Login Succeeded")
    return 0


def _password_from_stdin() -> str:
    data = sys.stdin.buffer.read(_MAX_PASSWORD_BYTES + 1)
    if len(data) > _MAX_PASSWORD_BYTES:
        raise InvalidArgument(f"password on stdin: longer than {_MAX_PASSWORD_BYTES} bytes")
    text = data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text:
        raise InvalidArgument("password on stdin: empty")
    return text


def _ask(username: str | None, password: str | None) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise InvalidArgument(
            "login: no terminal to ask for the user name and password", hint="use --username and --password-stdin"
        )
    if not username:
        username = input("Username: ").strip()
    if password is None:
        password = getpass.getpass("Password: ")
    if not username or not password:
        raise InvalidArgument("login: user name and password are both needed")
    return username, password


COMMAND = Command(
    "login",
    arguments="[SERVER]",
    summary="Authenticate to a registry",
    flags=(
        Flag("password", "string", "password; others can see it there, use --password-stdin", short="p"),
        Flag("password-stdin", "", "read the password from stdin"),
        Flag("username", "string", "user name", short="u"),
        Flag("verbose", "", "say where the credentials are kept"),
    ),
    run=_run,
    example="hutch login --username me --password-stdin registry.example.org < token",
    most=1,
)
