"""The node's lease: joining, renewing, registering again after Redis lost its data, and knowing when it is over."""

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
from celery_daemons.errors import ConfigurationError, LayoutMismatch, StoreUnavailable
from celery_daemons.node.lease_answers import Forgotten, Lost, Renewed
from celery_daemons.node.leftovers import release_all
from celery_daemons.node.name_wait import NameWait
from celery_daemons.node.server_trust import ServerTrust
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal
from celery_daemons.store import lease as verbs
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.codec import printable
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import BATCH
from celery_daemons.store.server_pin import server_id
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
        on_renewal: Callable[[float], None] | None = None,
    ) -> None:
        """``on_renewal`` gets the seconds that were left when a heartbeat was answered."""
        self._on_renewal = on_renewal
        self._witness = witness or ClusterWitness(settings=settings, node=node)
        self._name_wait = NameWait(self._witness.clock)
        self._store = store
        self._settings = settings
        self._node = node
        self._row = row
        self._previous: Incarnation | None = row.incarnation or None
        self._reported_taken = False
        #: The row in Redis differs from this one.
        self._row_outdated = False
        #: The errors since Redis last answered: each is logged once.
        self._errors: set[str] = set()
        self._trust = ServerTrust()
        self._sent_at = 0.0
        self.incarnation: Incarnation | None = None
        self.until = 0.0
        #: The node has joined once; it was asked to drain.
        self.has_joined = self.draining = False

    def is_running(self) -> bool:
        """Whether the lease runs, as far as this process can know."""
        return self.incarnation is not None and lease_clock() < self.until

    def confirmed_server(self) -> str | None:
        """Return the run id of the server whose claims may be granted; ``None`` in the grace period after a change.

        Redis compares the run id with that of the server that the monitor has confirmed. If an earlier, confirmed
        server is back, the grace period counts from the moment at which this process connected to it.
        """
        return self._store.pin.server if self._trust.may_claim(lease_clock()) else None

    @property
    def problem(self) -> str:
        """Why this node cannot start processes, as written to the node's record; empty if nothing is written there."""
        return self._row.problem

    async def report_problem(self, problem: str) -> bool:
        """Record why this node takes no daemons, empty if it does, now or when it joins; False if not recorded."""
        try:
            if self.incarnation is not None and not await self._store.run(
                verbs.serving(self._store.keys, self._node, self.incarnation, problem)
            ):
                return False
        except StoreUnavailable as error:
            self._note_unanswered(error)
            return False
        self._row = replace(self._row, problem=printable(problem))
        return True

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
            self._reported_taken = False
            self._trust.on_join(answer.history)
            self._errors.clear()
            self._note_cluster(answer, received)
            # It may have changed while the call was on its way.
            self._row = replace(self._row, incarnation=row.incarnation)
            self._row_outdated = self._row != row
            self.has_joined, self.draining = True, False
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
        if renewed := answer.verdict == "ok":
            self.draining = answer.draining
            received = lease_clock()
            self._witness.on_time(answer.server_ms, sent=self._sent_at, received=received)
            self._note_cluster(answer, received)
            # A report without an answer may still have been carried out, and later than the next one.
            self._row = replace(self._row, problem=answer.problem)
            if self._trust.on_history(answer.history, now=received, longest_lease=self._witness.longest_lease):
                logger.warning("node %s: Redis begins a new history and may lack the last writes", self._node)
        # No monitor may sweep a lease that still runs on this node's clock: an unknown lease was lost by Redis.
        if not renewed and self._sent_at < self.until:
            self._trust.on_data_lost()
        if self._trust.must_reassert and (renewed or self._sent_at < self.until):
            return Forgotten()
        if not renewed:
            return Lost()
        if self._row_outdated:
            await self._update_row()
        return self._renewed(Renewed(answer.generation, answer.led))

    def change_row(self, **texts: str) -> None:
        """Change fields of the node's record; the next heartbeat writes them to Redis, if the node has joined."""
        self._row = replace(self._row, **texts)  # type: ignore[arg-type]
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
                        longest_ms=int(self._witness.longest_lease * 1000),
                    )
                )
                if answer is None:
                    self._trust.must_reassert = False
                    return Lost()
                generation = answer[0]
        except StoreUnavailable as error:
            self._note_unanswered(error)
            return None
        self._trust.must_reassert = False
        return self._renewed(Renewed(generation, led=True))

    def _renewed(self, answer: Renewed) -> Renewed:
        if self._on_renewal is not None:
            self._on_renewal(self.until - lease_clock())
        self._extend(self._sent_at)
        if self._errors:
            logger.info("node %s: Redis answers again", self._node)
        self._errors.clear()
        return answer

    def _note_cluster(self, answer: verbs.Joined | verbs.Beat, received: float) -> None:
        self._witness.on_cluster(
            server=server_id(self._store.pin.server, answer.history),
            created_ms=answer.created_ms,
            longest_lease_ms=answer.longest_lease_ms,
            received=received,
        )

    def _extend(self, sent: float) -> None:
        self.until = sent + self._settings.lease_ttl - self._settings.lease_margin

    def end(self) -> None:
        """Note that the lease is over and every host dead: the next incarnation may take the daemons over."""
        self.incarnation, self.until = None, 0.0

    async def drain(self) -> None:
        """Ask the monitor to assign nothing more to this node. Raises StoreUnavailable."""
        if self.incarnation is not None:
            await self._store.run(verbs.drain(self._store.keys, self._node, incarnation=self.incarnation))

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
        why = self._name_wait.why(answer)
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
            self._trust.on_other_server(now=lease_clock(), longest_lease=self._witness.longest_lease)
