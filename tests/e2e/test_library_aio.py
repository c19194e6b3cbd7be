"""`hutch.aio`: the same for asyncio; a cancelled call leaves nothing, neither in the engine nor in the program."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import hutch
from tests.support.host import requires

pytestmark = requires("root")


def run(lib, work):
    """Run a coroutine function with an engine for asyncio; no thread may be left."""

    async def main():
        async with hutch.aio.Engine(lib.engine.root, lib.engine.state) as engine:
            return await asyncio.wait_for(work(engine), 60)

    before = threading.active_count()
    result = asyncio.run(main())
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before, threading.enumerate()
    return result


async def gone(engine):
    """Wait until no container is left."""
    for _ in range(200):
        if not await engine.containers.list(all=True):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await engine.containers.list(all=True))


def test_the_same_names(lib):
    async def work(engine):
        options = {"cgroup_parent": lib.cgroup}
        assert await engine.containers.run(lib.image, "echo hi", remove=True, **options) == b"hi\n"
        with pytest.raises(hutch.ContainerError):
            await engine.containers.run(lib.image, "false", remove=True, **options)
        script = ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done; sleep 1000"]
        async with await engine.containers.run(lib.image, script, detach=True, **options) as c:
            assert c.status == "running" and c.attrs["Id"] == c.id
            found = []
            async for line in c.logs(follow=True):
                found.append(line)
                if len(found) == 3:
                    break
            assert found == [b"1\n", b"2\n", b"3\n"]
            await c.put("/tmp/a", b"data")
            assert await c.get("/tmp/a") == b"data"
            async with await c.exec("cat", stream=True, stdin=True) as process:
                await process.write(b"abc")
                await process.close_stdin()
                assert [chunk async for chunk in process] == [b"abc"]
            with pytest.raises(hutch.ExecTimeout):
                await c.exec("sleep 100", timeout=0.1)
            snapshot = await c.snapshot()
            await c.reset(snapshot)
            twin = await c.clone()
            assert await twin.get("/tmp/a") == b"data"
            await twin.remove(force=True)
            assert b"".join([chunk async for chunk in c.export()])
            results = await asyncio.gather(*(c.exec(f"echo {number}") for number in range(20)))
            assert [int(result.stdout) for result in results] == list(range(20))
        assert await engine.containers.list(all=True) == []
        assert (await engine.volumes.create("data")).name == "data"
        assert len(await engine.images.list()) == 1
        events = [event["Action"] async for event in engine.events(since=0.0, until=time.time())]
        assert "exec_die" in events

    run(lib, work)


def test_cancellation_ends_what_was_started(lib):
    async def work(engine):
        options = {"cgroup_parent": lib.cgroup}
        for delay_s in (0.0, 0.005, 0.02, 0.05, 0.1, 0.3):
            for more in ({}, {"detach": True}, {"stream": True}):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        process = await engine.containers.run(lib.image, "sleep 1000", **more, **options)
                        if isinstance(process, hutch.aio.Process):
                            async with process:
                                async for _ in process:
                                    pass
                        elif isinstance(process, hutch.aio.Container):
                            async with process as held:
                                await held.wait()
                await gone(engine)

    run(lib, work)


def test_cancelled_execs_and_waits_end(lib):
    async def work(engine):
        async with await engine.containers.run(lib.image, "sleep 1000", detach=True, cgroup_parent=lib.cgroup) as c:
            for wait in (lambda: c.exec(["sh", "-c", "sleep 900; true"]), c.wait, lambda: anext(c.logs(follow=True))):
                began = time.monotonic()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await wait()
                assert time.monotonic() - began < 2
            for _ in range(100):
                if len((await c.top())["Processes"]) == 1:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError(await c.top())

    run(lib, work)


def test_a_stream_that_nobody_finishes_ends(lib):
    async def work(engine):
        async with await engine.containers.run(lib.image, "sleep 1000", detach=True, cgroup_parent=lib.cgroup) as c:
            async for chunk in await c.exec("yes", stream=True):
                assert chunk.startswith(b"y\n")
                break
            async for event in engine.events(since=0.0, follow=True):
                assert event["Type"] in ("container", "image")
                break

    run(lib, work)


def test_who_only_wants_one_exec_waits_for_no_other(lib):
    async def work(engine):
        async with await engine.containers.run(lib.image, "sleep 1000", detach=True, cgroup_parent=lib.cgroup) as c:
            waiting = [asyncio.create_task(c.exec("sleep 1000")) for _ in range(40)]  # more than a pool has threads
            assert (await c.exec("echo quick")).stdout == b"quick\n"
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(lib, work)
