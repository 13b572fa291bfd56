"""The calls as coroutines: none waits for another, and a cancelled call leaves nothing behind."""

import asyncio
import threading
from typing import Any

import pytest
import redis

from celery_daemons import Address, Daemons, SpawnTimeout, StoreUnavailable, UnknownLauncher
from celery_daemons.client import address_book, loop_io
from tests.support.apps import app_at, connections, names_of
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until_async

SOON = 30.0
LONG = 60.0  # longer than a test takes


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
async def test_followers_of_events_delay_no_other_call(daemons: Daemons) -> None:
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


@pytest.mark.asyncio
async def test_every_wait_that_is_cancelled_ends(daemons: Daemons) -> None:
    """Attacks: the Redis client swallows a cancellation that arrives while it sends, and the wait would continue."""
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
async def test_many_calls_to_a_redis_that_does_not_answer_fail_together(
    quiet_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(loop_io, "TIMEOUT", 0.5)
    with Proxy(quiet_server.port) as proxy:
        proxy.hold()
        aio = app_at(f"redis://127.0.0.1:{proxy.port}/0", namespace).aio

        # When
        failures = await asyncio.gather(*(aio.locate(f"feed.{n}") for n in range(200)), return_exceptions=True)

        # Then none has waited for the time-outs of others
        assert {type(failure) for failure in failures} == {StoreUnavailable}
        assert len([one for one in failures if "has not answered 32 calls" in str(one)]) > 100

        # And the calls are answered once Redis answers
        monkeypatch.setattr(loop_io, "TIMEOUT", SOON)
        proxy.heal()
        assert await app_at(f"redis://127.0.0.1:{proxy.port}/0", namespace).aio.locate("feed.1") is None


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
