"""Authentication: what a registry asks for, and the tokens that answer it.

A registry says 401 with challenges. `Basic` is answered with name and password, to the registry
itself. `Bearer` names a token server (the realm), and only a realm that `_check_realm` lets pass
is sent anything (CVE-2026-33540: a realm of the attacker's choice got the credentials).

distribution: docs/spec/auth/token.md, oauth.md; RFC 7235.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from hutch.errors import InvalidConfig, Unauthorized, Unavailable
from hutch.image import hosts, strictjson
from hutch.image.connections import MAX_ERROR_BYTES, error_message, printable, proxy_for
from hutch.image.credentials import Credentials
from hutch.image.response import Origin
from hutch.image.transport import Transport

MAX_TOKEN_BYTES = 1 << 20
_CLIENT_ID = "hutch"
_DEFAULT_LIFE_S = 60
_MARGIN_S = 5
_MAX_CHALLENGE = 8192
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETER = re.compile(r"""[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))""")
_TOKEN = re.compile(r"\A[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a registry would accept to be asked; `scheme` in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Read a WWW-Authenticate header; what is not understood ends the reading.

    RFC 7235 section 4.1, where a comma separates challenges as well as parameters.
    """
    text = header[:_MAX_CHALLENGE]
    challenges: list[Challenge] = []
    position = 0
    while True:
        while position < len(text) and text[position] in " \t,":
            position += 1
        word = _SCHEME.match(text, position)
        if word is None:
            return challenges
        position = word.end()
        parameters: dict[str, str] = {}
        while match := _PARAMETER.match(text, position):
            quoted, plain = match.group(2), match.group(3)
            parameters[match.group(1).lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = match.end()
        challenges.append(Challenge(word.group().lower(), parameters))


class Authorizer:
    """Makes and keeps the Authorization headers for one registry and one user.

    Args:
        origin: of the registry; basic credentials go there only.
        credentials: for it, or None.
        transport: to reach token servers.
    """

    def __init__(self, origin: Origin, credentials: Credentials | None, transport: Transport) -> None:
        self._origin = origin
        self._credentials = credentials
        self._transport = transport
        self._lock = threading.Lock()
        self._basic = False
        self._tokens: dict[str, tuple[str, float]] = {}

    def header(self, scope: str) -> str | None:
        """The Authorization header to begin with for a scope, or None if the registry has not asked yet."""
        if self._credentials and self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._basic and self._credentials:
            return self._credentials.basic()
        token, expires = self._tokens.get(scope, ("", 0.0))
        return f"Bearer {token}" if token and time.monotonic() < expires else None

    def answer(self, challenge_header: str, scope: str, *, rejected: str | None) -> str:
        """Return the Authorization header that answers a 401.

        Args:
            challenge_header: WWW-Authenticate; untrusted.
            scope: what is to be done (``repository:library/alpine:pull``), or "" for a login. Ours, never
                the registry's: it cannot make us ask its token server for somebody else's repository.
            rejected: the header that was answered so.

        Raises:
            Unauthorized: there are no credentials, or they do not suffice, or the realm is not acceptable.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(challenge_header))}
        with self._lock:
            current = self.header(scope)
            if current is not None and current != rejected:
                return current  # another thread has got a new one meanwhile
            if "bearer" in challenges:
                return self._bearer(challenges["bearer"].parameters, scope)
            if "basic" in challenges:
                return self._answer_basic(rejected)
        raise Unauthorized(f"registry {self._origin.netloc}: asks for no kind of authentication that is known")

    def identity_token(self, challenge_header: str) -> str:
        """Exchange name and password for an identity token, where the token server gives any; else "".

        Raises:
            Unauthorized: wrong name or password.
        """
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer":
                answer = self._ask(challenge.parameters, "", offline=True)
                token = answer.get("refresh_token", "")
                return token if isinstance(token, str) and _TOKEN.match(token) else ""
        return ""

    def _answer_basic(self, rejected: str | None) -> str:
        if self._credentials is None or not self._credentials.username:
            raise Unauthorized(
                f"registry {self._origin.netloc}: authentication required", hint=f"hutch login {self._origin.netloc}"
            )
        header = self._credentials.basic()
        if header == rejected:
            raise Unauthorized(f"registry {self._origin.netloc}: wrong user name or password")
        self._basic = True
        return header

    def _bearer(self, parameters: Mapping[str, str], scope: str) -> str:
        answer = self._ask(parameters, scope, offline=False)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise Unauthorized(f"registry {self._origin.netloc}: its token server gave no token")
        life = answer.get("expires_in", _DEFAULT_LIFE_S)
        seconds = life if isinstance(life, int) and 0 < life < 1 << 31 else _DEFAULT_LIFE_S
        self._tokens[scope] = (token, time.monotonic() + max(seconds - _MARGIN_S, 1))
        return f"Bearer {token}"

    def _ask(self, parameters: Mapping[str, str], scope: str, *, offline: bool) -> dict[str, Any]:
        """Ask the token server, with credentials if there are any."""
        realm = self._check_realm(parameters.get("realm", ""))
        fields = {"service": parameters.get("service", "")[:1024], "scope": scope}
        identity = self._credentials.identity_token if self._credentials else ""
        login = self._credentials if self._credentials and self._credentials.username else None
        if identity:
            fields |= {"grant_type": "refresh_token", "refresh_token": identity, "client_id": _CLIENT_ID}
        elif offline:
            fields |= {"offline_token": "true", "client_id": _CLIENT_ID}
        if login and not identity:
            fields["account"] = login.username
        encoded = urlencode({key: value for key, value in fields.items() if value})
        joint = "&" if "?" in realm else "?"
        method, url, body = ("POST", realm, encoded.encode()) if identity else ("GET", f"{realm}{joint}{encoded}", None)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if identity else {}
        authorization = login.basic() if login and not identity else None
        with self._transport.request(method, url, headers=headers, authorization=authorization, body=body) as response:
            host = response.origin.netloc
            if response.status in {400, 401, 403}:
                why = error_message(response.read(MAX_ERROR_BYTES, "error"))
                given = "wrong user name or password" if login or identity else "authentication required"
                raise Unauthorized(
                    f"registry {self._origin.netloc}: {given}{f' ({why})' if why else ''}",
                    hint=f"hutch login {self._origin.netloc}",
                )
            if response.status != 200:
                raise Unavailable(f"token server {host}: status {response.status}")
            data = response.read(MAX_TOKEN_BYTES, f"token server {host}")
        document = strictjson.loads(data, f"token server {host}", limit=MAX_TOKEN_BYTES)
        if not isinstance(document, dict):
            raise InvalidConfig(f"token server {host}: not a JSON object")
        return document

    def _check_realm(self, realm: str) -> str:
        """Return the URL of a token server that may be sent credentials of this registry.

        It is reached over TLS, or is on this machine as the registry is. It is not in a private
        network unless the registry is, so that no registry can aim us at a machine it cannot reach.
        """
        try:
            parts = urlsplit(realm)
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            name, port = "", None
        if not name or parts.username is not None or parts.fragment or not realm.isprintable() or " " in realm:
            raise self._refused(realm, "is not an address")
        local = hosts.is_loopback(name) and hosts.is_loopback(self._origin.host)
        if parts.scheme != "https" and not (parts.scheme == "http" and (local or self._is_registry(name, port))):
            raise self._refused(realm, "is not https")
        if local or name == self._origin.host:
            return realm
        if proxy_for("https", name) and hosts.literal(name) is None:
            return realm  # the proxy resolves it, and decides
        try:
            addresses = self._transport.resolver(name, port or 443)
            inside = all(hosts.is_public(address) for address in addresses) or not all(
                hosts.is_public(address) for address in self._transport.resolver(self._origin.host, self._origin.port)
            )
        except OSError:
            raise Unavailable(f"token server {printable(name)}: no such host") from None
        if not inside or (hosts.is_loopback(name) and not hosts.is_loopback(self._origin.host)):
            raise self._refused(realm, "is in a private network")
        return realm

    def _is_registry(self, name: str, port: int | None) -> bool:
        """Whether a plain realm is the registry itself, which the user has allowed to be plain."""
        return (self._origin.scheme, self._origin.host, self._origin.port) == ("http", name, port or 80)

    def _refused(self, realm: str, why: str) -> Unauthorized:
        return Unauthorized(
            f"registry {self._origin.netloc}: its token server {printable(realm, 200)!r} {why}: refused"
        )
