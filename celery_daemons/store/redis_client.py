"""Make clients of Redis, for a server or for the primary that sentinels name."""

from typing import Any

from redis.exceptions import RedisError

from celery_daemons.errors import ConfigurationError
from celery_daemons.store import server


def client_options(timeout: float) -> dict[str, Any]:
    """Return the options of every client; a command takes at most ``timeout`` seconds."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # RESP2 whatever the default of the client: the types of replies must not depend on its version.
        "protocol": 2,
    }


def new_client(library: Any, url: str, **options: Any) -> Any:
    """Return a client of ``library``, redis or redis.asyncio, for a server or for the primary that sentinels name.

    Connects at the first command. Raises ConfigurationError for an option that the client rejects.
    """
    sentinels = server.sentinels(url)
    if sentinels is None:
        return _plain_client(library, url, options)
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    sentinel_kwargs = {**timeouts, **sentinels.sentinel_options}
    return library.sentinel.Sentinel(sentinels.hosts, sentinel_kwargs=sentinel_kwargs).master_for(
        sentinels.service,
        db=sentinels.database,
        username=sentinels.username,
        password=sentinels.password,
        socket_keepalive=True,
        **sentinels.primary_options,
        **options,
    )


def _plain_client(library: Any, url: str, options: dict[str, Any]) -> Any:
    address = server.normalise(url)
    if not address.startswith("unix:"):
        options = {"socket_keepalive": True, **options}  # not for a Unix socket
    try:
        client = library.Redis.from_url(address, **options)
        pool = client.connection_pool
        pool.connection_kwargs["decode_responses"] = False  # replies stay bytes, whatever the URL says
        # The pool connects lazily. Build a connection now, so that a wrong option in the URL is found here.
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(
            f"daemons_redis_url: the Redis client rejects an option of {server.shown(url)} ({error}); correct the part "
            "after the ? of the URL"
        ) from error
    return client
