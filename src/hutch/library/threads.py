"""Blocking calls for asyncio: each in a thread of its own, which ends when its caller is cancelled.

The loop's own pool is left alone: it has few threads, and calls here may wait for as long as a container lives.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from hutch.library.cancelling import Cancelled, Scope, current

T = TypeVar("T")
_AHEAD = 64
"""How many items a stream's thread is ahead of who takes them."""
_END = object()


async def call(work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
    """Do something that blocks in a thread, and wait for it.

    Args:
        work: what to do.
        discard: what to do with a result that comes when nobody wants it any more.

    If the caller is cancelled, what `work` waits for is ended, and it has returned before that goes on.
    """
    scope = Scope()
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    _start(scope, future, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            scope.cancel()
        await _finished(future)
        if discard is not None and not future.exception():
            undone: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            _start(Scope(), undone, lambda: discard(future.result()))
            await _finished(undone)
            undone.exception()
        raise


def _start(scope: Scope, future: asyncio.Future[T], work: Callable[[], T]) -> None:
    loop = future.get_loop()
    context = contextvars.copy_context()
    context.run(current.set, scope)

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:
            _tell(loop, _fail, future, error)
        else:
            _tell(loop, _succeed, future, result)

    threading.Thread(target=run, name="hutch-aio", daemon=True).start()


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(what, *args)
    except RuntimeError:
        return  # the loop has been closed: nobody is there to be told


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        # A coroutine cannot raise StopIteration, and a thread's exit is not the loop's.
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        future.exception()  # somebody who was cancelled does not ask


async def _finished(future: asyncio.Future[Any]) -> None:
    """Wait until it is done, whatever happens to the waiting task meanwhile."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


async def stream(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """What an iterator gives that blocks, made and advanced in a thread.

    Whoever stops before its end, or is cancelled, ends that thread.
    """
    scope, room = Scope(), threading.Semaphore(_AHEAD)
    queue: asyncio.Queue[Any] = asyncio.Queue()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    loop = done.get_loop()

    def pump() -> None:
        iterator = make()
        try:
            for item in iterator:
                room.acquire()
                if scope.cancelled:
                    return
                _tell(loop, queue.put_nowait, item)
        except Cancelled:
            return
        finally:
            if close := getattr(iterator, "close", None):
                close()
            _tell(loop, queue.put_nowait, _END)

    _start(scope, done, pump)
    try:
        while (item := await queue.get()) is not _END:
            room.release()
            yield item
        await done
    finally:
        if not done.done():
            scope.cancel()
            room.release()
            await _finished(done)
