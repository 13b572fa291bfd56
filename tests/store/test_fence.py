"""Fenced writes: the last protection, when leases and claims cannot help."""

from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ResponseError

from celery_daemons.errors import ClaimLost
from celery_daemons.store.fence import FencedRedis
from tests.store.driver import StoreDriver

#: Tokens that are equal in their first fourteen digits.
OLD, NEW = 1795443778122220, 1795443778122221


@pytest.fixture
def key(cluster: StoreDriver) -> Iterator[str]:
    """Return a key of the user; delete the key and its fence afterwards."""
    key = f"{cluster.keys.namespace}-log"
    yield key
    cluster.client.delete(key, f"{{{key}}}:fence")


def fenced(cluster: StoreDriver, token: int) -> FencedRedis:
    return FencedRedis(cluster.client, name="x", token=token)


WRITES: dict[str, tuple[Callable[[FencedRedis, str], Any], Any]] = {
    "set": (lambda redis, key: redis.set(key, "v"), b"OK"),
    "incrby": (lambda redis, key: redis.incrby(key, 3), 3),
    "hset": (lambda redis, key: redis.hset(key, {"a": 1, "b": 2}), 2),
    "hdel": (lambda redis, key: redis.hdel(key, "a"), 0),
    "rpush": (lambda redis, key: redis.rpush(key, "a", "b"), 2),
    "sadd": (lambda redis, key: redis.sadd(key, "a", "b"), 2),
    "zadd": (lambda redis, key: redis.zadd(key, {"a": 1.5}), 1),
    "delete": (lambda redis, key: redis.delete(key), 0),
}


@pytest.mark.parametrize("command", WRITES)
def test_the_newest_start_can_write_repeatedly(cluster: StoreDriver, key: str, command: str) -> None:
    write, answer = WRITES[command]

    assert write(fenced(cluster, OLD), key) == answer
    write(fenced(cluster, OLD), key)
    write(fenced(cluster, NEW), key)


@pytest.mark.parametrize("command", [*WRITES, "xadd"])
def test_an_older_start_is_refused_once_a_newer_one_has_written(cluster: StoreDriver, key: str, command: str) -> None:
    """Kleppmann 2016: a process that was paused past its lease continues in the middle of a write."""
    write = WRITES[command][0] if command in WRITES else lambda redis, key: redis.xadd(key, {"a": "b"})
    write(fenced(cluster, NEW), key)
    before = cluster.client.dump(key)

    with pytest.raises(ClaimLost, match=f"daemon x: token {OLD} may no longer write to .*, token {NEW} has"):
        write(fenced(cluster, OLD), key)

    assert cluster.client.dump(key) == before


def test_the_server_generates_the_id_of_a_stream_entry(cluster: StoreDriver, key: str) -> None:
    entry_id = fenced(cluster, OLD).xadd(key, {"line": "one"})

    assert cluster.client.xrange(key) == [(entry_id, {b"line": b"one"})]


def test_each_key_has_a_fence_of_its_own(cluster: StoreDriver, key: str) -> None:
    fenced(cluster, NEW).set(key, "new")

    fenced(cluster, OLD).set(f"{key}-2", "old")

    assert cluster.client.get(f"{key}-2") == b"old"
    cluster.client.delete(f"{key}-2", f"{{{key}-2}}:fence")


def test_a_key_with_a_hash_tag_and_its_fence_share_it(cluster: StoreDriver, key: str) -> None:
    tagged = f"{{{key}}}:part"

    fenced(cluster, OLD).set(tagged, "v")

    assert cluster.client.exists(f"{tagged}:fence") == 1
    cluster.client.delete(tagged, f"{tagged}:fence")


@pytest.mark.parametrize(
    ("key", "fence"),
    [
        ("log", "{log}:fence"),
        ("{a}log", "{a}log:fence"),
        ("log{a}b", "log{a}b:fence"),
        ("log{", "{log{}:fence"),
    ],
)
def test_the_fence_is_named_after_its_key(key: str, fence: str) -> None:
    client = fakeredis.FakeRedis()

    FencedRedis(client, name="x", token=OLD).set(key, "v")

    assert client.exists(fence) == 1


def test_the_fence_stays_after_its_key_is_deleted(cluster: StoreDriver, key: str) -> None:
    fenced(cluster, NEW).set(key, "v")
    fenced(cluster, NEW).delete(key)

    with pytest.raises(ClaimLost):
        fenced(cluster, OLD).set(key, "v")


@pytest.mark.asyncio
async def test_with_an_async_client_every_call_is_awaited() -> None:
    client = fakeredis.FakeAsyncRedis()
    newer, older = (FencedRedis(client, name="x", token=token) for token in (NEW, OLD))

    assert await older.rpush("log", "one") == 1
    assert await newer.rpush("log", "two") == 2
    with pytest.raises(ClaimLost):
        await older.rpush("log", "three")

    assert await client.lrange("log", 0, -1) == [b"one", b"two"]
    await client.aclose()


MANY = 10_001
LONG_WRITES: dict[str, tuple[Callable[[FencedRedis, str], Any], int, Callable[[Any, str], int]]] = {
    "hset": (
        lambda redis, key: redis.hset(key, {f"f{n}": n for n in range(MANY)}),
        MANY,
        lambda client, key: client.hlen(key),
    ),
    "rpush": (lambda redis, key: redis.rpush(key, *range(MANY)), MANY, lambda client, key: client.llen(key)),
    "sadd": (lambda redis, key: redis.sadd(key, *range(MANY)), MANY, lambda client, key: client.scard(key)),
    "zadd": (
        lambda redis, key: redis.zadd(key, {f"m{n}": n for n in range(MANY)}),
        MANY,
        lambda client, key: client.zcard(key),
    ),
}


@pytest.mark.parametrize("command", LONG_WRITES)
def test_a_write_that_is_too_long_for_one_command_of_a_script_is_complete(
    cluster: StoreDriver, key: str, command: str
) -> None:
    """Lua cannot pass that many arguments: the write failed, and left the fence moved."""
    write, answer, length = LONG_WRITES[command]

    assert write(fenced(cluster, NEW), key) == answer

    assert length(cluster.client, key) == MANY


def test_many_fields_are_deleted_at_once(cluster: StoreDriver, key: str) -> None:
    redis = fenced(cluster, NEW)
    redis.hset(key, {f"f{n}": n for n in range(MANY)})

    assert redis.hdel(key, *(f"f{n}" for n in range(1, MANY))) == MANY - 1

    assert cluster.client.hkeys(key) == [b"f0"]


def test_a_stream_entry_that_cannot_be_written_at_once_is_refused_by_name(cluster: StoreDriver, key: str) -> None:
    redis = fenced(cluster, NEW)
    assert redis.xadd(key, {f"f{n}": n for n in range(1999)})

    with pytest.raises(ValueError, match=r"daemon x: an entry of 2,000 fields for the stream .* 1,999 fields"):
        redis.xadd(key, {f"f{n}": n for n in range(2000)})
    assert cluster.client.xlen(key) == 1


def test_a_write_that_the_server_refuses_does_not_move_the_fence(cluster: StoreDriver, key: str) -> None:
    """Attacks invariant 9: a write that never happened refused the writes of the run before."""
    fenced(cluster, OLD).set(key, "v")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        fenced(cluster, NEW).sadd(key, "a")

    assert fenced(cluster, OLD).set(key, "w")
