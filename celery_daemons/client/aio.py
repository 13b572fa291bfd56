"""The same calls as coroutines."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from itertools import islice
from typing import Any, Final


class Aio:
    """Runs each call of ``target`` in a thread, so that the event loop never waits for Redis.

    Methods that return an iterator become async iterators, a page at a time.
    """

    #: What returns an iterator, and how much of it is fetched at once: a page where there is an end.
    _ITERATORS: Final = {"list": 1000, "follow_events": 1}

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(name)
        if name in self._ITERATORS:

            @wraps(method)
            def iterate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                return _stepped(method(*args, **kwargs), self._ITERATORS[name])

            return iterate

        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


async def _stepped(items: Iterator[Any], page: int) -> AsyncIterator[Any]:
    while found := await asyncio.to_thread(lambda: list(islice(items, page))):
        for item in found:
            yield item
