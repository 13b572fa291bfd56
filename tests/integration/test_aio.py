"""The calls as coroutines: none waits for another, and each event loop opens and closes connections of its own."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis
import uvloop
from celery import Celery

from celery_daemons import Address, Daemons, SpawnTimeout, StoreUnavailable, UnknownLauncher
from celery_daemons.client import address_book
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until, wait_until_async

SOON = 30.0
LONG = 60.0  # longer than a test takes


@pytest.fixture(scope="module")
def quiet_server() -> Iterator[Server]:
    """A server that only this module uses, so that its connections can be counted."""
    with Server() as server:
        yield server


@pytest.fixture
def daemons(quiet_server: Server, namespace: str) -> Daemons:
    return app_at(quiet_server.url, namespace)


def app_at(url: str, namespace: str) -> Daemons:
    """Return an app with a launcher, whose daemons no worker runs."""
    daemons = Daemons(Celery("proj", broker=url), namespace=namespace)

    @daemons.launcher
    async def feed(ctx: Any, number: int = 0) -> None:
        """Do nothing."""

    return daemons


def connections(server: Server) -> int:
    """Return the number of connections to a server, without the one that asks."""
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def wait_unconnected(server: Server) -> None:
    """Wait until nothing is connected to a server."""
    wait_until(lambda: connections(server) == 0, within=SOON, because="every connection was closed")


async def cancel(tasks: list["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_look_up_is_answered_while_forty_spawns_wait(daemons: Daemons) -> None:
    # Given
    pending = [
        asyncio.create_task(daemons.aio.spawn(f"feed.{number}", "feed", kwargs={"number": number}, wait=LONG))
        for number in range(40)
    ]
    await wait_until_async(lambda: recorded(daemons, 40), within=SOON, because="each spawn is recorded at once")

    # When
    look_up = asyncio.create_task(daemons.aio.locate("feed.1"))
    done, _ = await asyncio.wait([look_up, *pending], return_when=asyncio.FIRST_COMPLETED)

    # Then
    assert done == {look_up}
    assert look_up.result() is None
    await cancel(pending)


async def recorded(daemons: Daemons, count: int) -> bool:
    """Return whether so many daemons are known."""
    return len([record async for record in daemons.aio.list()]) == count


@pytest.mark.asyncio
async def test_many_calls_at_once_share_a_bounded_number_of_connections(daemons: Daemons, quiet_server: Server) -> None:
    before = connections(quiet_server)

    found = await asyncio.gather(*(daemons.aio.locate(f"feed.{number}") for number in range(500)))

    assert found == [None] * 500
    assert connections(quiet_server) - before <= 32


@pytest.mark.asyncio
async def test_followers_of_events_hold_up_no_other_call(daemons: Daemons) -> None:
    # Given more followers than commands at once
    async def follow(name: str) -> str:
        async for entry in daemons.aio.follow_events():
            if any(item[0] == name for item in entry.items):
                return entry.event
        raise AssertionError("the journal has no end")

    followers = [asyncio.create_task(follow("feed.after")) for _ in range(50)]

    # When
    number = 0
    while not all(task.done() for task in followers):
        number += 1
        await daemons.aio.spawn("feed.after", "feed", kwargs={"number": number}, replace=True)
        await asyncio.sleep(0.02)

    # Then
    assert {task.result() for task in followers} == {"want"}


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


@pytest.mark.asyncio
async def test_every_wait_that_is_cancelled_ends(daemons: Daemons) -> None:
    """The Redis client swallows a cancellation that arrives while it sends, and a wait would go on with its loop."""
    # Given
    pending = [asyncio.create_task(daemons.aio.spawn(f"feed.{number}", "feed", wait=10 * LONG)) for number in range(60)]
    await wait_until_async(lambda: recorded(daemons, 60), within=SOON, because="each spawn is recorded at once")

    # When
    for task in pending:
        task.cancel()

    # Then
    _, still_pending = await asyncio.wait(pending, timeout=SOON)
    assert not still_pending
    assert all(task.cancelled() for task in pending)


@pytest.mark.asyncio
async def test_a_cancelled_call_leaves_no_reply_to_the_next(daemons: Daemons, quiet_server: Server) -> None:
    # Given
    await daemons.aio.spawn("feed.1", "feed", kwargs={"number": 7})

    # When calls are cancelled after each number of steps that a call can take
    for steps in range(60):
        task = asyncio.create_task(daemons.aio.events(last=5))
        for _ in range(steps % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        # Then every further call has the reply that belongs to it
        assert await daemons.aio.nodes() == []
        (record,) = [record async for record in daemons.aio.list()]
        assert record.name == "feed.1"
    assert connections(quiet_server) <= 32


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


async def names_of(daemons: Daemons) -> list[str]:
    """Return the names of all daemons."""
    return [record.name async for record in daemons.aio.list()]


@pytest.mark.asyncio
async def test_a_connection_that_the_server_has_closed_is_replaced(daemons: Daemons, quiet_server: Server) -> None:
    await daemons.aio.nodes()

    with redis.Redis.from_url(quiet_server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    assert await daemons.aio.nodes() == []


@pytest.mark.asyncio
async def test_errors_are_raised_where_they_are_awaited(daemons: Daemons, namespace: str) -> None:
    lonely = app_at("redis://127.0.0.1:1/0", namespace)

    with pytest.raises(UnknownLauncher):
        await daemons.aio.spawn("feed.1", "no-such-launcher")
    with pytest.raises(SpawnTimeout, match="no node is up"):
        await daemons.aio.spawn("feed.1", "feed", wait=0.05)
    with pytest.raises(StoreUnavailable):
        await lonely.aio.locate("feed.1")


@pytest.mark.asyncio
async def test_an_app_without_a_cluster_records_the_calls(namespace: str) -> None:
    daemons = app_at("redis://127.0.0.1:1/0", namespace)
    daemons.app.conf.task_always_eager = True

    address: Address | None = await daemons.aio.spawn("feed.1", "feed", kwargs={"number": 1}, wait=LONG)

    assert address is None
    assert daemons.recorded is not None
    assert list(daemons.recorded.specs) == await names_of(daemons) == ["feed.1"]
    assert [entry async for entry in daemons.aio.follow_events()] == []


@pytest.mark.asyncio
async def test_an_address_book_opens_in_a_coroutine(daemons: Daemons) -> None:
    async with daemons.address_book() as book:
        assert book.locate("feed.1") is None
        assert book.nodes() == []
        with pytest.raises(SpawnTimeout, match=r"feed\.1 does not run after 0\.05 s"):
            await book.wait_for_async("feed.1", timeout=0.05)


@pytest.mark.asyncio
async def test_an_address_book_whose_opening_is_cancelled_is_closed(quiet_server: Server, namespace: str) -> None:
    # Given a Redis that does not answer
    with Proxy(quiet_server.port) as proxy:
        proxy.hold()
        book = app_at(f"redis://127.0.0.1:{proxy.port}/0", namespace).address_book()
        opening = asyncio.create_task(book.__aenter__())
        await asyncio.sleep(0)

        # When
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        proxy.heal()

        # Then
        await wait_until_async(lambda: not address_book._closing, within=SOON, because="Redis answers again")
        assert not [thread for thread in threading.enumerate() if thread.name == "celery-daemons-address-book"]
