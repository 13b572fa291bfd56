"""Run script calls and queries on Redis, blocking or async, and translate the client's errors."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from celery_daemons.domain.names import DaemonName
from celery_daemons.errors import StoreUnavailable
from celery_daemons.store import server
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.lease import layout_mismatch
from celery_daemons.store.redis_client import client_options, new_client
from celery_daemons.store.script import ScriptCall
from celery_daemons.store.server_pin import ServerPin

T = TypeVar("T")

#: Seconds for one command of a client without a heartbeat. Longer than any script runs, and short enough for a person
#: to wait.
TIMEOUT: Final = 5.0
#: Errors after which a command may be sent again: not a timeout, because the caller has waited long enough.
_RETRIED: Final = (redis.ConnectionError,)


def _unavailable(url: str, error: Exception) -> StoreUnavailable:
    """Translate an error of the Redis client."""
    if _is_read_only(error):
        return StoreUnavailable(
            f"Redis at {server.shown(url)} is a read-only replica; point daemons_redis_url at the primary"
        )
    return StoreUnavailable(
        f"Redis at {server.shown(url)} does not answer correctly ({type(error).__name__}: {error}); "
        "check that the server runs and that daemons_redis_url is correct"
    )


def _is_read_only(error: Exception) -> bool:
    """Return whether a replica refused a write, for the message only.

    Before Redis 7, a script reports that as an error of the script.
    """
    return isinstance(error, ReadOnlyError) or (isinstance(error, ResponseError) and "READONLY" in str(error))


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _unavailable(url, error) from error


@contextmanager
def _cancellation_kept() -> Iterator[None]:
    """Raise CancelledError at the end if the task was cancelled meanwhile.

    The Redis client sends with asyncio.wait_for, which in Python 3.11 swallows a cancellation that arrives together
    with the end of what it waits for. A caller that waits in a loop would wait forever.
    """
    task = asyncio.current_task()
    assert task is not None
    requests = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > requests:
            raise asyncio.CancelledError


def _pack(call: ScriptCall[Any]) -> tuple[Any, ...]:
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)


def _pack_whole(call: ScriptCall[Any]) -> tuple[Any, ...]:
    return ("EVAL", call.script.source, len(call.keys), *call.keys, *call.args)


def _ask_server(client: Any, keys: Keys) -> Any:
    pipe = client.pipeline(transaction=False)
    pipe.info("server")
    pipe.info("memory")
    pipe.hget(keys.cluster, "layout")
    return pipe.execute()


def _check_server(replies: Any, url: str) -> None:
    """Check the replies to :func:`_ask_server`. Raises ConfigurationError and LayoutMismatch."""
    info, memory, layout = replies
    server.check({**info, **memory}, url)
    if layout is not None and layout.decode() != LAYOUT:
        raise layout_mismatch(layout.decode())


class Store:
    """A blocking connection pool to a namespace; threads may share a store, and a forked child may use the store.

    With ``pin_server``, connections to a different server fail until ``pin.accept_new_server()``.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        timeout: float = TIMEOUT,
        client: "redis.Redis | None" = None,
        pin_server: bool = False,
    ) -> None:
        server.check_url(url)
        self.url = url
        self.keys = keys
        self._book = keys.book
        self.client: Any = client or new_client(
            redis,
            url,
            retry=redis.retry.Retry(NoBackoff(), 1, supported_errors=_RETRIED),
            redis_connect_func=self._on_connect,
            **client_options(timeout),
        )
        self.pin = ServerPin()
        self._pins_server = pin_server
        self._checked = client is not None

    def _on_connect(self, connection: Any) -> None:
        connection.on_connect()
        if self._pins_server:
            connection.send_command("INFO", "server")
            self.pin.check(connection.read_response())

    def check(self) -> None:
        """Raise ConfigurationError or LayoutMismatch for an unsuitable server or namespace; queries Redis only once."""
        if self._checked:
            return
        with _translated(self.url):
            replies = _ask_server(self.client, self.keys)
        _check_server(replies, self.url)
        self._checked = True

    def run(self, call: ScriptCall[T]) -> T:
        """Run a verb and decode the reply. Raises StoreUnavailable, and what the verb raises."""
        if not self._checked:
            self.check()
        with _translated(self.url):
            try:
                try:
                    reply = self.client.execute_command(*_pack(call))
                except NoScriptError:
                    reply = self.client.execute_command(*_pack_whole(call))
            except ResponseError as error:
                if not isinstance(error, OutOfMemoryError):
                    # Reconnect for the next call, whatever the error says: a server that has become a replica words its
                    # refusal by its version and by what it refuses, and the address may now lead to the new primary.
                    self.client.connection_pool.disconnect(inuse_connections=False)
                raise
        return call.decode(reply)

    def entry(self, name: DaemonName) -> bytes | None:
        """Return a daemon's undecoded entry in the address book: a single HGET with minimal overhead, for look-ups."""
        if not self._checked:
            self.check()
        try:
            raw: bytes | None = self.client.hget(self._book, name)
        except (RedisError, OSError) as error:
            raise _unavailable(self.url, error) from error
        return raw

    def read(self, query: Callable[[Any], T]) -> T:
        """Call ``query`` with the client and translate the client's errors. Raises StoreUnavailable."""
        if not self._checked:
            self.check()
        with _translated(self.url):
            return query(self.client)

    def close(self) -> None:
        """Close the pool."""
        self.client.close()


