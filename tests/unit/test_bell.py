"""The agent answers only questions for its own incarnation, while the client waits for the answer."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import fakeredis
import msgspec
import pytest

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.node.bell import Bell
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.keys import Keys
from celery_daemons.wire.inspection import Answer, Query, Refusal, StackQuery

NODE = NodeName("celery@n1")
QUERY = msgspec.json.encode(StackQuery(name=DaemonName("x")))


class BellHarness:
    """A bell with a Redis in memory."""

    def __init__(self, namespace: str, *, fails: bool = False) -> None:
        self.keys = Keys(namespace)
        self.client = fakeredis.FakeAsyncRedis()
        self.store = AsyncStore("redis://double", self.keys, timeout=5.0, client=self.client)
        self.asked: list[Query] = []
        self._fails = fails
        lease: Any = SimpleNamespace(incarnation="i1", is_running=lambda: True)
        self.bell = Bell(listener=self.store, store=self.store, node=NODE, lease=lease, answer=self._answer)

    async def _answer(self, query: Query) -> Answer:
        self.asked.append(query)
        if self._fails:
            raise ValueError("a defect")
        return Refusal(why="not here")

    async def answers(self, *entries: bytes) -> list[Any]:
        """Store entries and a last question, and return all answers once the last question has been answered."""
        far = b"99999999999999"
        await self.client.rpush(self.keys.bell(NODE), *entries, b" ".join((far, b"i1", b"last", QUERY)))
        running = asyncio.create_task(self.bell.run())
        await self.client.blpop([self.keys.answer("last")], timeout=20)
        running.cancel()
        found = []
        for question in ("q1", "q2"):
            raw = await self.client.lpop(self.keys.answer(question))
            found.append(None if raw is None else msgspec.json.decode(raw, type=Answer))
        await self.store.close()
        return found


def test_a_question_for_another_incarnation_or_after_its_time_is_not_answered(namespace: str) -> None:
    # Given
    harness = BellHarness(namespace)
    other = b" ".join((b"99999999999999", b"i0", b"q1", QUERY))
    late = b" ".join((b"12", b"i1", b"q2", QUERY))

    # When
    found = asyncio.run(harness.answers(other, late, b"not a question"))

    # Then
    assert found == [None, None]
    assert len(harness.asked) == 1


def test_a_question_of_another_version_is_refused_with_the_reason(namespace: str) -> None:
    harness = BellHarness(namespace)

    (refusal, _) = asyncio.run(harness.answers(b'99999999999999 i1 q1 {"type": "future"}'))

    assert isinstance(refusal, Refusal)
    assert "another version of the package" in refusal.why


def test_a_defect_in_an_answer_is_logged_and_ends_nothing(namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    harness = BellHarness(namespace, fails=True)

    with caplog.at_level(logging.ERROR):
        (refusal, _) = asyncio.run(harness.answers(b" ".join((b"99999999999999", b"i1", b"q1", QUERY))))

    assert isinstance(refusal, Refusal)
    assert "the log of the node says why" in refusal.why
    assert "answering a question failed" in caplog.text
