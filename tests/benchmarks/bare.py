"""What the same machine takes in the same run for the least that could be done instead: noise cancels in the ratio."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable

import psutil
from kombu import Connection, Exchange, Queue

from celery_daemons.store.connection import Store

#: Enough that the median is that of the machine, not of one moment.
_ROUNDS = 300
_TASKS = 10_000


def times(action: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of so many calls."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def hget(store: Store, name: str = "nothing") -> float:
    """Seconds of an HGET on the book."""
    return statistics.median(times(lambda: store.client.hget(store.keys.book, name), _ROUNDS))


def evalsha(store: Store) -> float:
    """Seconds of a script that returns 1."""
    sha = store.client.script_load("return 1")
    return statistics.median(times(lambda: store.client.evalsha(sha, 0), _ROUNDS))


def publish(url: str) -> float:
    """Seconds for Kombu to publish a small message to a queue that exists."""
    name = f"bare-{uuid.uuid4().hex[:6]}"
    with Connection(url) as connection, connection.Producer(serializer="json") as producer:
        queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
        bound = queue(connection.default_channel)
        bound.declare()
        taken = times(lambda: producer.publish({"number": 1}, exchange=name, routing_key=name), _ROUNDS)
        bound.delete()
    return statistics.median(taken)


def task_start() -> float:
    """Seconds for an asyncio task to be made and to come to its first wait, as one of ten thousand."""

    async def rest(event: asyncio.Event) -> None:
        await event.wait()

    async def measure() -> float:
        began = time.perf_counter()
        tasks = [asyncio.create_task(rest(asyncio.Event())) for _ in range(_TASKS)]
        await asyncio.sleep(0)
        taken = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return taken / _TASKS

    return statistics.median(asyncio.run(measure()) for _ in range(5))


def task_memory() -> float:
    """KiB of an asyncio task that waits for an event."""

    async def rest(event: asyncio.Event) -> None:
        await event.wait()

    async def measure() -> float:
        process = psutil.Process()
        before = process.memory_full_info().uss
        tasks = [asyncio.create_task(rest(asyncio.Event())) for _ in range(_TASKS)]
        await asyncio.sleep(0.1)
        used = process.memory_full_info().uss - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return used / _TASKS / 1024

    return asyncio.run(measure())
