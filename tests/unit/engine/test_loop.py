"""The monitor's event loop."""

from __future__ import annotations

import os

from hutch.engine.monitor.loop import READ, Loop


def test_an_event_of_a_closed_descriptor_is_not_taken_for_that_of_its_successor() -> None:
    """Both pipes are ready in one poll; whoever is first closes the other's, whose number is then a third one's."""
    called = []
    with Loop() as loop:
        pipes = [os.pipe(), os.pipe()]
        for _, write_fd in pipes:
            os.write(write_fd, b"x")
        quiet_fd, other_fd = os.pipe()

        def act(fd: int, rival_fd: int) -> None:
            called.append("ready")
            os.read(fd, 1)
            loop.forget(rival_fd)
            os.dup2(quiet_fd, rival_fd)
            loop.watch(rival_fd, READ, lambda _: called.append("wrong"))
            loop.after(0.05, loop.stop)

        first, second = pipes[0][0], pipes[1][0]
        loop.watch(first, READ, lambda _: act(first, second))
        loop.watch(second, READ, lambda _: act(second, first))
        loop.run()
        for fd in (quiet_fd, other_fd, *pipes[0], *pipes[1]):
            os.close(fd)
    assert called == ["ready"]
