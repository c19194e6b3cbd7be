"""One process with its streams and its clients: what a container's monitor and an exec session have in common."""

from __future__ import annotations

import os

from hutch.engine.monitor import protocol
from hutch.engine.monitor.clients import Client
from hutch.engine.monitor.streams import Input, Output, Pipes
from hutch.errors import ContainerSetupFailed
from hutch.linux.seqpacket import pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.engine.logs.lines import LogWriter
    from hutch.engine.monitor.loop import Loop
    from hutch.linux.seqpacket import Channel

_STREAMS = {protocol.STDOUT: 1, protocol.STDERR: 2}


class AttachedProcess:
    """A process that clients may look at, write to and signal.

    Args:
        loop: to wait in.
        tty: whether it has a terminal.
        interactive: whether its standard input is open.
        signal: sends it a signal.
        log: keeps what it writes; None for nothing.
        private: what it writes is of no interest to anybody but the client that started it.

    Attributes:
        lifelines: those of the clients without whom it is not wanted any more, until they say RELEASE.
        on_lifeline: called when one of these has gone (True), or has released it (False).
    """

    def __init__(
        self,
        loop: Loop,
        *,
        tty: bool,
        interactive: bool,
        signal: Callable[[int], None],
        log: LogWriter | None = None,
        private: bool = False,
    ) -> None:
        self._loop, self.tty, self.interactive = loop, tty, interactive
        self._signal, self.log, self._private = signal, log, private
        self.clients: list[Client] = []
        self.lifelines: set[Client] = set()
        self.on_lifeline: Callable[[bool], None] = lambda _lost: None
        self.outputs: list[Output] = []
        self.input: Input | None = None
        self._size: tuple[int, int] | None = None

    # -- the process's side

    def begin(self, create: Callable[[tuple[int, int, int], int | None], Any]) -> Any:
        """Make streams, have the process created with them, and keep the other ends.

        Args:
            create: gets the three descriptors and a console socket (None without a terminal).

        Returns:
            What `create` returns.
        """
        if self.tty:
            return self._begin_terminal(create)
        pipes = Pipes(interactive=self.interactive)
        try:
            created = create((pipes.theirs[0], pipes.theirs[1], pipes.theirs[2]), None)
            pipes.give_away()
            stdin_fd, stdout_fd, stderr_fd = pipes.ours
            pipes.ours = []
        finally:
            pipes.close()
        self.input = Input(self._loop, stdin_fd, terminal=False) if stdin_fd >= 0 else None
        self.outputs = [
            Output(self._loop, stdout_fd, protocol.STDOUT, self._written),
            Output(self._loop, stderr_fd, protocol.STDERR, self._written),
        ]
        return created

    def _begin_terminal(self, create: Callable[[tuple[int, int, int], int | None], Any]) -> Any:
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        ours, theirs = pair()
        try:
            with ours, theirs:
                created = create((null_fd, null_fd, null_fd), theirs.fileno())
                ptmx_fd = _received(ours)
        finally:
            os.close(null_fd)
        os.set_blocking(ptmx_fd, False)
        self.input = Input(self._loop, ptmx_fd, terminal=True)
        self.outputs = [Output(self._loop, ptmx_fd, protocol.STDOUT, self._written)]
        if self._size is not None:
            self.input.resize(*self._size)
        self._mind_slow_clients()
        return created

    def _written(self, kind: bytes, data: bytes, time_nanos: int) -> None:
        if self.log is not None:
            self.log.write(_STREAMS[kind], data, time_nanos)
        message = kind + data
        for client in list(self.clients):
            if kind in client.wants:
                client.send(message)
        self._mind_slow_clients()

    def _mind_slow_clients(self) -> None:
        if any(client.patient and client.behind for client in self.clients):
            for output in self.outputs:
                output.pause()

    def ended(self) -> None:
        """The process has ended: pass on what it left, and close its streams."""
        for output in self.outputs:
            output.drain()
        if self.input is not None:
            self.input.close()
        self.outputs, self.input = [], None
        if self.log is not None:
            self.log.flush()

    # -- the clients' side

    def attach(self, channel: Channel, request: dict[str, Any], *, starter: bool = False) -> Client:
        """Take a client on.

        Args:
            channel: its connection.
            request: ``stdin``, ``stdout``, ``stderr``: whether it is attached to these; ``lifeline``.
            starter: it is the one that started the process, and is to miss nothing.
        """
        names = (("stdin", protocol.STDIN), ("stdout", protocol.STDOUT), ("stderr", protocol.STDERR))
        wants = b"".join(kind for name, kind in names if request.get(name))
        client = Client(
            self._loop,
            channel,
            wants=wants,
            patient=starter,
            on_message=self._message,
            on_close=self._closed,
            on_drained=lambda _: self._resume(),
        )
        self.clients.append(client)
        if request.get("lifeline"):
            self.lifelines.add(client)
        return client

    def tell(self, message: bytes) -> None:
        """Send every client a message."""
        for client in list(self.clients):
            client.send(message)

    def dismiss(self, message: bytes) -> None:
        """Send every client its last message; a lifeline stays open after it."""
        for client in list(self.clients):
            if client in self.lifelines:
                client.send(message)
            else:
                client.finish(message)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal a size, now or when it is there."""
        self._size = (rows, columns)
        if self.input is not None:
            self.input.resize(rows, columns)

    def _message(self, client: Client, kind: bytes, content: bytes) -> None:
        if kind == protocol.STDIN and protocol.STDIN in client.wants:
            if self.input is not None:
                self.input.push(content)
                if self.input.full:
                    client.pause()
                    self.input.on_room.append(client.resume)
        elif kind == protocol.END_OF_INPUT and protocol.STDIN in client.wants:
            if self.input is not None:
                self.input.end()
        elif kind == protocol.RESIZE:
            self.resize(*protocol.window_size(content))
        elif kind == protocol.SIGNAL and content:
            self._signal(content[0])
        elif kind == protocol.HUNG_UP and client.patient and self._private:
            # As in a pipeline: it finds out with its next write, and dies of SIGPIPE unless it knows better.
            for output in self.outputs:
                if output.kind == content and not self.tty:
                    output.close()
        elif kind == protocol.RELEASE and client in self.lifelines:
            self.lifelines.discard(client)
            self.on_lifeline(False)

    def _closed(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
        # Its input came from there alone; somebody who detaches from a terminal comes back.
        if client.patient and protocol.STDIN in client.wants and self.input is not None and not self.tty:
            self.input.end()
        self._resume()
        if client in self.lifelines:
            self.lifelines.discard(client)
            self.on_lifeline(True)

    def _resume(self) -> None:
        if not any(client.patient and client.behind for client in self.clients):
            for output in self.outputs:
                output.resume()


def _received(channel: Channel) -> int:
    """The pseudo-terminal that init sends; the caller closes it."""
    _, fds = channel.recv(4096)
    if len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise ContainerSetupFailed("receive the terminal", 0, detail="it was not sent")
    return fds[0]
