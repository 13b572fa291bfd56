"""The node's lease: joining, renewing, registering again after Redis lost its data, and knowing when it is over."""

import asyncio
import contextlib
import logging
import secrets
from dataclasses import replace
from typing import Final

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Running
from celery_daemons.errors import ConfigurationError, LayoutMismatch, StoreUnavailable
from celery_daemons.node.lease_answers import Forgotten, Lost, Renewed
from celery_daemons.node.leftovers import release_all
from celery_daemons.node.name_wait import NameWait
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal
from celery_daemons.store import lease as verbs
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.codec import decode_or_none, printable
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import BATCH, text
from celery_daemons.wire.channel import batches

logger = logging.getLogger(__name__)

#: Seconds between attempts to join where a person has to correct something first.
_JOIN_RETRY: Final = 5.0
#: The most different errors of one outage that are remembered, so that each is logged once.
_REMEMBERED_ERRORS: Final = 20


class NodeLease:
    """The lease on which this process may rely: ``until`` is the end on the lease clock, less the margin."""

    def __init__(
        self,
        *,
        store: AsyncStore,
        settings: Settings,
        node: NodeName,
        row: NodeRow,
        witness: ClusterWitness | None = None,
    ) -> None:
        self._witness = witness or ClusterWitness(settings=settings, node=node)
        self._name_wait = NameWait(self._witness.clock)
        self._store = store
        self._settings = settings
        self._node = node
        self._row = row
        self._previous: Incarnation | None = row.incarnation or None
        self._reported_taken = False
        #: The row in Redis does not name the queues that this node has now.
        self._row_outdated = False
        #: The errors since Redis last answered: each is logged once.
        self._errors: set[str] = set()
        #: Another server answers, or one that lost its data, and does not know yet everything that runs here.
        self._must_reassert = False
        self._no_claims_before = 0.0
        self._sent_at = 0.0
        self.incarnation: Incarnation | None = None
        self.until = 0.0

    def is_running(self) -> bool:
        """Whether the lease runs, as far as this process can know."""
        return self.incarnation is not None and lease_clock() < self.until

    def confirmed_server(self) -> str | None:
        """Return the run id of the server whose claims may be granted; ``None`` in the grace period after a change.

        Redis compares the run id with that of the server that the monitor has confirmed. If an earlier, confirmed
        server is back, the grace period counts from the moment at which this process connected to it.
        """
        return None if lease_clock() < self._no_claims_before else self._store.pin.server

    @property
    def problem(self) -> str:
        """Why this node cannot start processes, as written to the node's record; empty if nothing is written there."""
        return self._row.problem

    async def report_problem(self, problem: str) -> bool:
        """Record why this node takes no daemons, or with an empty text that the node does; False if not recorded."""
        if self.incarnation is None:
            return False
        try:
            if not await self._store.run(verbs.serving(self._store.keys, self._node, self.incarnation, problem)):
                return False
        except StoreUnavailable as error:
            self._note_unanswered(error)
            return False
        self._row = replace(self._row, problem=printable(problem))
        return True

    def set_blocked(self, blocked: str) -> None:
        """Keep what the node's record says of blocked event loops, to write it again after a loss of data."""
        self._row = replace(self._row, blocked=blocked)

    @property
    def pause(self) -> float:
        """Seconds between heartbeats."""
        return self._settings.heartbeat_interval

    async def join(self) -> int:
        """Join as a new incarnation, however long that takes; return the generation of the node's assignments."""
        incarnation = Incarnation(secrets.token_hex(8))
        while True:
            row = replace(self._row, incarnation=incarnation)
            sent = lease_clock()
            try:
                await self._store.check()
                answer = await self._store.run(
                    verbs.join(
                        self._store.keys,
                        self._node,
                        row,
                        ttl_ms=self._settings.lease_ttl_ms,
                        previous=self._previous,
                        server=self._store.pin.server,
                        ended_ms=self._name_wait.ended_ms,
                    )
                )
            except (ConfigurationError, LayoutMismatch) as error:
                logger.error("node %s: cannot join: %s", self._node, error)
                await asyncio.sleep(_JOIN_RETRY)
                continue
            except StoreUnavailable as error:
                self._note_unanswered(error)
                await asyncio.sleep(self.pause)
                continue
            received = lease_clock()
            self._witness.on_time(answer.server_ms, sent=sent, received=received)
            if isinstance(answer, verbs.Taken):
                left = self._name_wait.seconds_left(answer, now=received)
                if left > 0:
                    await self._report_taken(answer)
                    await asyncio.sleep(min(left + 0.01, self.pause))
                continue
            # A node that has just joined runs nothing: there is nothing to reassert.
            self._must_reassert = self._reported_taken = False
            self._errors.clear()
            self._note_cluster(answer, received)
            # Its queues may have changed while the call was on its way.
            self._row_outdated = (self._row.queue, self._row.spawn_queue) != (row.queue, row.spawn_queue)
            self._row = replace(self._row, incarnation=row.incarnation)
            self.incarnation = self._previous = row.incarnation
            self._extend(sent)
            logger.info("node %s: joined as incarnation %s", self._node, row.incarnation)
            return answer.generation

    async def beat(self) -> Renewed | Forgotten | Lost | None:
        """Renew the lease; ``None`` if Redis does not answer. On ``Forgotten``, :meth:`reassert` has to follow."""
        assert self.incarnation is not None
        self._sent_at = lease_clock()
        try:
            answer = await self._store.run(
                verbs.beat(self._store.keys, self._node, self.incarnation, ttl_ms=self._settings.lease_ttl_ms)
            )
        except StoreUnavailable as error:
            self._note_unanswered(error)
            return None
        renewed = answer.verdict == "ok"
        if renewed:
            received = lease_clock()
            self._witness.on_time(answer.server_ms, sent=self._sent_at, received=received)
            self._note_cluster(answer, received)
        # No monitor may sweep a lease that still runs on this node's clock: an unknown lease was lost by Redis.
        if (not renewed and self._sent_at < self.until) or (renewed and self._must_reassert):
            # Kept until it is complete: after a part of it Redis knows this node again, and reports no loss.
            self._must_reassert = True
            return Forgotten()
        if not renewed:
            return Lost()
        if self._row_outdated:
            await self._update_row()
        return self._renewed(Renewed(answer.generation, answer.led))

    def set_queues(self, *, queue: str, spawn_queue: str) -> None:
        """Change the node's queues; the next heartbeat writes the change to Redis, if the node has joined."""
        self._row = replace(self._row, queue=queue, spawn_queue=spawn_queue)
        self._row_outdated = self.incarnation is not None

    async def _update_row(self) -> None:
        """Write the node's record; the next heartbeat tries again if Redis does not answer."""
        with contextlib.suppress(StoreUnavailable):
            # Without daemons, the verb changes nothing else.
            await self._store.run(
                book.reassert(self._store.keys, self._node, self._row, [], ttl_ms=self._settings.lease_ttl_ms)
            )
            self._row_outdated = False

    async def reassert(self, running: list[Running]) -> Renewed | Lost | None:
        """Register again, with every daemon that runs here, after a heartbeat that was answered by ``Forgotten``.

        The generation is a new one: the agent synchronises next, and stops what a newer token holds elsewhere.
        """
        logger.warning("node %s: Redis may have lost this node's data, re-registering it and its daemons", self._node)
        generation = 0
        try:
            pages = [running[start : start + BATCH] for start in range(0, len(running), BATCH)]
            cut = [batch for page in pages for batch in batches(page, lambda item: len(item.arguments))]
            for batch in cut or [[]]:
                answer = await self._store.run(
                    book.reassert(
                        self._store.keys,
                        self._node,
                        self._row,
                        batch,
                        ttl_ms=self._settings.lease_ttl_ms,
                        server=self._store.pin.server,
                        longest_ms=self._witness.longest_lease_ms,
                    )
                )
                if answer is None:
                    self._must_reassert = False
                    return Lost()
                generation = answer[0]
        except StoreUnavailable as error:
            self._note_unanswered(error)
            return None
        self._must_reassert = False
        return self._renewed(Renewed(generation, led=True))

    def _renewed(self, answer: Renewed) -> Renewed:
        self._extend(self._sent_at)
        if self._errors:
            logger.info("node %s: Redis answers again", self._node)
        self._errors.clear()
        return answer

    def _note_cluster(self, answer: verbs.Joined | verbs.Beat, received: float) -> None:
        self._witness.on_cluster(
            server=self._store.pin.server,
            created_ms=answer.created_ms,
            longest_lease_ms=answer.longest_lease_ms,
            received=received,
        )

    def _extend(self, sent: float) -> None:
        self.until = sent + self._settings.lease_ttl - self._settings.lease_margin

    def end(self) -> None:
        """Note that the lease is over and every host dead: the next incarnation may take the daemons over."""
        self.incarnation = None
        self.until = 0.0

    async def drain(self) -> None:
        """Ask the monitor to assign nothing more to this node. Raises StoreUnavailable."""
        if self.incarnation is not None:
            await self._store.run(verbs.drain(self._store.keys, self._node, incarnation=self.incarnation))

    async def has_other_nodes(self) -> bool:
        """Return whether another node takes daemons. Raises StoreUnavailable."""
        raw = await self._store.read(lambda client: client.hgetall(self._store.keys.nodes))
        rows = {text(name): decode_or_none(NodeRow, row) for name, row in raw.items()}
        return any(row is not None and row.takes_daemons for name, row in rows.items() if name != self._node)

    async def leave(self, *, nothing_runs: bool) -> None:
        """Leave the cluster. Raises StoreUnavailable.

        With ``nothing_runs``, every host is dead. What is still assigned here, because the monitor assigned it before
        it saw the drain, is then released: it must not wait for the end of the lease.
        """
        if self.incarnation is not None:
            left = await self._store.run(verbs.leave(self._store.keys, self._node, self.incarnation))
            if left > 0 and nothing_runs:
                await release_all(self._store, self._node)
                left = await self._store.run(verbs.leave(self._store.keys, self._node, self.incarnation))
            if left > 0:
                logger.warning("node %s: left %d daemons behind, they move when the lease ends", self._node, left)
            else:
                logger.info("node %s: left", self._node)

    async def _report_taken(self, answer: verbs.Taken) -> None:
        if self._reported_taken:
            return
        self._reported_taken = True
        why = (
            f"another worker of this name is alive (incarnation {answer.incarnation}); this one stays a plain worker "
            "and joins when the name is free: give each worker its own --hostname"
        )
        logger.warning("node %s: %s", self._node, why)
        with contextlib.suppress(StoreUnavailable):
            await self._store.run(journal.note(self._store.keys, "name-taken", node=self._node, cause=why))

    def _note_unanswered(self, error: StoreUnavailable) -> None:
        shown = str(error)
        logger.log(logging.DEBUG if shown in self._errors else logging.WARNING, "node %s: %s", self._node, error)
        if len(self._errors) < _REMEMBERED_ERRORS:
            self._errors.add(shown)
        self.accept_server_change()

    def accept_server_change(self) -> None:
        """Continue with another server if the address leads there; such a server may lack the last writes."""
        if self._store.pin.accept_new_server():
            self._must_reassert = True
            # Another node may hold by a longer lease what the data of this server assigns here.
            self._no_claims_before = lease_clock() + self._witness.longest_lease_ms / 1000
