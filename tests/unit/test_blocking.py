"""Coroutines that run without an event loop: the blocking calls are those of `daemons.aio`."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

from celery_daemons import Daemons
from celery_daemons.aio import Aio
from celery_daemons.client.blocking import blocking, blocking_iterator, finish

CALLS = sorted(name for name in vars(Aio) if not name.startswith("_") and name != "close")


class Calls:
    """Coroutines that never wait."""

    def __init__(self) -> None:
        self.closed = False

    async def double(self, number: int, *, offset: int = 0) -> int:
        """Double a number."""
        return 2 * number + offset

    async def count(self, end: int) -> AsyncIterator[int]:
        """Count from zero."""
        try:
            for number in range(end):
                yield number
        finally:
            self.closed = True


class Blocking:
    """The same calls without an event loop."""

    def __init__(self) -> None:
        self.calls = Calls()

    double = blocking(Calls.double)
    count = blocking_iterator(Calls.count)


@pytest.mark.parametrize("name", CALLS)
def test_every_coroutine_of_an_app_has_a_blocking_call_with_its_parameters(name: str) -> None:
    coroutine, call = getattr(Aio, name), getattr(Daemons, name)

    assert inspect.signature(call).parameters == inspect.signature(coroutine).parameters
    assert inspect.getdoc(call) == inspect.getdoc(coroutine)
    assert not inspect.iscoroutinefunction(inspect.unwrap(call))


def test_a_blocking_call_returns_what_its_coroutine_returns() -> None:
    assert Blocking().double(3, offset=1) == 7
    with pytest.raises(TypeError, match="shift"):
        Blocking().double(3, shift=1)  # type: ignore[call-arg]


def test_blocking_calls_run_inside_an_event_loop() -> None:
    async def story() -> tuple[int, list[int]]:
        return Blocking().double(3), list(Blocking().count(3))

    assert asyncio.run(story()) == (6, [0, 1, 2])


def test_an_iterator_that_is_not_exhausted_closes_its_generator() -> None:
    both = Blocking()
    items = both.count(5)
    assert next(items) == 0

    items.close()  # type: ignore[attr-defined]

    assert both.calls.closed


def test_a_coroutine_that_waits_for_an_event_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="waits for an event loop"):
        finish(asyncio.sleep(0))
