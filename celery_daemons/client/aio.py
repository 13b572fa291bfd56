"""Run the calls of a blocking object in threads and offer them as coroutines."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from itertools import islice
from typing import Any, Final


class Aio:
    """The public methods of ``target`` as coroutines.

    Each call runs in a thread of the default executor, so that the event loop does not wait for Redis. A method that
    returns an iterator becomes an async generator that reads a page at a time.
    """

    #: Methods that return an iterator, with the number of items that are read at once.
    _ITERATORS: Final = {"list": 1000}

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._target, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(name)
        if name in self._ITERATORS:

            @wraps(method)
            def iterate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                return _paged(method(*args, **kwargs), self._ITERATORS[name])

            return iterate

        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


async def _paged(items: Iterator[Any], size: int) -> AsyncIterator[Any]:
    while page := await asyncio.to_thread(lambda: list(islice(items, size))):
        for item in page:
            yield item
