"""The create handshake. Only this file knows the order of its messages.

    parent (host)                          child, then init (container)
    fork ────────────────────────────────▶ child: join; unshare(user) if the spec wants one
      ◀─ PLACE                             the child is in its user namespace, without ids yet
    write the id maps; put it in the cgroup
      ─▶ GO                                unshare the rest; fork init into the pid namespace
      ◀─ INIT pid                          child's last message: it exits
    hold a pidfd; move network devices
      ─▶ GO                                init: mounts, devices
      ◀─ HOST                              the file system is there, before pivot_root
    set limits; prestart and createRuntime hooks
      ─▶ GO                                createContainer hooks, pivot_root, identity
      ◀─ LIMITS                            only if a hard limit is above init's own
    raise it with prlimit
      ─▶ GO
      ◀─ LISTENER fd                       only with a seccomp listener
    fetch it by pidfd_getfd, send it on
      ─▶ GO
      ◀─ READY                             args[0] was found
    EOF                                    the sealed image was executed: Python is gone
    at any time: ◀─ STEP actor index       for --explain: this step is about to run
                 ◀─ WARNING text
                 ◀─ FAILED errno step path detail
    EOF anywhere else: the child was killed

Both sides run over one SOCK_SEQPACKET pair. What init sends is bounded and decoded strictly: from its namespaces on it
may share them with code that nobody trusts.
"""

from __future__ import annotations

import os
import struct

from hutch.errors import ContainerSetupFailed, Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hutch.linux.seqpacket import Channel

PLACE, INIT, HOST, LIMITS, LISTENER, READY, STEP, WARNING, FAILED, GO = range(1, 11)

NAMES = {
    PLACE: "PLACE",
    INIT: "INIT",
    HOST: "HOST",
    LIMITS: "LIMITS",
    LISTENER: "LISTENER",
    READY: "READY",
    STEP: "STEP",
    WARNING: "WARNING",
    FAILED: "FAILED",
    GO: "GO",
}

# What the child may send next, by what it sent last; 0 is the beginning.
ORDER = {
    0: (PLACE,),
    PLACE: (INIT,),
    INIT: (HOST,),
    HOST: (LIMITS, LISTENER, READY),
    LIMITS: (LISTENER, READY),
    LISTENER: (READY,),
    READY: (),
}
ANSWERED = (PLACE, INIT, HOST, LIMITS, LISTENER)
ASIDES = (STEP, WARNING, FAILED)

_TEXTS = {STEP: 1, WARNING: 1, FAILED: 3}  # how many texts a message carries; others carry none
FRAME_LIMIT = 16384
_TEXT_LIMIT = 4096
_MESSAGE_BOUND = 4096  # messages in one handshake, the asides among them
_HEADER = struct.Struct("<Bi")
_LENGTH = struct.Struct("<H")


