"""Connections to registries: our dialling and deadlines below urllib3's HTTP, proxies, what went wrong in words."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # documented nowhere, and not in typeshed
    getproxies_environment,
    proxy_bypass_environment,
)

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from hutch.errors import InvalidConfig
from hutch.image import hosts, strictjson

MAX_ERROR_BYTES = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Owner(Protocol):
    """What a connection needs of the transport it belongs to."""

    @property
    def headers_s(self) -> float:
        """Seconds that the head of a response may take as a whole."""

    def connect(self, host: str, port: int) -> socket.socket:
        """Dial."""

    def track(self, used: socket.socket) -> None:
        """Remember a socket that is in use."""


class _Ours:
    """What all connections do in our way: a deadline for the whole head, and an end from outside."""

    sock: Any

    def __init__(self, *args: Any, owner: Owner, **kwargs: Any) -> None:
        self._owner = owner
        super().__init__(*args, **kwargs)

    def getresponse(self) -> Any:
        used = self.sock
        late = threading.Event()
        self._owner.track(used)
        # A timeout of the socket starts anew with every byte; this one does not.
        timer = threading.Timer(self._owner.headers_s, _give_up, [used, late])
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]  # of urllib3's class that this is mixed in with
        finally:
            timer.cancel()
        if late.is_set():  # the end that we made looks to http.client like the end of the head
            response.close()
            raise TimeoutError("timed out")
        return response


class _Dialled(_Ours):
    """Connects to an address that the owner resolved and judged."""

    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        try:
            return self._owner.connect(self.host.strip("[]"), self.port)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "timed out") from error
        except OSError as error:
            raise NewConnectionError(cast("HTTPConnection", self), words(error)) from error


class _Plain(_Ours, HTTPConnection):
    pass


class _TLS(_Ours, HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        if self.ssl_context is not None and self.ssl_context.verify_mode == ssl.CERT_NONE:
            self.is_verified = True  # the configuration asked for it: urllib3 need not warn of each request


class _DialledPlain(_Dialled, _Plain):
    pass


class _DialledTLS(_Dialled, _TLS):
    pass


class PlainPool(HTTPConnectionPool):
    """Connections without TLS."""

    ConnectionCls = _DialledPlain


class TLSPool(HTTPSConnectionPool):
    """Connections with TLS."""

    ConnectionCls = _DialledTLS


def proxied_pool(
    proxy: str, scheme: str, host: str, port: int, owner: Owner, options: dict[str, Any]
) -> HTTPConnectionPool:
    """Connections to an origin through the proxy at a URL, which may hold a name and password."""
    parts = urlsplit(proxy)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = make_headers(proxy_basic_auth=login) if login else None
    bare = f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    pool = ProxyManager(bare, proxy_headers=headers, **options).connection_from_host(host, port, scheme)
    pool.ConnectionCls = _TLS if scheme == "https" else _Plain
    pool.conn_kw["owner"] = owner
    return pool


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy the environment names for an origin, as Go's programs read it: never for loopback."""
    if hosts.is_loopback(host):
        return None
    proxies = getproxies_environment()
    proxy = proxies.get(scheme)
    if not proxy or proxy_bypass_environment(host, proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def shut_down(used: socket.socket) -> None:
    """End a connection that another thread may be reading from, which then sees its end."""
    with suppress(OSError):
        # SSLSocket's own would take the TLS state away under the reader.
        socket.socket.shutdown(used, socket.SHUT_RDWR)


def _give_up(used: socket.socket, late: threading.Event) -> None:
    late.set()
    shut_down(used)


def certificate_problem(error: BaseException | None) -> str:
    """Why a certificate was refused, in OpenSSL's words; an empty string if that is not the trouble."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message or error.reason).lower()
        inner = error.args[0] if isinstance(error, SSLError) and error.args else None
        error = inner if isinstance(inner, BaseException) else (error.__cause__ or error.__context__)
    return ""


def words(error: BaseException) -> str:
    """An exception of sockets or urllib3 as words: the kernel's where there are some, no addresses or headers."""
    if isinstance(error, NewConnectionError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror.lower())
    if isinstance(error, TimeoutError | HTTPTimeout):
        return "timed out"
    if isinstance(error, ProtocolError):
        return "connection lost"
    return {"SSLError": "TLS handshake failed"}.get(type(error).__name__, "connection failed")


def printable(text: str, most: int = 300) -> str:
    """Text of a server, fit for a terminal and for one line."""
    return _CONTROL.sub(" ", text)[:most]


def error_message(body: bytes) -> str:
    """What a registry says went wrong, as one line fit for a terminal; "" if it says nothing readable.

    OCI distribution-spec spec.md#error-codes.
    """
    try:
        document = strictjson.loads(body, "error", limit=MAX_ERROR_BYTES)
    except InvalidConfig:
        return ""
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return ""
    return printable(str(first.get("message") or first.get("details") or first.get("code") or "")).lower()
