"""A candidate without a node: it runs for election and hosts no daemons (``celery -A proj daemons monitor``)."""

import asyncio
import contextlib
import logging

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.errors import DaemonsError, StoreUnavailable
from celery_daemons.node.election import Election
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.node.worker_link import WorkerLink
from celery_daemons.settings import Settings
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.server_pin import server_id
from celery_daemons.wire.messages import Drain, FromWorker

logger = logging.getLogger(__name__)


class Candidate:
    """Runs for election until the parent process is gone or asks to stop."""

    def __init__(
        self,
        *,
        settings: Settings,
        node: NodeName,
        store: AsyncStore,
        lifetime: Lifetime,
        election: Election,
        witness: ClusterWitness,
        worker_link: WorkerLink,
    ) -> None:
        self._settings = settings
        self._node = node
        self._store = store
        self._lifetime = lifetime
        self._election = election
        self._witness = witness
        self._worker_link = worker_link
        #: When Redis last answered, on the lease clock; ``None`` before.
        self._answered_at: float | None = None

    @property
    def has_started(self) -> bool:
        """Whether Redis has answered once."""
        return self._answered_at is not None

    def is_running(self) -> bool:
        """Whether Redis has answered within the last lease."""
        return self._answered_at is not None and lease_clock() < self._answered_at + self._settings.lease_ttl

    async def run(self) -> None:
        """Serve until the parent process is gone or asks to stop."""
        self._lifetime.handle_signals()
        self._lifetime.start(self._worker_link.run(self._on_message))
        self._lifetime.start(self._watch_parent())
        self._lifetime.start(self._serve())
        within = await self._lifetime.wait()
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(max(0.5, within)):
                await self._election.retire()
        await self._store.close()

    async def _serve(self) -> None:
        incarnation = Incarnation("candidate")
        while True:
            try:
                await self._store.check()
                sent = lease_clock()
                overview = await self._store.run(queries.overview(self._store.keys))
                received = lease_clock()
                self._witness.on_time(overview.now_ms, sent=sent, received=received)
                self._witness.on_cluster(
                    server=server_id(self._store.pin.server, overview.history),
                    created_ms=overview.created_ms,
                    longest_lease_ms=overview.longest_lease_ms,
                    received=received,
                )
                self._answered_at = received
                await self._election.after_beat(incarnation, led=overview.led)
            except DaemonsError as error:
                logger.warning("monitor %s: %s", self._node, error)
                self._store.pin.accept_new_server()
            self._election.check_lease()
            await asyncio.sleep(self._settings.heartbeat_interval)

    async def _watch_parent(self) -> None:
        await self._worker_link.gone.wait()
        self._lifetime.leave()

    def _on_message(self, message: FromWorker) -> None:
        if isinstance(message, Drain):
            self._lifetime.leave(message.timeout)
