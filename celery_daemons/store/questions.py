"""Store questions for agents, and their answers: a list of questions per node, and a list for each answer.

Both lists exist only while a process waits. A blocking read of the agent empties the list of its node, so that a
question is taken at most once and nothing depends on the order of ids or clocks.
"""

from typing import Any, Final, NamedTuple

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall, text

#: Bytes of a question. Larger ones are refused where they are asked.
LARGEST_QUESTION: Final = 64 * 1024
#: Questions that wait for one agent. An agent takes them at once, so a longer list means that the agent hangs.
_MOST_QUESTIONS: Final = 1000
#: Milliseconds after which an answer that was not fetched expires.
_ANSWER_TTL_MS: Final = 10_000


class Question(NamedTuple):
    """A question as the agent takes it; ``until_ms`` is when the client stops waiting, by Redis's clock."""

    until_ms: int
    incarnation: Incarnation
    id: str
    body: bytes


def ask(keys: Keys, node: NodeName, question_id: str, body: bytes, *, ttl_ms: int) -> ScriptCall[int]:
    """Store a question for a node; 0 if its lease does not run, -1 if too many questions wait."""
    return ScriptCall(
        "ask",
        (keys.nodes, keys.leases, keys.bell(node)),
        (node, question_id, body, ttl_ms, _MOST_QUESTIONS),
        int,
    )


def answer(keys: Keys, question_id: str, body: bytes) -> ScriptCall[int]:
    """Store the answer to a question."""
    return ScriptCall("answer", (keys.answer(question_id),), (body, _ANSWER_TTL_MS), int)


def wait_answer(store: Store, question_id: str, *, seconds: float) -> bytes | None:
    """Wait up to ``seconds`` for an answer; shorter than the time-out of a command."""
    reply: Any = store.read(lambda client: client.blpop([store.keys.answer(question_id)], timeout=seconds))
    return None if reply is None else bytes(reply[1])


async def take(store: AsyncStore, node: NodeName, *, seconds: float) -> Question | None:
    """Wait up to ``seconds`` for the next question to a node; ``None`` for one that cannot be read, too."""
    reply: Any = await store.read(lambda client: client.blpop([store.keys.bell(node)], timeout=seconds))
    if reply is None:
        return None
    head, *rest = bytes(reply[1]).split(b" ", 3)
    if len(rest) != 3 or not head.isdigit():
        return None
    incarnation, question_id, body = rest
    return Question(int(head), Incarnation(text(incarnation)), text(question_id), body)


async def now_ms(store: AsyncStore) -> int:
    """Return the time of Redis's clock in milliseconds."""
    seconds, micros = await store.read(lambda client: client.time())
    return int(seconds) * 1000 + int(micros) // 1000
