"""Wait for a condition, with a time limit and a reason for the failure message."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

#: Seconds between checks: short compared with every lease in the tests, long compared with a round trip.
INTERVAL = 0.02


def wait_until(predicate: Callable[[], T], *, within: float, because: str, interval: float = INTERVAL) -> T:
    """Return the first true value of ``predicate``.

    ``within`` is in seconds; ``because`` says why the predicate must become true in that time. Exceptions of the
    predicate are not caught: a predicate handles the outages that its test expects.
    """
    deadline = time.monotonic() + within
    while True:
        # Read the clock before the check, so that the last check is never made before the deadline.
        is_last = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if is_last:
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
    """Wait as :func:`wait_until` does, without blocking the loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + within
    while True:
        is_last = time.monotonic() >= deadline
        answer = predicate()
        value: object = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if is_last:
            raise _too_late(value, within, because)
        await asyncio.sleep(interval)


def _too_late(value: object, within: float, because: str) -> AssertionError:
    return AssertionError(f"not within {within:g} s: {because}; last value seen: {value!r}")
