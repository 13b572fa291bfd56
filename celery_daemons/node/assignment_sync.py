"""Keeping what this node runs in line with the book: by spawn tasks if they come, by reading if not."""

import asyncio
from typing import Final

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node.lease import NodeLease
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.store import assignments
from celery_daemons.store.connection import AsyncStore
from celery_daemons.wire.messages import AssignmentsChanged

#: Seconds that a spawn task may lag behind the heartbeat that told of its generation.
_MESSAGE_LAG: Final = 0.1
#: The same while there is more to claim and to report: who sends the tasks is as busy, and nothing waits for them.
_LAG_AT_WORK: Final = 1.0
#: No generation is known: whatever the heartbeat tells of is news.
_UNKNOWN: Final = -1


class AssignmentSync:
    """Knows up to which generation of assignments the supervisor has been told everything."""

    def __init__(
        self, store: AsyncStore, node: NodeName, heartbeat: NodeLease, supervisor: Supervisor, ledger: Outbox
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._node = node
        self._heartbeat = heartbeat
        self._supervisor = supervisor
        self._generation = _UNKNOWN
        self._doubts = 0
        self._busy = False

    def distrust(self) -> None:
        """Read the book at the next heartbeat, whatever its generation is; what is being read now may be older."""
        self._generation = _UNKNOWN
        self._doubts += 1

    def is_at(self, generation: int) -> bool:
        """Whether nothing is left to be read."""
        return generation == self._generation

    def hear(self, message: AssignmentsChanged) -> None:
        """Do what a spawn task says; one for another incarnation is not for this one."""
        if message.incarnation != self._heartbeat.incarnation:
            return
        self._supervisor.recalled(message.recalled)
        self._supervisor.assigned(message.assigned)
        if message.generation == self._generation + 1:
            self._generation = message.generation

    async def catch_up(self, generation: int) -> None:
        """Read what is assigned here, unless the spawn tasks that say so come in after all; once at a time."""
        if self._busy:
            return  # the next heartbeat tells of the generation again
        self._busy = True
        try:
            await self._catch_up(generation)
        finally:
            self._busy = False

    async def _catch_up(self, generation: int) -> None:
        era = self._ledger.era
        if self._generation != _UNKNOWN and await self._told(generation):
            return
        known, before, doubts = dict(self._supervisor.lives), self._generation, self._doubts
        try:
            read, held = await self._read(generation)
        except StoreUnavailable:
            return  # as above
        # With a new era Redis was told anew what runs here: what was read may be of before that, or of half of it.
        if held is None or self._ledger.era != era or self._supervisor.draining:
            return
        self._supervisor.synchronise(known, held)
        if self._doubts == doubts:
            # One lower than before, if no spawn task came meanwhile, is a promoted replica's: it goes on from there.
            self._generation = read if self._generation == before else max(self._generation, read)

    async def _read(self, generation: int) -> tuple[int, dict[DaemonName, BookRow | None] | None]:
        """The generation that was read, and what is held; ``None`` if Redis has lost what the heartbeat told of."""
        page = await self._store.run(assignments.page(self._store.keys, self._node))
        read, held = page.generation, page.rows
        while page.cursor != "0" and page.generation >= read >= generation:
            page = await self._store.run(assignments.page(self._store.keys, self._node, page.cursor))
            held.update(page.rows)
        # Its data lost, Redis knows of nothing here: the node has to tell, not to stop what it runs.
        return read, held if page.generation >= read >= generation else None

    async def _told(self, generation: int) -> bool:
        """Whether spawn tasks bring this node to a generation, or past it; waits as long as they come in."""
        before = seen = self._generation
        quiet = 0.0
        while quiet < (_MESSAGE_LAG if self._ledger.idle else _LAG_AT_WORK):
            await asyncio.sleep(_MESSAGE_LAG)
            if before < generation <= self._generation:
                return True
            quiet = 0.0 if self._generation != seen else quiet + _MESSAGE_LAG
            seen = self._generation
        return False
