"""The only way to Redis: runs calls, blocking or async, and turns the client's errors into the package's."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from celery_daemons.domain.names import DaemonName
from celery_daemons.errors import ConfigurationError, StoreUnavailable
from celery_daemons.store import server
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.lease import layout_mismatch
from celery_daemons.store.script import ScriptCall
from celery_daemons.store.server_pin import ServerPin

T = TypeVar("T")

#: Seconds for one command of a client that is not on a heartbeat. Longer than any script takes, short for a person.
TIMEOUT: Final = 5.0


def _unavailable(url: str, error: Exception) -> StoreUnavailable:
    """The package's error for one of the client's."""
    if isinstance(error, ReadOnlyError):
        return StoreUnavailable(
            f"Redis at {server.shown(url)} is a read-only replica; point daemons_redis_url at the primary"
        )
    return StoreUnavailable(
        f"Redis at {server.shown(url)} does not answer as it should ({type(error).__name__}: {error}); "
        "check that it runs and that daemons_redis_url is right"
    )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _unavailable(url, error) from error


def _pack(call: ScriptCall[Any]) -> tuple[Any, ...]:
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)


def _pack_whole(call: ScriptCall[Any]) -> tuple[Any, ...]:
    return ("EVAL", call.script.source, len(call.keys), *call.keys, *call.args)


def _options(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # RESP2 whatever the client's default: replies keep one shape.
        "protocol": 2,
    }


def _client(library: Any, url: str, **options: Any) -> Any:
    """A client of ``library`` (redis, redis.asyncio): of one server, or of the one that sentinels call the primary."""
    found = server.sentinels(url)
    if found is None:
        return _plain_client(library, url, options)
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    asked = library.sentinel.Sentinel(found.hosts, sentinel_kwargs=timeouts)
    return asked.master_for(
        found.service,
        db=found.database,
        username=found.username,
        password=found.password,
        socket_keepalive=True,
        **options,
    )


def _plain_client(library: Any, url: str, options: dict[str, Any]) -> Any:
    place = server.normalise(url)
    if not place.startswith("unix:"):
        options = {"socket_keepalive": True, **options}  # a socket file has none
    try:
        client = library.Redis.from_url(place, **options)
        pool = client.connection_pool
        pool.connection_kwargs["decode_responses"] = False  # replies keep one shape, whatever the URL asks for
        # Connections are made when they are needed: a wrong option in the URL would come up at the first call.
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(
            f"daemons_redis_url: the Redis client refuses an option of {server.shown(url)} ({error}); mend what is "
            "behind the ? in the URL"
        ) from error
    return client


class Store:
    """A blocking connection pool to one namespace; safe to share between threads and to use after a fork.

    A ``pin_server`` one talks to another server than before only after ``trust.accept()``.
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
        self.client: Any = client or _client(
            redis,
            url,
            # A broken connection is worth a second try, a server that is silent for the whole timeout is not.
            retry=redis.retry.Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            redis_connect_func=self._on_connect,
            **_options(timeout),
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
        """Raise ConfigurationError or LayoutMismatch if this server or namespace will not do; asks once."""
        if self._checked:
            return
        with _translated(self.url):
            pipe = self.client.pipeline(transaction=False)
            info, memory, layout = pipe.info("server").info("memory").hget(self.keys.cluster, "layout").execute()
        server.check({**info, **memory}, self.url)
        if layout is not None and layout.decode() != LAYOUT:
            raise layout_mismatch(layout.decode())
        self._checked = True

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self.read(lambda client: client.time())
        return int(seconds) * 1000 + int(micros) // 1000

    def run(self, call: ScriptCall[T]) -> T:
        """Run one verb."""
        if not self._checked:
            self.check()
        with _translated(self.url):
            try:
                try:
                    reply = self.client.execute_command(*_pack(call))
                except NoScriptError:
                    reply = self.client.execute_command(*_pack_whole(call))
            except ReadOnlyError:
                # Not to be met again: by the next call the address may lead to the new primary.
                self.client.connection_pool.disconnect()
                raise
        return call.decode(reply)

    def entry(self, name: DaemonName) -> bytes | None:
        """A daemon's entry in the book as it stands in Redis: one HGET, and as little else as can be."""
        if not self._checked:
            self.check()
        try:
            raw: bytes | None = self.client.hget(self._book, name)
        except (RedisError, OSError) as error:
            raise _unavailable(self.url, error) from error
        return raw

    def read(self, query: Callable[[Any], T]) -> T:
        """Run plain commands: ``query`` gets the client; its errors become the package's."""
        if not self._checked:
            self.check()
        with _translated(self.url):
            return query(self.client)

    def close(self) -> None:
        """Close the pool."""
        self.client.close()


class AsyncStore:
    """The same for an asyncio loop; every command has ``timeout`` seconds and no retry: the caller keeps the clock.

    A ``pin_server`` one talks to another server than before only after ``trust.accept()``.
    """

    def __init__(self, url: str, keys: Keys, *, timeout: float, client: Any = None, pin_server: bool = False) -> None:
        self.url = url
        self.keys = keys
        self.client: Any = client or _client(
            redis.asyncio,
            url,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
            redis_connect_func=self._on_connect,
            **_options(timeout),
        )
        self.pin = ServerPin()
        self._pins_server = pin_server

    async def _on_connect(self, connection: Any) -> None:
        await connection.on_connect()
        if self._pins_server:
            await connection.send_command("INFO", "server")
            self.pin.check(await connection.read_response())

    async def check(self) -> None:
        """Raise ConfigurationError if the server will not do."""
        with _translated(self.url):
            info = await self.client.info("server")
            memory = await self.client.info("memory")
        server.check({**info, **memory}, self.url)

    async def run(self, call: ScriptCall[T]) -> T:
        """Run one verb."""
        with _translated(self.url):
            try:
                try:
                    reply = await self.client.execute_command(*_pack(call))
                except NoScriptError:
                    reply = await self.client.execute_command(*_pack_whole(call))
            except ReadOnlyError:
                await self.client.connection_pool.disconnect()
                raise
        return call.decode(reply)

    async def read(self, query: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Run plain commands."""
        with _translated(self.url):
            return await query(self.client)

    async def close(self) -> None:
        """Close the pool."""
        await self.client.aclose()
