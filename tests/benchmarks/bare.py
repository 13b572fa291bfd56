"""The cost of bare operations, measured in the same run on the same machine, so that noise cancels in the ratio."""

import asyncio
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

from kombu import Connection, Exchange, Queue

from celery_daemons.store.connection import Store

#: Enough rounds for a stable median.
_ROUNDS = 300
_TASKS = 10_000
#: Prints the private memory (USS) per task, in KiB. The first tasks pay for what is made once.
_TASK_MEMORY = """
import asyncio, gc, psutil

TASKS = 50_000

async def rest(event):
    await event.wait()

async def started(count):
    tasks = [asyncio.create_task(rest(asyncio.Event())) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks

def private():
    gc.collect()
    return psutil.Process().memory_full_info().uss

async def main():
    first = await started(100)
    before = private()
    tasks = await started(TASKS)
    print((private() - before) / TASKS / 1024)
    for task in first + tasks:
        task.cancel()
    await asyncio.gather(*first, *tasks, return_exceptions=True)

asyncio.run(main())
"""


def times(action: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds that each of ``rounds`` calls took."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def hget(store: Store, name: str = "nothing") -> float:
    """Return the seconds of an HGET on the address book."""
    return statistics.median(times(lambda: store.client.hget(store.keys.book, name), _ROUNDS))


def evalsha(store: Store) -> float:
    """Return the seconds of a script that returns 1."""
    sha = store.client.script_load("return 1")
    return statistics.median(times(lambda: store.client.evalsha(sha, 0), _ROUNDS))


def publish(url: str) -> float:
    """Return the seconds in which Kombu publishes a small message to an existing queue."""
    name = f"bare-{uuid.uuid4().hex[:6]}"
    with Connection(url) as connection, connection.Producer(serializer="json") as producer:
        queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
        bound = queue(connection.default_channel)
        bound.declare()
        taken = times(lambda: producer.publish({"number": 1}, exchange=name, routing_key=name), _ROUNDS)
        bound.delete()
    return statistics.median(taken)


def task_start() -> float:
    """Return the seconds, per task, in which ten thousand asyncio tasks are made and reach their first wait."""

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
    """Return the KiB that an asyncio task that waits for an event adds to a process.

    Each measurement has a new process: in this one, a new task would reuse memory that earlier measures have freed, and
    the process would not grow. There are enough tasks that the growth is a hundred times the noise.
    """
    command = [sys.executable, "-c", _TASK_MEMORY]
    taken = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    return statistics.median(taken)
