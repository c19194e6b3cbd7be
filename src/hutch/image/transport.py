"""HTTP to registries: TLS or not, redirects, retries, limits. It knows no registry verbs.

- TLS always; plain HTTP only to what `Registries.may_be_plain` names, and then only if the server
  itself does not speak TLS. A failed TLS handshake or a refused port is an error, never a reason to
  try without (CVE-2014-5277).
- Redirects are followed here, not by urllib3: an Authorization header belongs to the host and port
  it was made for and goes nowhere else (CVE-2020-15157).
- Every wait ends: connecting, the headers as a whole, each read, and a minimal rate for bodies.
"""

from __future__ import annotations

import email.utils
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin, urlsplit
from weakref import WeakSet

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

from hutch.errors import HutchError, InvalidArgument, RegistryUnavailable, Unavailable
from hutch.image import hosts
from hutch.image.connections import (
    MAX_ERROR_BYTES,
    PlainPool,
    TLSPool,
    certificate_problem,
    error_message,
    printable,
    proxied_pool,
    proxy_for,
    shut_down,
    words,
)
from hutch.image.registries import Registries
from hutch.image.response import Cancelled, Lost, Origin, Patience, Response

MAX_REDIRECTS = 5
_RETRIED = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """Requests to any number of registries, from any number of threads.

    Args:
        registries: which hosts may be plain, and which certificates to trust.
        patience: limits of time.
        resolver: turns a host into addresses; `hosts.resolve`.
        user_agent: sent with each request.
    """

    def __init__(
        self,
        registries: Registries,
        *,
        patience: Patience | None = None,
        resolver: hosts.Resolver = hosts.resolve,
        user_agent: str = "hutch",
    ) -> None:
        self.registries = registries
        self.patience = patience or Patience()
        self.resolver = resolver
        self.cancelled = threading.Event()
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._origins: dict[str, Origin] = {}
        self._pools: dict[Origin, urllib3.HTTPConnectionPool] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def origin(self, host: str) -> Origin:
        """Decide how to speak to ``host[:port]``, and remember it.

        Raises:
            Lost: nobody listens there.
        """
        with self._lock:
            known = self._origins.get(host)
        if known is None:
            known = self._find_origin(host)
            with self._lock:
                self._origins[host] = known
        return known

    @contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        body: bytes | None = None,
        accept_status: frozenset[int] = frozenset({200}),
    ) -> Iterator[Response]:
        """Send one request, follow its redirects and give the final answer.

        Args:
            method: GET, HEAD or POST; only the first two are redirected.
            url: absolute; the caller made it of an Origin.
            headers: without credentials.
            authorization: sent to the origin of `url` alone.
            body: for POST.
            accept_status: beside these, only 4xx come back; 429 and 5xx are tried again.

        Raises:
            RegistryUnavailable: 429, 5xx or a lost connection, after the last attempt.
            Unavailable: a redirect that is not allowed, or too many of them.
            Cancelled: the transport was told to stop.
        """
        raw, origin = self._retried(lambda: self._redirected(method, url, headers or {}, authorization, body))
        response = Response(raw, origin, self.patience, self.cancelled)
        try:
            if response.status not in accept_status and not 400 <= response.status < 500:
                raise Unavailable(f"registry {origin.netloc}: unexpected status {response.status}")
            yield response
        finally:
            # A body read to its end gives the connection back; any other is of no more use.
            if raw.isclosed():
                raw.release_conn()
            else:
                raw.close()

    def pause(self, seconds: float) -> None:
        """Sleep; Cancelled if the transport is told to stop meanwhile."""
        if self.cancelled.wait(seconds):
            raise Cancelled("cancelled")

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` (the second is 1), with some chance in it."""
        seconds = min(self.patience.backoff_s * float(1 << min(attempt - 1, 16)), self.patience.most_wait_s)
        return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - not a secret

    def cancel(self) -> None:
        """Make every running and later request end with Cancelled, from any thread."""
        self.cancelled.set()
        with self._lock:
            for each in self._sockets:
                shut_down(each)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    # -- one attempt -------------------------------------------------------------------------

    def _retried(self, send: Callable[[], tuple[urllib3.BaseHTTPResponse, Origin]]) -> Any:
        attempt = 0
        while True:
            attempt += 1
            try:
                raw, origin = send()
            except Lost as error:
                if attempt >= min(error.worth_attempts, self.patience.attempts):
                    raise RegistryUnavailable(str(error)) from None
                wait = self.backoff(attempt)
            else:
                if raw.status not in _RETRIED:
                    return raw, origin
                if attempt >= self.patience.attempts:
                    raise self._overloaded(raw, origin, attempt)
                wait = self._told_to_wait(raw.headers.get("Retry-After", "")) or self.backoff(attempt)
                raw.close()
            self.pause(wait)

    def _overloaded(self, raw: urllib3.BaseHTTPResponse, origin: Origin, attempts: int) -> RegistryUnavailable:
        """The failure of a registry that answers 429 or 5xx, with what it says about it."""
        said = ""
        with suppress(HutchError):
            said = error_message(Response(raw, origin, self.patience, self.cancelled).read(MAX_ERROR_BYTES, "error"))
        raw.close()
        reason = "too many requests" if raw.status == 429 else f"status {raw.status}"
        return RegistryUnavailable(
            f"registry {origin.netloc}: {reason}, {attempts} times{f' ({said})' if said else ''}"
        )

    def _redirected(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, body: bytes | None
    ) -> tuple[urllib3.BaseHTTPResponse, Origin]:
        first = origin = self._origin_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **headers}
            if authorization and origin == first:
                sent["Authorization"] = authorization
            raw = self._send(method, origin, url, sent, body)
            location = raw.headers.get("Location")
            if raw.status not in _REDIRECTS or not location:
                return raw, origin
            raw.close()
            if method not in {"GET", "HEAD"}:
                raise Unavailable(f"registry {origin.netloc}: redirects a {method}")
            try:
                url = urljoin(url, location)
            except ValueError:
                raise Unavailable(f"registry {origin.netloc}: redirects to a broken address") from None
            target = self._origin_of(url)
            if origin.scheme == "https" and target.scheme != "https":
                raise Unavailable(f"registry {origin.netloc}: redirects from https to http: refused")
            origin = target
        raise Unavailable(f"registry {first.netloc}: more than {MAX_REDIRECTS} redirects")

    def _send(
        self, method: str, origin: Origin, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        if self.cancelled.is_set():
            raise Cancelled("cancelled")
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        pool = self._pool(origin)
        if pool.proxy is not None and origin.scheme == "http":
            target = f"{origin}{target}"  # a proxy is told the whole address
        try:
            return pool.urlopen(
                method,
                target,
                body=body,
                headers={**headers, "Host": origin.netloc},
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            if self.cancelled.is_set():
                raise Cancelled("cancelled") from None
            cause = certificate_problem(error)
            if cause:
                raise Unavailable(
                    f"registry {origin.netloc}: certificate not accepted: {cause}",
                    hint="configure its authority (registries.ca), or the host as insecure",
                ) from None
            raise Lost(f"registry {origin.netloc}: {words(error)}", worth_attempts=_worth_attempts(error)) from None

    def _told_to_wait(self, value: str) -> float:
        """Seconds of a Retry-After header, which is a number or a date, bounded; 0 if it says nothing."""
        if value.isascii() and value.isdigit():
            seconds = float(value[:9])
        else:
            with suppress(ValueError, TypeError):
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
                return max(0.0, min(seconds, self.patience.most_wait_s))
            return 0.0
        return min(seconds, self.patience.most_wait_s)

    # -- origins and pools -------------------------------------------------------------------

    def _find_origin(self, host: str) -> Origin:
        name, port = hosts.split_port(host)
        if not self.registries.may_be_plain(host):
            return Origin("https", name, port or 443)
        try:
            addresses = self.resolver(name, port or 443)
            if hosts.speaks_tls(addresses, port or 443, self.patience.connect_s):
                return Origin("https", name, port or 443)
        except ConnectionRefusedError as error:
            if port is not None:
                raise Lost(f"registry {host}: {words(error)}") from None
        except OSError as error:
            raise Lost(f"registry {host}: {words(error)}") from None
        return Origin("http", name, port or 80)

    def _origin_of(self, url: str) -> Origin:
        try:
            parts = urlsplit(url)
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise Unavailable(f"registry: redirects to a broken address {printable(url)!r}") from None
        if parts.scheme not in {"https", "http"} or not name or parts.username is not None:
            raise Unavailable(f"registry: redirects to {printable(parts.scheme)}://{printable(name)}: refused")
        origin = Origin(parts.scheme, name, port or (443 if parts.scheme == "https" else 80))
        bracketed = f"[{name}]" if ":" in name else name
        if origin.scheme == "http" and not self.registries.may_be_plain(f"{bracketed}:{origin.port}"):
            raise Unavailable(
                f"registry {origin.netloc}: not without TLS", hint="name the host in registries.insecure if you must"
            )
        return origin

    def _pool(self, origin: Origin) -> urllib3.HTTPConnectionPool:
        with self._lock:
            pool = self._pools.get(origin)
            if pool is None:
                pool = self._pools[origin] = self._new_pool(origin)
        return pool

    def _new_pool(self, origin: Origin) -> urllib3.HTTPConnectionPool:
        timeout = urllib3.Timeout(connect=self.patience.connect_s, read=self.patience.read_s)
        options: dict[str, Any] = {"timeout": timeout, "maxsize": 8, "block": False}
        if origin.scheme == "https":
            options["ssl_context"] = self._ssl_context(origin)
        proxy = proxy_for(origin.scheme, origin.host)
        if proxy:
            return proxied_pool(proxy, origin.scheme, origin.host, origin.port, self, options)
        kind = TLSPool if origin.scheme == "https" else PlainPool
        return kind(origin.host, origin.port, owner=self, **options)

    def _ssl_context(self, origin: Origin) -> ssl.SSLContext:
        context = ssl.create_default_context()
        # Python 3.13 wants extensions of an authority that home-made ones lack, and that docker does not ask for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.registries.is_insecure(origin.netloc):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        authorities, clients = self.registries.certificates(origin.netloc)
        try:
            for path in authorities:
                context.load_verify_locations(cafile=path)
            for certificate, key in clients:
                context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"certificates of registry {origin.netloc}: {words(error)}") from None
        return context

    # -- called by connections ---------------------------------------------------------------

    @property
    def headers_s(self) -> float:
        """Seconds that the head of a response may take as a whole."""
        return self.patience.headers_s

    def connect(self, host: str, port: int) -> socket.socket:
        """Dial one of the addresses that `host` resolves to; the caller closes the socket."""
        connected = hosts.dial(self.resolver(host, port), port, self.patience.connect_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def track(self, used: socket.socket) -> None:
        """Remember a socket, for as long as there is one, so that `cancel` can end it."""
        with self._lock:
            self._sockets.add(used)


def _worth_attempts(error: Exception) -> int:
    """How often to try at most: what nobody knows, or refuses, will not change in seconds."""
    cause = error.__cause__ if isinstance(error, NewConnectionError) else None
    if isinstance(cause, socket.gaierror):
        return 1
    return 2 if isinstance(cause, ConnectionRefusedError) else 1 << 30
