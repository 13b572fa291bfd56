"""Waiting for something to become true: with an end, and with a reason when it does not."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

#: How often a predicate is asked. Short beside every lease in the tests, long beside one round trip to a server.
INTERVAL = 0.02


def wait_until(predicate: Callable[[], T], *, within: float, because: str, interval: float = INTERVAL) -> T:
    """Return the first true value of ``predicate``.

    ``within`` are seconds; ``because`` says why it must become true in that time. What the predicate raises goes
    through: an outage that a test expects is for its predicate to handle.
    """
    deadline = time.monotonic() + within
    while True:
        # Read before asking, so that the last look is never taken before the deadline.
        last_look = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if last_look:
            raise _too_late(value, within, because)
        time.sleep(interval)


@overload
async def wait_until_async(
    predicate: Callable[[], Awaitable[T]], *, within: float, because: str, interval: float = INTERVAL
) -> T: ...
@overload
async def wait_until_async(
    predicate: Callable[[], T], *, within: float, because: str, interval: float = INTERVAL
) -> T: ...
async def wait_until_async(
    predicate: Callable[[], object], *, within: float, because: str, interval: float = INTERVAL
) -> object:
    """Do as :func:`wait_until` does, without blocking the loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + within
    while True:
        last_look = time.monotonic() >= deadline
        answer = predicate()
        value: object = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if last_look:
            raise _too_late(value, within, because)
        await asyncio.sleep(interval)


def _too_late(value: object, within: float, because: str) -> AssertionError:
    return AssertionError(f"not within {within:g} s: {because}; last value seen: {value!r}")
