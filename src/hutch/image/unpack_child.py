"""The process that unpacks one layer. Started by `hutch.image.unpack`; everything it reads is untrusted.

    thread   blob (descriptor 0) → decompress → SHA-256 or SHA-512 → queue
    main     queue → tar → files

Decompression and hashing release the interpreter's lock, so the two halves run side by side.
"""

from __future__ import annotations

import os
import queue
import threading
from hashlib import new as new_hash

from hutch.errors import Unavailable
from hutch.image.apply import Applier, Owners
from hutch.image.decompress import reader
from hutch.image.layer import TarReader
from hutch.image.limits import Limits, Meter
from hutch.snapshot import confine, idmap, report, restrict
from hutch.snapshot.whiteouts import Whiteouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_QUEUED = 8
_NOTES_MAX = 20


class Feed:
    """Runs a decompressor in a thread; hashes what comes out; hands it over in order.

    Attributes:
        size: bytes of the uncompressed stream so far.
    """

    def __init__(self, read: Callable[[], bytes], algorithm: str) -> None:
        self._read = read
        self._hash = new_hash(algorithm)
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUED)
        self._ended = False
        self.size = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next_chunk(self) -> bytes:
        """The next chunk, b"" at the end, however often it is asked; raises what the thread met."""
        if self._ended:
            return b""
        chunk = self._queue.get()
        if isinstance(chunk, BaseException):
            raise chunk
        self._ended = not chunk
        return chunk

    def hexdigest(self) -> str:
        """The digest of all of it; only after the end."""
        self._thread.join()
        return self._hash.hexdigest()

    def _run(self) -> None:
        try:
            while chunk := self._read():
                self._queue.put(chunk)
                self._hash.update(chunk)
                self.size += len(chunk)
            self._queue.put(b"")
        except BaseException as problem:
            self._queue.put(problem)


def main(arguments: list[str]) -> int:
    """Unpack descriptor 0.

    Args:
        arguments: whiteout form, compression, digest algorithm, the limits as numbers with commas,
            the layer's directory, and the directories of the layers below, nearest first.
    """
    try:
        return report.results(*_unpack(*arguments[:5], lower=arguments[5:]))
    except BaseException as problem:
        return report.failure(problem)


def _unpack(form: str, compression: str, algorithm: str, numbers: str, path: str, *, lower: list[str]) -> list[bytes]:
    limits = Limits.of([int(number) for number in numbers.split(",")])
    ids = idmap.id_map() if idmap.needs_user_namespace() else None
    owners_may_differ = ids is not None or idmap.in_user_namespace()
    try:
        confine.enter_namespaces(ids)
    except OSError as problem:
        raise Unavailable(f"unpack: namespaces: {(problem.strerror or '').lower()}") from problem
    root_fd = confine.hold(path, writable=True)
    lower_fds = tuple(confine.hold(one, writable=False) for one in lower)
    os.umask(0)
    meter = Meter(limits)
    read = reader(0, compression, limits, meter)
    program = restrict.compiled_filter()
    confine.give_up_paths()
    confine.give_up_powers()
    restrict.restrict(root_fd, lower_fds, program)

    feed = Feed(read, algorithm)
    tar = TarReader(feed.next_chunk)
    owners = Owners(single=ids is not None and ids.single, devices=not owners_may_differ)
    applier = Applier(root_fd, Whiteouts(form), limits, owners, lower_fds)
    applier.run(tar)
    tar.drain()
    digest = feed.hexdigest()
    notes = [f"{text} ({count})".encode() for text, count in list(applier.notes.items())[:_NOTES_MAX]]
    quota = applier.quota
    return [
        digest.encode(), b"%d" % feed.size, b"%d" % meter.read, b"%d" % quota.bytes, b"%d" % quota.inodes,
        b"1" if applier.opaque_root else b"0", *notes,
    ]  # fmt: skip
