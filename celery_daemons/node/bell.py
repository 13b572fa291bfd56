"""Receive questions of clients in the agent: one blocking read, and no other command until a question arrives."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from celery_daemons.domain.names import NodeName
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.store import questions
from celery_daemons.store.connection import AsyncStore
from celery_daemons.wire.inspection import Answer, Query, Refusal

logger = logging.getLogger(__name__)

#: Seconds of one blocking read. Firewalls drop connections that are silent for some minutes.
_READ: Final = 60.0
#: Seconds above that until a read counts as failed.
READ_TIMEOUT: Final = _READ + 5.0
#: Seconds before another read when Redis does not answer.
_RETRY: Final = 1.0
#: Questions that are answered at the same time.
_MOST_AT_ONCE: Final = 100


class Bell:
    """Takes the questions to this node and stores the answers. ``listener`` is a separate connection.

    A question is taken at most once, only by the incarnation that it is for, and only while its client waits.
    """

    def __init__(
        self,
        *,
        listener: AsyncStore,
        store: AsyncStore,
        node: NodeName,
        lease: NodeLease,
        answer: Callable[[Query], Awaitable[Answer]],
    ) -> None:
        self._listener = listener
        self._store = store
        self._node = node
        self._lease = lease
        self._answer = answer
        self._decoder = msgspec.json.Decoder(Query)
        self._answering: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[questions.Question | None] | None = None
        self._server: str | None = None
        self._reported = False

    async def run(self) -> None:
        """Answer questions forever."""
        while True:
            self._server = self._store.pin.server
            self._reading = asyncio.ensure_future(questions.take(self._listener, self._node, seconds=_READ))
            try:
                question = await self._reading
            except StoreUnavailable as error:
                self._report(error)
                await asyncio.sleep(_RETRY)
                continue
            except asyncio.CancelledError:
                if self._reading.cancelled() and not _is_cancelled():
                    continue
                self._reading.cancel()
                raise
            self._reported = False
            if question is not None and question.incarnation == self._lease.incarnation:
                task = asyncio.ensure_future(self._handle(question))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    def _report(self, error: StoreUnavailable) -> None:
        # Once per outage. Without a running lease, the heartbeats have reported the outage.
        if not self._reported and self._lease.is_running():
            self._reported = True
            logger.warning("node %s: cannot take questions, such as those of `daemons logs`: %s", self._node, error)

    def check_server(self) -> None:
        """Read from the present server, if the heartbeats have changed to another server."""
        if self._reading is not None and self._server != self._store.pin.server:
            self._reading.cancel()

    async def _handle(self, question: questions.Question) -> None:
        with contextlib.suppress(StoreUnavailable):
            if await questions.now_ms(self._store) >= question.until_ms:
                return
            body = msgspec.json.encode(await self._answer_to(question.body))
            await self._store.run(questions.answer(self._store.keys, question.id, body))

    async def _answer_to(self, body: bytes) -> Answer:
        if len(self._answering) > _MOST_AT_ONCE:
            return Refusal(why=f"this node already answers {_MOST_AT_ONCE} questions; ask again later")
        try:
            return await self._answer(self._decoder.decode(body))
        except msgspec.MsgspecError as error:
            return Refusal(why=f"this node runs another version of the package and cannot read the question ({error})")
        except Exception:
            logger.exception("node %s: answering a question failed", self._node)
            return Refusal(why="the agent failed to answer; the log of the node says why")


def _is_cancelled() -> bool:
    """Return whether the current task itself is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
