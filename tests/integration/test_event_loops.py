"""The coroutine calls on several event loops: each loop opens and closes connections of its own."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from celery_daemons import Daemons
from tests.support.apps import connections, names_of, wait_unconnected
from tests.support.servers import Server


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_connections_of_a_loop_close_with_the_loop(
    daemons: Daemons, quiet_server: Server, run: Callable[[Coroutine[Any, Any, int]], int]
) -> None:
    wait_unconnected(quiet_server)

    async def story() -> int:
        await asyncio.gather(*(daemons.aio.nodes() for _ in range(5)))
        return connections(quiet_server)

    for _ in range(3):
        assert run(story()) > 0
        wait_unconnected(quiet_server)


def test_a_loop_that_is_closed_without_a_shutdown_closes_its_connections_by_request(
    daemons: Daemons, quiet_server: Server
) -> None:
    wait_unconnected(quiet_server)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(daemons.aio.nodes())
        assert connections(quiet_server) > 0

        loop.run_until_complete(daemons.aio.close())
        wait_unconnected(quiet_server)

        assert loop.run_until_complete(daemons.aio.nodes()) == []
        loop.run_until_complete(daemons.aio.close())
    finally:
        loop.close()


def test_loops_in_several_threads_use_the_calls_at_once(daemons: Daemons) -> None:
    together = threading.Barrier(4)
    results: list[object] = []

    async def story(number: int) -> None:
        for _ in range(20):
            await daemons.aio.spawn(f"feed.{number}", "feed", kwargs={"number": number})
            results.append(await daemons.aio.pick_node(f"feed.{number}"))

    def run(number: int) -> None:
        together.wait()
        asyncio.run(story(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [None] * 80
    assert {record.name for record in daemons.list()} == {f"feed.{number}" for number in range(4)}


def test_a_process_forked_in_a_coroutine_opens_connections_of_its_own(daemons: Daemons) -> None:
    async def story() -> int:
        await daemons.aio.spawn("feed.1", "feed")
        child = os.fork()
        if child == 0:
            ended = 1
            try:
                names = asyncio.run(names_of(daemons))
                ended = 0 if names == ["feed.1"] else 2
            finally:
                os._exit(ended)
        # Both use their connections at the same time.
        for _ in range(20):
            assert await names_of(daemons) == ["feed.1"]
        return child

    _, status = os.waitpid(asyncio.run(story()), 0)
    assert os.waitstatus_to_exitcode(status) == 0
