"""The options of the syslog driver, read."""

from __future__ import annotations

import os

from hutch.engine.logs import tags
from hutch.engine.record import Record
from hutch.engine.values import only_digits, parse_bool
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split() + [""] * 4
    + [f"local{number}" for number in range(8)]
)  # fmt: skip
_DAEMON = 3
_PORT = 514
TLS = "tcp+tls"
_SCHEMES = ("udp", "tcp", TLS, "unix", "unixgram")


class Target(Record):
    """Where syslog messages go and how they are written.

    Attributes:
        scheme: udp, tcp, tcp+tls, unix, unixgram, or empty for this host's own.
        host: or the path of a socket.
        facility: its number.
        ca, certificate, key: paths of PEM files, for TLS.
    """

    scheme: str = ""
    host: str = ""
    port: int = _PORT
    facility: int = _DAEMON
    format: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    skip_verify: bool = False


def parse(options: Mapping[str, str]) -> Target:
    """Read the options of --log-driver syslog.

    Raises:
        InvalidArgument: a value that is none; the messages are docker's.
    """
    scheme, host, port = _address(options.get("syslog-address", ""))
    style = options.get("syslog-format", "")
    if style not in FORMATS:
        raise InvalidArgument("invalid syslog format", hint="there are rfc3164, rfc5424 and rfc5424micro")
    skip = False
    if "syslog-tls-skip-verify" in options:
        try:
            skip = parse_bool(options["syslog-tls-skip-verify"])
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid value for syslog-tls-skip-verify: {error}") from None
    certificate, key = options.get("syslog-tls-cert", ""), options.get("syslog-tls-key", "")
    if bool(certificate) != bool(key):
        raise InvalidArgument("syslog-tls-cert and syslog-tls-key are given together or not at all")
    ca = options.get("syslog-tls-ca-cert", "")
    for path in (ca, certificate, key):
        if path:
            _check_exists(path)
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        facility=_facility(options.get("syslog-facility", "")),
        format=style,
        ca=ca,
        certificate=certificate,
        key=key,
        skip_verify=skip,
    )


def _check_exists(path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"stat {path}: {os.strerror(error.errno or 0).lower()}") from None


def _address(text: str) -> tuple[str, str, int]:
    if not text:
        return "", "", 0
    scheme, found, rest = text.partition("://")
    if not found or scheme not in _SCHEMES or not rest:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text[:128]}")
    if scheme in ("unix", "unixgram"):
        _check_exists(rest)
        return scheme, rest, 0
    rest = rest.rstrip("/")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        port = port.removeprefix(":") if bracket else "?"
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not host or (port and not (only_digits(port) and len(port) < 6 and 0 < int(port) < 1 << 16)):
        raise InvalidArgument(f"invalid syslog-address: {text[:128]}")
    return scheme, host, int(port or _PORT)


def _facility(text: str) -> int:
    if not text:
        return _DAEMON
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if only_digits(text) and len(text) < 3 and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def tag(options: Mapping[str, str], source: tags.LogSource) -> str:
    """The tag of a container's messages; blanks would end it."""
    made = tags.tag(options.get("tag") or tags.DEFAULT_TAG, source)
    return "".join(char if char.isprintable() and not char.isspace() else "_" for char in made)
