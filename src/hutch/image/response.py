"""The answer of a registry: its body is a bounded stream, and every wait for it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError

from hutch.errors import HutchError, InvalidArgument
from hutch.image.connections import words

CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds, and how often to try again.

    Attributes:
        connect_s: for a connection, and again for a TLS handshake.
        headers_s: for the whole head of a response.
        read_s: for each piece of a body.
        document_s: for a whole small body (manifest, token, error).
        attempts: of one request, the first included.
        backoff_s: before the second attempt; doubles each time.
        most_wait_s: the longest a server may tell us to wait (Retry-After).
        least_rate: bytes a second, over `read_s`, below which a connection counts as lost.
    """

    connect_s: float = 20
    headers_s: float = 60
    read_s: float = 60
    document_s: float = 120
    attempts: int = 5
    backoff_s: float = 0.5
    most_wait_s: float = 60
    least_rate: int = 256


class Cancelled(HutchError):
    """The caller gave up; nothing is wrong with the registry."""


class Lost(HutchError):
    """The connection ended, stalled or was refused; the caller may try again.

    Attributes:
        worth_attempts: how often to try at most: a name nobody knows will not be known soon.
    """

    def __init__(self, message: str, *, worth_attempts: int = 1 << 30) -> None:
        super().__init__(message)
        self.worth_attempts = worth_attempts


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request goes: credentials never leave it."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """``host:port`` as a URL has it, without a default port."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == {"https": 443, "http": 80}[self.scheme] else f"{name}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class Response:
    """The head of an answer, and its body as a bounded stream; closed by `Transport.request`."""

    def __init__(
        self, raw: urllib3.BaseHTTPResponse, origin: Origin, patience: Patience, cancelled: threading.Event
    ) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.origin = origin
        self._raw = raw
        self._patience = patience
        self._cancelled = cancelled

    @property
    def length(self) -> int | None:
        """Content-Length, or None if there is none that is a number."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece.

        Raises:
            Lost: the connection ended early, stalled, or became slower than `Patience.least_rate`.
            Cancelled: the transport was told to stop.
        """
        since, received = time.monotonic(), 0
        try:
            while chunk := self._raw.read1(CHUNK_BYTES, decode_content=False):
                yield chunk
                received += len(chunk)
                elapsed = time.monotonic() - since
                if elapsed > self._patience.read_s:
                    if received < elapsed * self._patience.least_rate:
                        raise Lost(f"registry {self.origin.netloc}: {received} bytes in {elapsed:.0f} seconds")
                    since, received = time.monotonic(), 0
        except (HTTPError, OSError) as error:
            if self._cancelled.is_set():
                raise Cancelled("cancelled") from None
            raise Lost(f"registry {self.origin.netloc}: {words(error)}") from None
        if self._cancelled.is_set():  # the end may be of our making
            raise Cancelled("cancelled")

    def read(self, limit: int, what: str) -> bytes:
        """The whole body of a small document.

        Raises:
            Lost: as `chunks`, or it took longer than `Patience.document_s`.
            InvalidArgument: more than `limit` bytes.
        """
        if (self.length or 0) > limit:
            raise InvalidArgument(f"{what}: larger than {limit} bytes")
        body = bytearray()
        deadline = time.monotonic() + self._patience.document_s
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise InvalidArgument(f"{what}: larger than {limit} bytes")
            if time.monotonic() > deadline:
                raise Lost(f"{what}: not complete after {self._patience.document_s:.0f} seconds")
        return bytes(body)
