"""Questions to agents are stored only for a node whose lease runs, taken once, and expire when no process waits."""

import asyncio
from typing import Any

import fakeredis
import pytest

from celery_daemons.store import questions
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.keys import Keys
from tests.store.driver import I1, N1, N2, StoreDriver


def ask(cluster: StoreDriver, question_id: str = "q1", *, ttl_ms: int = 5000) -> int:
    """Store a question for the first node."""
    answered: int = cluster.run(questions.ask(cluster.keys, N1, question_id, b'{"a": 1}', ttl_ms=ttl_ms))
    return answered


def test_a_question_is_refused_without_a_lease_that_runs(cluster: StoreDriver) -> None:
    # Given
    cluster.join(N1)

    # When, Then
    assert ask(cluster) == 1
    assert cluster.run(questions.ask(cluster.keys, N2, "q2", b"{}", ttl_ms=5000)) == 0
    cluster.client.zadd(cluster.keys.leases, {N1: cluster.now_ms() - 1})
    assert ask(cluster) == 0


def test_a_question_names_the_incarnation_and_its_end_and_does_not_stay(cluster: StoreDriver) -> None:
    # Given
    cluster.join(N1)
    before = cluster.now_ms()

    # When
    ask(cluster, ttl_ms=5000)

    # Then
    (raw,) = cluster.client.lrange(cluster.keys.bell(N1), 0, -1)
    until, incarnation, question_id, body = raw.split(b" ", 3)
    assert before + 5000 <= int(until) <= cluster.now_ms() + 5000
    assert (incarnation.decode(), question_id, body) == (I1, b"q1", b'{"a": 1}')
    assert 0 < cluster.client.pttl(cluster.keys.bell(N1)) <= 6000


def test_an_agent_that_takes_no_questions_gets_no_more_than_fit(cluster: StoreDriver) -> None:
    cluster.join(N1)

    accepted = [ask(cluster) for _ in range(1001)]

    assert accepted == [1] * 1000 + [-1]


def test_an_answer_is_fetched_once_and_expires(cluster: StoreDriver, store: Store) -> None:
    # Given
    cluster.run(questions.answer(cluster.keys, "q1", b"the answer"))
    left = cluster.client.pttl(cluster.keys.answer("q1"))

    # When
    first = questions.wait_answer(store, "q1", seconds=1.0)
    second = questions.wait_answer(store, "q1", seconds=0.05)

    # Then
    assert (first, second) == (b"the answer", None)
    assert 0 < left <= 10_000


@pytest.mark.parametrize("entry", [b"", b"not a question", b"12 only three", b"x i1 q1 {}"])
def test_an_entry_that_is_no_question_is_dropped(entry: bytes, namespace: str) -> None:
    # Given
    async def taken() -> Any:
        client = fakeredis.FakeAsyncRedis()
        keys = Keys(namespace)
        store = AsyncStore("redis://double", keys, timeout=5.0, client=client)
        await client.rpush(keys.bell(N1), entry, b"12 i1 q1 {}")
        found = [await questions.take(store, N1, seconds=1.0) for _ in range(2)]
        await store.close()
        return found

    # When
    first, second = asyncio.run(taken())

    # Then
    assert first is None
    assert second == questions.Question(12, I1, "q1", b"{}")
