"""The monitor's eye on leases: what ends is swept, what is gone is tidied up, and when to rather hold still."""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal, lease, queries
from celery_daemons.store.connection import Store
from celery_daemons.store.queries import Overview
from celery_daemons.store.script import BATCH

logger = logging.getLogger(__name__)

#: Seconds after the end of a lease at which it is swept: the server's clock is read in whole milliseconds.
_SWEEP_DELAY: Final = 0.002
#: Seconds that a node may be gone before its queues are removed.
_COMES_BACK_WITHIN: Final = 60.0
#: The least seconds between two looks while something has to wait.
_PAUSE: Final = 0.05


class Watch:
    """Acts on leases under one epoch."""

    def __init__(
        self, store: Store, settings: Settings, epoch: Epoch, dispatcher: Dispatcher, prove: Callable[[], None]
    ) -> None:
        self._store = store
        self._settings = settings
        self._epoch = epoch
        self._dispatcher = dispatcher
        self._prove = prove
        self.caution = HoldOff(settings.lease_ttl)
        self._bury_at = 0.0
        #: Nodes whose queues the dispatcher's thread has removed.
        self._removed: deque[NodeName] = deque()

    def heed(self, overview: Overview) -> float:
        """Do what the leases call for; answers when to look again, in monotonic seconds."""
        now = time.monotonic()
        self.caution.with_data_of(overview.age_ms)
        self.caution.after_silence(overview.first_beat_age_ms)
        server, settled = self._store.pin.server, overview.server
        if self.caution.with_server(server, settled=settled):
            self._store.run(lease.confirm_server(self._store.keys, self._epoch, server))
            settled = server
        if now >= self._bury_at:
            self._bury()
            self._bury_at = now + _COMES_BACK_WITHIN
        ended = [node for node, left in overview.leases.items() if left <= 0]
        cause = self.caution.with_losses(overview.leases)
        if cause is not None:
            self._store.run(journal.note(self._store.keys, "mass-failure", cause=cause))
        if self.caution.sweeps:
            for node in ended:
                self.sweep(node)
        pauses = [left / 1000 + _SWEEP_DELAY for left in overview.leases.values() if left > 0]
        if ended:
            pauses.append(max(_PAUSE, self.caution.sweeps_from - now, self.caution.until - now))
        if settled != server:
            # No node starts anything before.
            pauses.append(max(_PAUSE, self.caution.until - now))
        return time.monotonic() + min([self._settings.reconcile_interval, *pauses])

    def sweep(self, node: NodeName) -> None:
        """Free what a node whose lease has ended left behind."""
        while True:
            swept = self._store.run(book.sweep(self._store.keys, self._epoch, node, limit=BATCH))
            self._prove()
            if swept.alive_ms:
                return
            logger.warning("node %s: lease ended, freed %d daemons", node, len(swept.names))
            if swept.left == 0:
                break

    def gone(self) -> dict[NodeName, float]:
        """The nodes that have left or were lost of late, and how many seconds ago."""
        now_ms = self._store.now_ms()
        return {node: (now_ms - gone.at_ms) / 1000 for node, gone in queries.gone(self._store).items()}

    def _bury(self) -> None:
        """Remove from the broker what nodes have left there that are gone for a while; a restart takes less."""
        while self._removed:
            self._store.run(lease.forget_queues(self._store.keys, self._epoch, self._removed.popleft()))
        now_ms = self._store.now_ms()
        for node, left in queries.gone(self._store).items():
            if now_ms - left.at_ms >= _COMES_BACK_WITHIN * 1000:
                self._dispatcher.sweep(left.spawn_queue, left.queue, partial(self._removed.append, node))
