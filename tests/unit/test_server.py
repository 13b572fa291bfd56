"""URLs of Redis servers, and the checks of a server's version and configuration."""

from collections.abc import Callable
from functools import partial

import pytest
import redis

from celery_daemons.errors import ConfigurationError
from celery_daemons.store import server
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.keys import Keys

GOOD = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction"}


@pytest.mark.parametrize(
    ("broker", "client"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://", "redis://"),
        ("redis://:secret@db:6380/2", "redis://:secret@db:6380/2"),
        ("redis://user:p%40ss@db/2", "redis://user:p%40ss@db/2"),
        ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ("valkey://db:6379/0", "redis://db:6379/0"),
        ("valkeys://db:6379/0", "rediss://db:6379/0"),
        ("rediss://db/0?ssl_cert_reqs=CERT_NONE", "rediss://db/0?ssl_cert_reqs=none"),
        ("rediss://db/0?ssl_cert_reqs=required", "rediss://db/0?ssl_cert_reqs=required"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"),
        ("redis+socket://:secret@/run/redis.sock", "unix://:secret@/run/redis.sock"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock?db=3"),
    ],
)
def test_a_broker_url_is_translated_for_the_client(broker: str, client: str) -> None:
    assert server.normalise(broker) == client
    redis.ConnectionPool.from_url(server.normalise(broker))


def test_a_socket_with_a_database_reaches_that_database() -> None:
    url = server.normalise("redis+socket://:secret@/run/redis.sock?virtual_host=3")

    options = redis.ConnectionPool.from_url(url).connection_kwargs
    assert options["path"] == "/run/redis.sock"
    assert options["db"] == 3
    assert options["password"] == "secret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@db:6379/0", "redis://db:6379/0"),
        ("redis://:secret@db/0?password=secret", "redis://db/0"),
        ("unix://:secret@/run/redis.sock", "unix:///run/redis.sock"),
        ("redis://db", "redis://db"),
        ("sentinel://:secret@a:1;sentinel://:secret@b:2/3?master_name=m", "sentinel://a:1;sentinel://b:2/3"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str) -> None:
    assert server.shown(url) == shown


@pytest.mark.parametrize("version", ["6.2.0", "6.2.14", "7.0.15", "7.2.4", "8.0.0", "10.1"])
def test_a_supported_version_is_accepted(version: str) -> None:
    server.check({**GOOD, "redis_version": version}, "redis://db")


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "2.8", "6", "", "unknown"])
def test_an_unsupported_version_is_refused_with_a_remedy(version: str) -> None:
    with pytest.raises(ConfigurationError, match=r"needs 6\.2 or newer.*upgrade the server"):
        server.check({**GOOD, "redis_version": version}, "redis://db")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_may_evict_keys_is_refused_with_a_remedy(policy: str) -> None:
    with pytest.raises(ConfigurationError, match=f"may evict keys .maxmemory-policy {policy}.*set maxmemory-policy"):
        server.check({**GOOD, "maxmemory_policy": policy}, "redis://db")


def test_no_refusal_shows_a_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        server.check({"redis_version": "1.0"}, "redis://user:secret@db")

    assert "secret" not in str(caught.value)


def test_a_server_that_hides_its_policy_is_accepted() -> None:
    server.check({"redis_version": "7.0.15"}, "redis://db")


def test_sentinel_urls_are_parsed_in_celerys_format() -> None:
    parsed = server.sentinels("sentinel://u:p%40ss@a:1;sentinel://b;sentinel://c:3/2?master_name=main")

    assert parsed == server.Sentinels(
        hosts=(("a", 1), ("b", 26379), ("c", 3)), service="main", database=2, username="u", password="p@ss"
    )
    assert server.sentinels("redis://a") is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://db:6379/0",
        "redis://",
        "redis+socket:///run/redis.sock?virtual_host=1",
        "unix:///run/redis.sock",
        "rediss://user:p%23ss@db/15",
        "sentinel://a:1;sentinel://b:2/0?master_name=main",
    ],
)
def test_a_valid_url_is_accepted(url: str) -> None:
    server.check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://:secret@db", "scheme 'http' is not one of redis, "),
        ("redis://:sec#ret@db:6379/0", "port is not a number"),
        ("redis://:sec/ret@db:6379/0", "port is not a number"),
        ("redis://db:port/0", "port is not a number"),
        ("redis://db:6379/zero", "database 'zero'"),
        ("sentinel://a:1;sentinel://b:2", "does not name a primary"),
        ("sentinel://a:1;sentinel://b:x/0?master_name=main", "port is not a number"),
    ],
)
def test_an_invalid_url_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        server.check_url(url)

    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "why"), [("foo=sec", "'foo'"), ("socket_timeout=sec", "socket_timeout"), ("ssl_cert_reqs=x", "SSL")]
)
@pytest.mark.parametrize("kind", [Store, partial(AsyncStore, timeout=1.0)])
def test_an_unknown_option_of_the_url_is_refused_before_connecting(
    kind: Callable[..., object], query: str, why: str
) -> None:
    scheme = "redis" if "ssl" not in query else "rediss"

    with pytest.raises(ConfigurationError, match=f"an option of {scheme}://db/0 .*{why}") as caught:
        kind(f"{scheme}://:hidden@db/0?{query}", Keys("test"))

    assert "hidden" not in str(caught.value)
