"""The same calls as coroutines."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import Any

_END = object()


class Aio:
    """Runs each call of ``target`` in a thread, so that the event loop never waits for Redis.

    Methods that return an iterator become async iterators, a page at a time.
    """

    _ITERATORS = frozenset(("list", "follow_events"))

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(name)
        if name in self._ITERATORS:

            @wraps(method)
            def iterate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                return _stepped(method(*args, **kwargs))

            return iterate

        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


async def _stepped(items: Iterator[Any]) -> AsyncIterator[Any]:
    while (item := await asyncio.to_thread(next, items, _END)) is not _END:
        yield item
