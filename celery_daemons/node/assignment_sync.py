"""Keeping this node in line with the book: by spawn tasks if they arrive, by reading its assignments if not."""

import asyncio
from dataclasses import dataclass
from typing import Final

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.store import assignments
from celery_daemons.store.connection import AsyncStore
from celery_daemons.wire.messages import AssignmentsChanged

#: Seconds that a spawn task may arrive after the heartbeat that reported its generation.
_MESSAGE_LAG: Final = 0.1
#: The same while claims or reports are pending: the monitor is busy too, so its messages may lag.
_LAG_WHILE_BUSY: Final = 1.0
#: No generation is known: whatever the next heartbeat reports has to be read.
_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Held:
    """All that the book assigns to this node; ``serial`` is the supervisor's before the book was read."""

    rows: dict[DaemonName, BookRow | None]
    serial: int


class AssignmentSync:
    """Knows up to which generation of assignments the supervisor has received everything."""

    def __init__(
        self, *, store: AsyncStore, node: NodeName, lease: NodeLease, supervisor: Supervisor, outbox: Outbox
    ) -> None:
        self._store = store
        self._node = node
        self._lease = lease
        self._supervisor = supervisor
        self._outbox = outbox
        self._generation = _UNKNOWN
        self._invalidations = 0
        self._busy = False

    def invalidate(self) -> None:
        """Read the assignments at the next heartbeat, whatever the generation; a read under way may be too old."""
        self._generation = _UNKNOWN
        self._invalidations += 1

    def is_current(self, generation: int) -> bool:
        """Whether the supervisor has received everything up to this generation."""
        return generation == self._generation

    def on_message(self, message: AssignmentsChanged) -> bool:
        """Note the generation of a spawn task. Return False if the task is for another incarnation."""
        if message.incarnation != self._lease.incarnation:
            return False
        if message.generation == self._generation + 1:
            self._generation = message.generation
        return True

    async def catch_up(self, generation: int) -> Held | None:
        """Read this node's assignments; ``None`` if spawn tasks bring everything, or if reading is impossible now.

        Reads once at a time. What is not read now is reported again by the next heartbeat.
        """
        if self._busy:
            return None
        self._busy = True
        try:
            return await self._catch_up(generation)
        finally:
            self._busy = False

    async def _catch_up(self, generation: int) -> Held | None:
        outbox_generation = self._outbox.generation
        if self._generation != _UNKNOWN and await self._messages_reach(generation):
            return None
        serial, before, invalidations = self._supervisor.serial, self._generation, self._invalidations
        try:
            read, rows = await self._read(generation)
        except StoreUnavailable:
            return None
        # With a new generation of the outbox, Redis was given again what runs here: what was read may date from before
        # that, or from the middle of it.
        if rows is None or self._outbox.generation != outbox_generation or self._supervisor.draining:
            return None
        if self._invalidations == invalidations:
            # Unless a spawn task came meanwhile, a lower generation than before is that of a promoted replica, and
            # counts from now on.
            self._generation = read if self._generation == before else max(self._generation, read)
        return Held(rows, serial)

    async def _read(self, generation: int) -> tuple[int, dict[DaemonName, BookRow | None] | None]:
        """Return the generation and the assignments; ``None`` for these if Redis lost data after the heartbeat."""
        page = await self._store.run(assignments.page(self._store.keys, self._node))
        read, rows = page.generation, page.rows
        while page.cursor != "0" and page.generation >= read >= generation:
            page = await self._store.run(assignments.page(self._store.keys, self._node, page.cursor))
            rows.update(page.rows)
        # With its data lost, Redis knows of nothing here. The node must register again, not stop what it runs.
        return read, rows if page.generation >= read >= generation else None

    async def _messages_reach(self, generation: int) -> bool:
        """Return whether spawn tasks reach this generation; wait as long as spawn tasks keep arriving."""
        before = seen = self._generation
        quiet = 0.0
        while quiet < (_MESSAGE_LAG if self._outbox.idle else _LAG_WHILE_BUSY):
            await asyncio.sleep(_MESSAGE_LAG)
            if before < generation <= self._generation:
                return True
            quiet = 0.0 if self._generation != seen else quiet + _MESSAGE_LAG
            seen = self._generation
        return False
