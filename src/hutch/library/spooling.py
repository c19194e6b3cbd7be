"""Between descriptors, which the engine reads and writes, and the bytes that callers have."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_CHUNK = 256 << 10


@contextmanager
def reading(data: bytes | Iterable[bytes] | str | os.PathLike[str]) -> Iterator[str | int]:
    """A path as it is; of bytes and chunks, a descriptor that they can be read from."""
    if isinstance(data, (str, os.PathLike)):
        yield os.fspath(data)
        return
    chunks = [bytes(data)] if isinstance(data, (bytes, bytearray, memoryview)) else data
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def write() -> None:
        try:
            for chunk in chunks:
                _write_all(write_fd, chunk)
        except BrokenPipeError:
            pass  # the reader has what it wants, or says why not
        except BaseException as error:  # of the caller's own iterator
            failure.append(error)
        finally:
            os.close(write_fd)

    writer = threading.Thread(target=write, name="hutch-archive", daemon=True)
    writer.start()
    try:
        yield read_fd
    finally:
        os.close(read_fd)
        writer.join()
        if failure:
            raise failure[0]


def written(write: Callable[[int], object]) -> Iterator[bytes]:
    """The chunks of what `write` writes to a descriptor, in a thread of its own; its error is the reader's."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            write(write_fd)
        except BaseException as error:
            failure.append(error)
        finally:
            os.close(write_fd)

    writer = threading.Thread(target=run, name="hutch-archive", daemon=True)
    writer.start()
    whole = False
    try:
        while chunk := os.read(read_fd, _CHUNK):
            yield chunk
        whole = True
    finally:
        os.close(read_fd)
        writer.join()
        if whole and failure:
            raise failure[0]


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
