"""What the coroutines of the client wait for: Redis and time. The same coroutines run with blocking I/O."""

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from celery_daemons.domain.names import DaemonName
from celery_daemons.store.connection import Store
from celery_daemons.store.query import AsyncReader
from celery_daemons.store.script import ScriptCall

T = TypeVar("T")


class ClusterIO(AsyncReader, Protocol):
    """One namespace of Redis, and the passing of time."""

    @property
    def patient(self) -> AsyncReader:
        """A reader for queries that wait in Redis for something new."""

    async def run(self, call: ScriptCall[T]) -> T:
        """Run a verb and decode the reply. Raises StoreUnavailable, and what the verb raises."""

    async def entry(self, name: DaemonName) -> bytes | None:
        """Return a daemon's undecoded entry in the address book."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def compute(self, function: Callable[[], T]) -> T:
        """Return the result of a function that does no I/O and may take long."""

    async def close(self) -> None:
        """Close the connections."""


class BlockingIO:
    """I/O that blocks the thread: a coroutine that waits for nothing else runs to its end in one step."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.keys = store.keys

    @property
    def patient(self) -> AsyncReader:
        """The same reader: a thread that waits does not delay other threads."""
        return self

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """Call ``query`` with the blocking client and return the reply."""
        return self._store.read(query)

    async def run(self, call: ScriptCall[T]) -> T:
        """Run a verb and decode the reply."""
        return self._store.run(call)

    async def entry(self, name: DaemonName) -> bytes | None:
        """Return a daemon's undecoded entry in the address book."""
        return self._store.entry(name)

    async def sleep(self, seconds: float) -> None:
        """Block for ``seconds``."""
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs this

    async def compute(self, function: Callable[[], T]) -> T:
        """Call the function."""
        return function()

    async def close(self) -> None:
        """Close the connections of the store."""
        self._store.close()
