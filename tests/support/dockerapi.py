"""Fixed answers of Docker's API on a unix socket, so that the real docker client formats what we know."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def answering(directory: str, answers: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Serve `answers` (path below the version → JSON value) on a socket in `directory`.

    Yields:
        The environment for a docker client that asks it.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(200, b"OK")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/_ping":
                self._answer(200, b"OK")
                return
            found = answers.get("/" + path.split("/", 2)[2])
            if found is None:
                self._answer(404, json.dumps({"message": f"no such thing: {path}"}).encode())
            else:
                self._answer(200, json.dumps(found).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Api-Version", "1.50")
            self.send_header("Ostype", "linux")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

        def address_string(self) -> str:
            """A unix socket's client has none."""
            return ""

    path = f"{directory}/api.sock"
    with _Server(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield {
                "PATH": os.environ["PATH"],
                "DOCKER_HOST": f"unix://{path}",
                "DOCKER_CONFIG": directory,
                "HOME": directory,
            }
        finally:
            server.shutdown()
            thread.join()
            os.unlink(path)
