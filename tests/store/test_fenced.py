"""Fenced writes through the daemon context, and the documented statement for SQL."""

import sqlite3
from typing import Any

import pytest

from celery_daemons.errors import ClaimLost
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.store.connection import Store

OLD, NEW = 1_795_440_000_000_001, 1_795_440_000_000_002


def context(token: int) -> BlockingDaemonContext:
    return BlockingDaemonContext("tail.web-1", "tail", "w1@test", token, None)  # type: ignore[arg-type]


def test_every_write_is_refused_to_an_older_token_after_a_newer_write(store: Store) -> None:
    """Attacks: a daemon that was paused for a long time continues in the middle of a write."""
    # Given
    client = store.client
    key = f"{{{store.keys.namespace}}}:v1:user"
    older, newer = context(OLD).fenced(client), context(NEW).fenced(client)
    writes: list[tuple[str, Any]] = [
        ("string", lambda f, k: f.set(k, "v")),
        ("counter", lambda f, k: f.incrby(k, 2)),
        ("hash", lambda f, k: f.hset(k, {"a": 1, "b": 2})),
        ("hash", lambda f, k: f.hdel(k, "a")),
        ("list", lambda f, k: f.rpush(k, "x", "y")),
        ("set", lambda f, k: f.sadd(k, "x", "y")),
        ("zset", lambda f, k: f.zadd(k, {"x": 1.5})),
        ("stream", lambda f, k: f.xadd(k, {"line": "1"})),
        ("string", lambda f, k: f.delete(k)),
    ]
    for name, write in writes:
        # When the older writes before the newer, then both are done
        write(older, f"{key}:{name}")
    for name, write in writes:
        write(newer, f"{key}:{name}")
    before = {each: client.dump(each) for each in client.keys("*")}

    # When the older writes again
    for name, write in writes:
        with pytest.raises(
            ClaimLost, match=rf"daemon tail.web-1: token {OLD} may no longer write to .*:{name}, token {NEW}"
        ):
            write(older, f"{key}:{name}")

    # Then nothing has changed
    assert {each: client.dump(each) for each in client.keys("*")} == before
    client.delete(*before)


def test_the_fence_is_in_the_slot_of_the_key(store: Store) -> None:
    client = store.client
    for key in ("plain", "with{tag}inside"):
        context(NEW).fenced(client).set(key, "v")
    fences = {key.decode() for key in client.keys("*fence")}
    assert fences == {"{plain}:fence", "with{tag}inside:fence"}
    client.delete("plain", "with{tag}inside", *fences)


@pytest.mark.asyncio
async def test_an_async_client_is_awaited(valkey: Any, namespace: str) -> None:
    from redis.asyncio import Redis

    client = Redis.from_url(valkey.url)
    older = DaemonContext("one", "tail", "w1@test", OLD, None).fenced(client)  # type: ignore[arg-type]
    newer = DaemonContext("one", "tail", "w1@test", NEW, None).fenced(client)  # type: ignore[arg-type]
    assert await older.incrby(namespace, 3) == 3
    assert await newer.incrby(namespace, 4) == 7
    with pytest.raises(ClaimLost):
        await older.incrby(namespace, 1)
    assert await client.get(namespace) == b"7"
    await client.delete(namespace, f"{{{namespace}}}:fence")
    await client.aclose()


def test_the_documented_statement_for_sql_refuses_an_older_token() -> None:
    """The recipe in docs/explanation/guarantees.md, run on SQLite."""
    connection = sqlite3.connect(":memory:")
    connection.execute("create table offsets (name text primary key, at integer, token integer)")
    statement = """
        insert into offsets (name, at, token) values (:name, :at, :token)
        on conflict (name) do update set at = excluded.at, token = excluded.token
        where offsets.token <= excluded.token
    """

    def commit(at: int, token: int) -> int:
        return connection.execute(statement, {"name": "tail.web-1", "at": at, "token": token}).rowcount

    assert commit(10, OLD) == 1
    assert commit(20, OLD) == 1
    assert commit(25, NEW) == 1
    assert commit(30, OLD) == 0
    assert connection.execute("select at, token from offsets").fetchall() == [(25, NEW)]
