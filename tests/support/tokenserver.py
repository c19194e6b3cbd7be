"""A token server for registries: Docker Registry v2 authentication via a central service.

Written from the protocol (distribution: docs/spec/auth/token.md, jwt.md, oauth.md). It answers GET /token with
basic credentials or none, and POST /token with grant_type=password or refresh_token. Anybody may pull what lies below
``public/``; an account may do everything. Tests read `requests` and set `expires_s` and `fail_next`.
"""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request: its method, its parameters (of the query or of the form) and who was authenticated."""

    method: str
    parameters: Mapping[str, list[str]]
    account: str
    authorization: str


class TokenServer:
    """A context manager; serves on loopback from a thread while entered.

    Args:
        key: path of the RSA key that signs.
        certificate: path of its certificate, which the registry has in its rootcertbundle.
        accounts: passwords by name.
    """

    service = "hutch tests registry"
    issuer = "hutch tests issuer"

    def __init__(self, key: str, certificate: str, accounts: Mapping[str, str]) -> None:
        self.requests: list[Asked] = []
        self.expires_s = 300
        self.fail_next: list[int] = []
        self._key = key
        self._accounts = dict(accounts)
        self._refresh: dict[str, str] = {}
        with open(certificate, encoding="ascii") as file:
            lines = file.read().splitlines()
        self._x5c = "".join(line for line in lines if not line.startswith("-----"))
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, method: str, parameters: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        """The status and the document for one request."""
        account = self._authenticate(parameters, authorization)
        self.requests.append(Asked(method, parameters, account or "", authorization))
        if self.fail_next:
            return self.fail_next.pop(0), {"errors": [{"code": "UNAVAILABLE", "message": "told to fail"}]}
        if account is None:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong name or password"}]}
        if parameters.get("service", [""])[0] != self.service:
            return 400, {"errors": [{"code": "UNSUPPORTED", "message": "unknown service"}]}
        scopes = [scope for value in parameters.get("scope", []) for scope in value.split(" ") if scope]
        token = self._sign(account, [self._grant(account, scope) for scope in scopes])
        found = {"token": token, "access_token": token, "expires_in": self.expires_s, "issued_at": _rfc3339()}
        if account and (parameters.get("offline_token") or parameters.get("access_type") == ["offline"]):
            found["refresh_token"] = refresh = uuid.uuid4().hex
            self._refresh[refresh] = account
        return 200, found

    def _authenticate(self, parameters: Mapping[str, list[str]], authorization: str) -> str | None:
        """The account's name, "" for nobody in particular, None for wrong credentials."""
        grant = parameters.get("grant_type", [""])[0]
        if grant == "refresh_token":
            return self._refresh.get(parameters.get("refresh_token", [""])[0])
        if grant == "password":
            name, password = (parameters.get(key, [""])[0] for key in ("username", "password"))
        elif authorization.startswith("Basic "):
            name, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            if name == "<token>":
                return self._refresh.get(password)
        else:
            return ""
        return name if name in self._accounts and self._accounts[name] == password else None

    @staticmethod
    def _grant(account: str, scope: str) -> dict[str, Any]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = actions.split(",")
        allowed = wanted if account else [each for each in wanted if each == "pull" and name.startswith("public/")]
        return {"type": kind, "name": name, "actions": allowed}

    def _sign(self, account: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        claims = {
            "iss": self.issuer,
            "sub": account,
            "aud": self.service,
            "exp": now + self.expires_s,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        text = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(claims).encode())}"
        argv = ["openssl", "dgst", "-sha256", "-sign", self._key]
        signature = subprocess.run(argv, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_base64url(signature)}"


def _handler(server: TokenServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self._answer(urllib.parse.parse_qs(self.rfile.read(length).decode()))

        def _answer(self, parameters: dict[str, list[str]]) -> None:
            status, document = server.answer(self.command, parameters, self.headers.get("Authorization", ""))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: `requests` has it."""

    return Handler


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _rfc3339() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
