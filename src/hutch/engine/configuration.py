"""The configuration file: /etc/hutch/config.toml, or $XDG_CONFIG_HOME/hutch/config.toml for an ordinary user.

A missing file is an empty one. An unknown table is an error: a setting that is not understood must not be ignored.
"""

from __future__ import annotations

import os

from hutch.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1 << 20
_TABLES = ("registries", "storage")


def configuration_path() -> str:
    """Where the caller's configuration is; HUTCH_CONFIG names another file."""
    named = os.environ.get("HUTCH_CONFIG", "")
    if named:
        return named
    if os.geteuid() == 0:
        return "/etc/hutch/config.toml"
    base = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    return f"{base}/hutch/config.toml"


def read_configuration(path: str) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file.

    Raises:
        InvalidConfig: it cannot be read, is no TOML, or has a table that nobody knows.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidConfig(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    if len(data) > _LIMIT:
        raise InvalidConfig(f"{path}: larger than {_LIMIT} bytes")
    import tomllib

    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from None
    for name, table in found.items():
        if name not in _TABLES or not isinstance(table, dict):
            raise InvalidConfig(f"{path}: unknown setting {name!r}", hint=f"tables: {', '.join(_TABLES)}")
    return found
