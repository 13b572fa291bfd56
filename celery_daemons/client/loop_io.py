"""I/O on the running event loop: each loop has connections of its own, which close when the loop shuts down."""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from celery_daemons.client.blocking import finish
from celery_daemons.domain.names import DaemonName
from celery_daemons.errors import StoreUnavailable
from celery_daemons.store import server
from celery_daemons.store.connection import TIMEOUT, AsyncStore
from celery_daemons.store.keys import Keys
from celery_daemons.store.query import AsyncReader
from celery_daemons.store.script import ScriptCall

T = TypeVar("T")

#: The most commands of a loop at the same time; each takes a connection. Further commands wait.
_AT_ONCE: Final = 32


class _LoopStore:
    """The connections of one event loop."""

    def __init__(self, url: str, keys: Keys, on_close: Callable[[], None]) -> None:
        self.keys = keys
        self._store = AsyncStore(url, keys, timeout=TIMEOUT, retries=1)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._checked = False
        self._on_close = on_close
        # asyncio.run() and asyncio.Runner close every asynchronous generator of a loop before they close the loop.
        self._until_shutdown = self._closing()
        finish(_first(self._until_shutdown))

    async def _closing(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._on_close()
            await self._store.close()

    async def close(self) -> None:
        await self._until_shutdown.aclose()

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """Read without the limit of commands, for queries that wait in Redis."""
        await self._check()
        return await self._store.read(query)

    async def read_in_turn(self, query: Callable[[Any], Any]) -> Any:
        async with self._in_turn():
            await self._check()
            return await self._store.read(query)

    async def run(self, call: ScriptCall[T]) -> T:
        async with self._in_turn():
            await self._check()
            return await self._store.run(call)

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"Redis at {server.shown(self._store.url)} has not answered {_AT_ONCE} calls of this event loop within "
                f"{TIMEOUT:g} s; check that the server runs and is not overloaded"
            ) from None
        try:
            yield
        finally:
            self._turn.release()

    async def _check(self) -> None:
        # Without a lock: while Redis does not answer, calls that begin at the same time fail at the same time.
        if not self._checked:
            await self._store.check()
            self._checked = True


async def _first(generator: AsyncGenerator[None, None]) -> None:
    await anext(generator)


class LoopIO:
    """The connections of each event loop that uses this object; a forked process begins with none.

    A loop's connections open at its first call. They close with :meth:`close` or when the loop shuts down, as
    :func:`asyncio.run` and every ASGI server do.
    """

    def __init__(self, url: str, keys: Keys) -> None:
        server.check_url(url)
        self.keys = keys
        self._url = url
        self._stores: dict[asyncio.AbstractEventLoop, _LoopStore] = {}
        _used.add(self)

    def _store(self) -> _LoopStore:
        loop = asyncio.get_running_loop()
        store = self._stores.get(loop)
        if store is None:
            # A loop that was closed without a shutdown has left its entry.
            self._stores = {one: its for one, its in self._stores.items() if not one.is_closed()}
            store = _LoopStore(self._url, self.keys, lambda: self._forget(loop))
            self._stores[loop] = store
        return store

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stores.pop(loop, None)

    def note_fork(self) -> None:
        """Open new connections at the next call. Called in every forked process.

        The inherited connections are kept, because closing them would end the registration of the sockets with the
        parent's event loop.
        """
        _inherited.append(self._stores)
        self._stores = {}

    @property
    def patient(self) -> AsyncReader:
        """A reader for queries that wait in Redis, which do not count towards the limit of commands."""
        return self._store()

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """Call ``query`` with the client of this loop and return the reply. Raises StoreUnavailable."""
        return await self._store().read_in_turn(query)

    async def run(self, call: ScriptCall[T]) -> T:
        """Run a verb and decode the reply. Raises StoreUnavailable, and what the verb raises."""
        return await self._store().run(call)

    async def entry(self, name: DaemonName) -> bytes | None:
        """Return a daemon's undecoded entry in the address book."""
        raw: bytes | None = await self.read(lambda client: client.hget(self.keys.book, name))
        return raw

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` without blocking the loop."""
        await asyncio.sleep(seconds)

    async def compute(self, function: Callable[[], T]) -> T:
        """Return the result of a function that may take long, without blocking the loop."""
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        """Close the connections of the running loop. The next call opens new ones."""
        store = self._stores.get(asyncio.get_running_loop())
        if store is not None:
            await store.close()


#: Every object in use, for the hook of forks.
_used: "weakref.WeakSet[LoopIO]" = weakref.WeakSet()
#: What a forked process has inherited and must not touch.
_inherited: list[object] = []


def _after_fork() -> None:
    for one in list(_used):
        one.note_fork()


os.register_at_fork(after_in_child=_after_fork)