class AsyncStore:
    """A store for asyncio. A command has ``timeout`` seconds; on a broken connection it is retried ``retries`` times.

    With ``pin_server``, connections to a different server fail until ``pin.accept_new_server()``.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        timeout: float,
        retries: int = 0,
        client: Any = None,
        pin_server: bool = False,
        on_call: Callable[[str, float, bool], None] = lambda _verb, _seconds, _answered: None,
    ) -> None:
        """``on_call`` gets the verb of each script call, the seconds it took, and whether Redis answered."""
        self.url = url
        self.keys = keys
        self._on_call = on_call
        self.client: Any = client or new_client(
            redis.asyncio,
            url,
            retry=redis.asyncio.retry.Retry(NoBackoff(), retries, supported_errors=_RETRIED),
            redis_connect_func=self._on_connect,
            **client_options(timeout),
        )
        self.pin = ServerPin()
        self._pins_server = pin_server

    async def _on_connect(self, connection: Any) -> None:
        await connection.on_connect()
        if self._pins_server:
            await connection.send_command("INFO", "server")
            self.pin.check(await connection.read_response())

    async def check(self) -> None:
        """Raise ConfigurationError or LayoutMismatch for an unsuitable server or namespace."""
        with _cancellation_kept(), _translated(self.url):
            replies = await _ask_server(self.client, self.keys)
        _check_server(replies, self.url)

    async def run(self, call: ScriptCall[T]) -> T:
        """Run a verb and decode the reply. Raises StoreUnavailable, and what the verb raises."""
        began_at, answered = time.monotonic(), False
        try:
            reply = await self._reply(call)
            answered = True
        finally:
            self._on_call(call.verb, time.monotonic() - began_at, answered)
        return call.decode(reply)

    async def _reply(self, call: ScriptCall[Any]) -> Any:
        with _cancellation_kept(), _translated(self.url):
            try:
                try:
                    reply = await self.client.execute_command(*_pack(call))
                except NoScriptError:
                    reply = await self.client.execute_command(*_pack_whole(call))
            except ResponseError as error:
                if not isinstance(error, OutOfMemoryError):
                    await self.client.connection_pool.disconnect(inuse_connections=False)
                raise
        return reply

    async def read(self, query: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Await ``query``, called with the client, and translate the client's errors. Raises StoreUnavailable."""
        with _cancellation_kept(), _translated(self.url):
            return await query(self.client)

    async def close(self) -> None:
        """Close the pool."""
        await self.client.aclose()
