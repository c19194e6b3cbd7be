"""A registry written to misbehave: raw sockets, one thread a connection, every request recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from tests.support.evil import OCI_MANIFEST, EvilImage, digest_of


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    @property
    def range_from(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclasses.dataclass
class Answer:
    """What goes back. `chunks` are written one by one; a callable one is called with the socket instead."""

    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    raw: Callable[[socket.socket], None] | None = None
    length: int | None = None  # a Content-Length that is not the body's
    reset: bool = False  # end with a reset instead of an orderly close


Handler = Callable[[Request], Answer]


class Server:
    """Serves `handler` on a loopback address while entered.

    Attributes:
        requests: all of them, in order.
        connections: how many were accepted, TLS or not, request or not.
    """

    def __init__(self, handler: Handler, *, tls: tuple[str, str] | None = None, address: str = "127.0.0.1") -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.connections = 0
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls[1], tls[0])
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        self.host = f"{address}:{self.port}"
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._stopping = False

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        for thread in self._threads:
            thread.join()

    def asked(self, part: str) -> list[Request]:
        """The requests whose path contains `part`."""
        return [request for request in self.requests if part in request.path]

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(accepted)
            thread = threading.Thread(target=self._serve, args=(accepted,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        used = accepted
        try:
            accepted.settimeout(20)
            if self._tls:
                used = self._tls.wrap_socket(accepted, server_side=True)
                self._open.add(used)
            request = _read(used)
            if request is not None:
                self.requests.append(request)
                self._write(used, request, self.handler(request))
        except (OSError, ValueError):
            pass
        finally:
            self._open.discard(accepted)
            self._open.discard(used)
            used.close()
            accepted.close()

    def _write(self, used: socket.socket, request: Request, answer: Answer) -> None:
        if answer.status:
            length = len(answer.body) if answer.length is None else answer.length
            headers = {
                "Connection": "close",
                **({} if answer.raw else {"Content-Length": str(length)}),
                **answer.headers,
            }
            head = f"HTTP/1.1 {answer.status} X\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items())
            used.sendall(head.encode() + b"\r\n")
        if request.method != "HEAD":
            used.sendall(answer.body)
            if answer.raw:
                answer.raw(used)
        if answer.reset:
            used.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _read(used: socket.socket) -> Request | None:
    if not isinstance(used, ssl.SSLSocket) and used.recv(1, socket.MSG_PEEK) == b"\x16":
        used.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent TLS to an HTTP server.\n")  # as Go's servers do
        return None
    with used.makefile("rb") as stream:
        line = stream.readline(65536).decode("latin-1").split()
        if len(line) < 2:
            return None
        headers: dict[str, str] = {}
        while row := stream.readline(65536).decode("latin-1").strip():
            key, _, value = row.partition(":")
            headers[key.lower()] = value.strip()
        return Request(line[0], line[1], headers, stream.read(int(headers.get("content-length", 0))))


class ImageServer:
    """A handler that serves one image honestly until it is told otherwise.

    Args:
        image: to serve at any repository and tag.
        special: called first with each request; an Answer it returns is sent instead.
        extra: more manifests and blobs by digest.
    """

    def __init__(
        self,
        image: EvilImage | None = None,
        special: Callable[[Request], Answer | None] | None = None,
        extra: Mapping[str, tuple[bytes, str]] | None = None,
    ) -> None:
        self.special = special
        self.documents: dict[str, tuple[bytes, str]] = dict(extra or {})
        self.tagged = b""
        self.tagged_type = OCI_MANIFEST
        if image is not None:
            self.tagged = image.manifest
            self.documents |= {digest: (data, "application/octet-stream") for digest, data in image.blobs.items()}
            self.documents[digest_of(image.manifest)] = (image.manifest, OCI_MANIFEST)

    def __call__(self, request: Request) -> Answer:
        if self.special and (answer := self.special(request)) is not None:
            return answer
        name = request.path.rpartition("/")[2]
        if "/manifests/" in request.path:
            data, media_type = self.documents.get(name, (self.tagged, self.tagged_type))
            return Answer(headers={"Content-Type": media_type}, body=data)
        if name in self.documents:
            data = self.documents[name][0]
            start = request.range_from
            if start:
                total = len(data)
                return Answer(206, {"Content-Range": f"bytes {start}-{total - 1}/{total}"}, data[start:])
            return Answer(body=data)
        if request.path == "/v2/":
            return Answer(body=b"{}")
        return Answer(404, body=json.dumps({"errors": [{"code": "UNKNOWN", "message": "not here"}]}).encode())


@contextlib.contextmanager
def serving(*args: Any, **kwargs: Any) -> Iterator[Server]:
    """An ImageServer on loopback."""
    with Server(ImageServer(*args, **kwargs)) as server:
        yield server
