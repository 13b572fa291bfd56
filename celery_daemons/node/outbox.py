"""What the agent owes Redis: claims, reports and releases, in batches, until Redis has taken them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final, TypeVar

from celery_daemons.domain.names import DaemonName, Incarnation, NodeName, Token
from celery_daemons.domain.runs import Assignment, ClaimResult, Release, Report
from celery_daemons.errors import LeaseLost, StoreUnavailable
from celery_daemons.store import book
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import BATCH

logger = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")

#: Seconds before the ledger tries again what Redis did not answer; the heartbeat keeps the clock of the lease.
_RETRY: Final = 0.2

ClaimHandler = Callable[[list[Assignment], list[ClaimResult]], None]


class Outbox:
    """Sends what is due, releases before reports before claims, one batch at a time."""

    def __init__(self, store: AsyncStore, node: NodeName, claimed: ClaimHandler) -> None:
        self._store = store
        self._node = node
        self._claimed = claimed
        self._claims: dict[DaemonName, Token] = {}
        self._reports: dict[DaemonName, Report] = {}
        self._releases: dict[tuple[DaemonName, Token], Release] = {}
        self._under_way: dict[DaemonName, Token] = {}
        self._waiting = False
        self._due = asyncio.Event()
        self._busy = False
        #: Changes whenever what was sent before no longer counts.
        self.era = 0
        self.incarnation: Incarnation | None = None
        #: Set while the node knows its lease to run: nothing but a release may be sent without.
        self.lease_runs: Callable[[], bool] = lambda: False
        #: The server whose book may be believed, if any may.
        self.settled_with: Callable[[], str | None] = lambda: None
        #: Called when Redis refused something: the book says otherwise than this node thinks.
        self.differs: Callable[[], None] = lambda: None

    @property
    def idle(self) -> bool:
        """Whether Redis has taken everything."""
        return not (self._claims or self._reports or self._releases or self._busy)

    def claim(self, name: DaemonName, token: Token) -> None:
        """Ask to start a daemon."""
        self._claims[name] = token
        self._due.set()

    def report(self, report: Report) -> None:
        """Say how a daemon is doing; only the newest report counts."""
        self._reports[report.name] = report
        self._due.set()

    def release(self, release: Release) -> None:
        """Give a daemon back; how it ended is what the first release of a token says."""
        self._claims.pop(release.name, None)
        self._reports.pop(release.name, None)
        self._releases.setdefault((release.name, release.token), release)
        self._due.set()

    def withdraw(self, name: DaemonName) -> bool:
        """Claim a daemon no more; false when the claim is on its way, and may be granted."""
        if name in self._under_way:
            return False
        self._claims.pop(name, None)
        return True

    def drop(self, name: DaemonName) -> None:
        """Owe nothing about a daemon any more."""
        self._claims.pop(name, None)
        self._reports.pop(name, None)

    def clear(self) -> None:
        """Owe nothing any more: another incarnation begins."""
        self.era += 1
        self._claims.clear()
        self._reports.clear()
        self._releases.clear()

    def void_answers(self) -> None:
        """Let what is on its way count for nothing: another server will hear it again."""
        self.era += 1

    def poke(self) -> None:
        """Try now what is due."""
        self._due.set()

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                self._busy = True
                while await self._settle_one():
                    pass
            except StoreUnavailable as error:
                logger.debug("node %s: %s", self._node, error)
                await asyncio.sleep(_RETRY)
                self._due.set()
            except LeaseLost as error:
                # The heartbeat finds out the same and acts; until then nothing here can succeed.
                logger.info("%s", error)
                await asyncio.sleep(_RETRY)
            finally:
                self._busy = False

    async def _settle_one(self) -> bool:
        if self._releases:
            await self._send(self._releases, self._send_releases)
        elif self.incarnation is None or not self.lease_runs():
            return False
        elif self._reports:
            await self._send(self._reports, self._send_reports)
        elif self._claims:
            return await self._send_claims(self.incarnation)
        else:
            return False
        return True

    async def _send(self, owed: dict[K, V], send: Callable[[dict[K, V]], Awaitable[None]]) -> None:
        batch = dict(islice(owed.items(), BATCH))
        era = self.era
        await send(batch)
        if era != self.era:
            return
        for key, value in batch.items():
            # What became due while this was on its way is due still.
            if owed.get(key) is value:
                del owed[key]

    async def _send_releases(self, batch: dict[tuple[DaemonName, Token], Release]) -> None:
        await self._store.run(book.release(self._store.keys, self._node, list(batch.values())))

    async def _send_reports(self, batch: dict[DaemonName, Report]) -> None:
        assert self.incarnation is not None
        taken = await self._store.run(book.report(self._store.keys, self._node, self.incarnation, list(batch.values())))
        if not all(taken):
            self.differs()

    async def _send_claims(self, incarnation: Incarnation) -> bool:
        """Claim what is due; false when that has to wait for a monitor, the next heartbeat tries again."""
        server = self.settled_with()
        if server is None:
            return False
        batch = dict(islice(self._claims.items(), BATCH))
        items, era = [Assignment(*item) for item in batch.items()], self.era
        self._under_way = batch
        try:
            claims = await self._store.run(book.claim(self._store.keys, self._node, incarnation, items, server=server))
        finally:
            self._under_way = {}
        if claims is None:
            if not self._waiting:
                logger.info("node %s: starts nothing before a monitor has settled with this server", self._node)
            self._waiting = True
            return False
        self._waiting = False
        if era != self.era:
            return True
        for name, token in items:
            if self._claims.get(name) == token:
                del self._claims[name]
        self._claimed(items, claims)
        return True