class Message:
    """One frame: its kind, one number (a pid, an fd, an errno, an index) and its texts."""

    __slots__ = ("kind", "number", "texts")

    def __init__(self, kind: int, number: int = 0, texts: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.number = number
        self.texts = texts


def encode(message: Message) -> bytes:
    """The frame of a message; texts longer than 4096 bytes are cut."""
    parts = [_HEADER.pack(message.kind, message.number)]
    for text in message.texts:
        data = text.encode("utf-8", "surrogateescape")[:_TEXT_LIMIT]
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode(frame: bytes) -> Message:
    """The message of a frame.

    Raises:
        Internal: not exactly one well-formed message.
    """
    if len(frame) < _HEADER.size:
        raise Internal(f"handshake: short frame of {len(frame)} bytes")
    kind, number = _HEADER.unpack_from(frame)
    if kind not in NAMES:
        raise Internal(f"handshake: unknown message {kind}")
    texts, at = [], _HEADER.size
    for _ in range(_TEXTS.get(kind, 0)):
        end = at + _LENGTH.size
        if end > len(frame):
            raise Internal(f"handshake: {NAMES[kind]}: a text is missing")
        (length,) = _LENGTH.unpack_from(frame, at)
        at = end + length
        if length > _TEXT_LIMIT or at > len(frame):
            raise Internal(f"handshake: {NAMES[kind]}: a text is cut short")
        texts.append(frame[end:at].decode("utf-8", "surrogateescape"))
    if at != len(frame):
        raise Internal(f"handshake: {NAMES[kind]}: {len(frame) - at} bytes too many")
    return Message(kind, number, tuple(texts))


class Parent:
    """The parent's side: receives in order, raises what the child reports.

    Attributes:
        last: the kind of the last message in order.
    """

    __slots__ = ("_channel", "_count", "_on_step", "_on_warning", "_order", "last")

    def __init__(
        self,
        channel: Channel,
        on_step: Callable[[str, int], None],
        on_warning: Callable[[str], None],
        order: Mapping[int, tuple[int, ...]] = ORDER,
    ) -> None:
        """`on_step` and `on_warning` get the asides; `order` is what may follow what."""
        self._channel = channel
        self._order = order
        self._on_step = on_step
        self._on_warning = on_warning
        self._count = 0
        self.last = 0

    def receive(self) -> Message | None:
        """The next message of the conversation, or None at its end.

        Raises:
            ContainerSetupFailed: the child reported a failure.
            Internal: the child does not keep to the order or the form.
        """
        while True:
            frame, fds = self._channel.recv(FRAME_LIMIT)
            for fd in fds:
                os.close(fd)
            if not frame:
                return None
            self._count += 1
            message = decode(frame)
            if fds or self._count > _MESSAGE_BOUND:
                raise Internal(f"handshake: {NAMES[message.kind]}: more than agreed")
            if message.kind == FAILED:
                step, path, detail = message.texts
                raise ContainerSetupFailed(step, message.number, path, detail)
            if message.kind == STEP:
                self._on_step(message.texts[0], message.number)
            elif message.kind == WARNING:
                self._on_warning(message.texts[0])
            elif message.kind in self._order[self.last]:
                self.last = message.kind
                return message
            else:
                raise Internal(f"handshake: {NAMES[message.kind]} after {NAMES.get(self.last, 'the beginning')}")

    def go(self) -> None:
        """Let the child go on after a message that is answered; BrokenPipeError when it has died."""
        self._channel.send(encode(Message(GO)))


class Child:
    """The child's and init's side. Sends by plain write(2): the call a seccomp filter is least likely to forbid."""

    __slots__ = ("_channel", "fd")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.fd = channel.fileno()

    def send(self, kind: int, number: int = 0, *texts: str) -> None:
        """Send one message."""
        os.write(self.fd, encode(Message(kind, number, texts)))

    def ask(self, kind: int, number: int = 0) -> None:
        """Send a message and wait for GO.

        Raises:
            OSError: ECONNRESET, the parent has gone.
        """
        self.send(kind, number)
        self.wait()

    def wait(self) -> None:
        """Wait for GO; ConnectionResetError when the parent has gone instead."""
        frame = os.read(self.fd, FRAME_LIMIT)
        if not frame:
            raise ConnectionResetError(104, "the parent has gone")
        if decode(frame).kind != GO:
            raise Internal("handshake: the parent sent something other than GO")

    def fail(self, step: str, error: BaseException) -> None:
        """Report a failure; if the parent has gone nobody can be told."""
        number, path, detail = 0, "", str(error) or type(error).__name__
        if isinstance(error, ContainerSetupFailed):
            step, number, path, detail = error.step, error.errno, error.path, error.detail
        elif isinstance(error, OSError) and error.errno:
            number = error.errno
            path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
            text = error.strerror or ""
            detail = "" if text == os.strerror(number) else text[:1].lower() + text[1:]
        try:
            self.send(FAILED, number, step, path, detail)
        except OSError:
            return

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
