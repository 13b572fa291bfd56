"""Holding the node's lease: joining, beating, telling again what Redis forgot, and knowing when it is over."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import NodeStatus
from celery_daemons.errors import ConfigurationError, LayoutMismatch, StoreUnavailable
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal, lease
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import BATCH, text

logger = logging.getLogger(__name__)

#: Seconds between attempts to join where something has to be put right first.
_JOIN_RETRY: Final = 5.0
#: The most errors of one outage that are remembered.
_COMPLAINTS: Final = 20


class NodeLease:
    """The node's lease as this process may count on it: ``until`` is its end on the lease clock, less the margin."""

    def __init__(
        self,
        store: AsyncStore,
        settings: Settings,
        node: NodeName,
        row: NodeRow,
        running: Callable[[], list[Running]],
    ) -> None:
        self._store = store
        self._settings = settings
        self._node = node
        self._row = row
        self._running = running
        self._previous: Incarnation | None = row.incarnation or None
        self._told_taken = False
        #: What went wrong since Redis last answered: each is worth one line.
        self._complaints: set[str] = set()
        #: Another server answers, or one that lost its data, and has not been told yet all that runs here.
        self._untold = False
        self._doubt_until = 0.0
        self.incarnation: Incarnation | None = None
        self.until = 0.0

    def runs(self) -> bool:
        """Whether the lease runs, as far as this process can know."""
        return self.incarnation is not None and lease_clock() < self.until

    def settled_with(self) -> str | None:
        """The server whose word on what to start may be taken; ``None`` while another node may know better.

        Redis compares it with the one that a monitor has settled with. Should an earlier server be back, for which that
        was done, the time since it was met here counts.
        """
        return None if lease_clock() < self._doubt_until else self._store.pin.server

    @property
    def pause(self) -> float:
        """Seconds between heartbeats."""
        return self._settings.heartbeat_interval

    async def join(self) -> int:
        """Join as a new incarnation, however long it takes; answers the node's generation."""
        row = replace(self._row, incarnation=Incarnation(secrets.token_hex(8)))
        while True:
            sent = lease_clock()
            try:
                await self._store.check()
                answer = await self._store.run(
                    lease.join(
                        self._store.keys,
                        self._node,
                        row,
                        ttl_ms=self._settings.lease_ttl_ms,
                        previous=self._previous,
                    )
                )
            except (ConfigurationError, LayoutMismatch) as error:
                logger.error("node %s: cannot join: %s", self._node, error)
                await asyncio.sleep(_JOIN_RETRY)
                continue
            except StoreUnavailable as error:
                self._unanswered(error)
                await asyncio.sleep(self.pause)
                continue
            if isinstance(answer, lease.Taken):
                await self._tell_taken(answer)
                await asyncio.sleep(min(answer.left_ms / 1000 + 0.01, self.pause))
                continue
            # A node that has just joined has nothing to tell.
            self._untold = self._told_taken = False
            self._complaints.clear()
            self._row = row
            self.incarnation = self._previous = row.incarnation
            self.until = sent + self._settings.lease_ttl - self._settings.lease_margin
            logger.info("node %s: joined as incarnation %s", self._node, row.incarnation)
            return answer.generation

    async def beat(self) -> lease.Beat | None:
        """Renew the lease; ``None`` while Redis does not answer. A ``fenced`` answer means that the lease is lost."""
        assert self.incarnation is not None
        sent = lease_clock()
        try:
            answer = await self._store.run(
                lease.beat(self._store.keys, self._node, self.incarnation, ttl_ms=self._settings.lease_ttl_ms)
            )
            # Nobody may sweep a lease that still runs here: if it is not known, Redis has forgotten it.
            forgotten = answer.verdict != "ok" and sent < self.until
            if forgotten or (self._untold and answer.verdict == "ok"):
                # Were it cut short, Redis would know this node again, and the next answer would tell of no loss.
                self._untold = True
                answer = await self._reassert() or answer
                self._untold = False
        except StoreUnavailable as error:
            self._unanswered(error)
            return None
        if answer.verdict == "ok":
            self.until = sent + self._settings.lease_ttl - self._settings.lease_margin
            if self._complaints:
                logger.info("node %s: Redis answers again", self._node)
            self._complaints.clear()
        return answer

    async def _reassert(self) -> lease.Beat | None:
        logger.warning("node %s: Redis may have lost what it knew of this node, telling it again", self._node)
        running = self._running()
        generation = 0
        for start in range(0, max(1, len(running)), BATCH):
            batch = running[start : start + BATCH]
            answer = await self._store.run(
                book.reassert(self._store.keys, self._node, self._row, batch, ttl_ms=self._settings.lease_ttl_ms)
            )
            if answer is None:
                return None
            generation = answer[0]
        # The generation is new: the agent synchronises next, and stops what a newer token holds.
        return lease.Beat("ok", generation=generation, led=True)

    def ended(self) -> None:
        """The lease is over, and every host of it is dead: the next incarnation may take its daemons over."""
        self.incarnation = None
        self.until = 0.0

    async def drain(self) -> None:
        """Let the monitor assign nothing more here."""
        if self.incarnation is not None:
            await self._store.run(lease.drain(self._store.keys, self._node, incarnation=self.incarnation))

    async def others(self) -> bool:
        """Whether another node takes daemons."""
        raw = await self._store.read(lambda client: client.hgetall(self._store.keys.nodes))
        rows = {text(name): decode_or_none(NodeRow, row) for name, row in raw.items()}
        return any(row is not None and row.status is NodeStatus.UP for name, row in rows.items() if name != self._node)

    async def leave(self) -> None:
        """Leave the cluster."""
        if self.incarnation is not None:
            left = await self._store.run(lease.leave(self._store.keys, self._node, self.incarnation))
            if left > 0:
                logger.warning("node %s: left %d daemons behind, they move when the lease ends", self._node, left)
            else:
                logger.info("node %s: left", self._node)

    async def _tell_taken(self, answer: lease.Taken) -> None:
        if self._told_taken:
            return
        self._told_taken = True
        why = (
            f"another worker of this name is alive (incarnation {answer.incarnation}); this one stays a plain worker "
            "and joins when the name is free: give each worker its own --hostname"
        )
        logger.warning("node %s: %s", self._node, why)
        with contextlib.suppress(StoreUnavailable):
            await self._store.run(journal.note(self._store.keys, "name-taken", node=self._node, cause=why))

    def _unanswered(self, error: StoreUnavailable) -> None:
        told = str(error)
        logger.log(logging.DEBUG if told in self._complaints else logging.WARNING, "node %s: %s", self._node, error)
        if len(self._complaints) < _COMPLAINTS:
            self._complaints.add(told)
        self.meet()

    def meet(self) -> None:
        """Go on with another server if there is one: it may lack the last writes, and say nothing of it."""
        if self._store.pin.accept_new_server():
            self._untold = True
            self._doubt_until = lease_clock() + self._settings.lease_ttl
