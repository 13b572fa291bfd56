"""Pass the lead on: resign while this node drains, and notify other candidates after a resignation."""

import logging
import random
from typing import Final

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.domain.states import NodeStatus
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.store import lease
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica
from celery_daemons.wire.spawn_task import SpawnTask

logger = logging.getLogger(__name__)

#: Candidates notified of a resignation. One alone might be busy; notifying all of them would make all of them campaign.
_SUCCESSORS_NOTIFIED: Final = 3
#: Seconds that the broker has to take the notifications: the process must not outlive its lease for them.
_NOTIFY_TIMEOUT: Final = 0.3


class Succession:
    """Lets another node take the lead."""

    def __init__(
        self,
        *,
        node: NodeName,
        epoch: Epoch,
        store: Store,
        replica: Replica,
        dispatcher: Dispatcher,
        rng: random.Random,
    ) -> None:
        self._node = node
        self._epoch = epoch
        self._store = store
        self._replica = replica
        self._dispatcher = dispatcher
        self._rng = rng

    def resign_if_draining(self) -> bool:
        """Give the monitor's lease back if this node drains and another candidate is up. Return whether that was done.

        A draining node leaves soon: resigning early spares the cluster the wait for the end of the monitor's lease.
        """
        own = self._replica.nodes.get(self._node)
        if own is None or own.status is not NodeStatus.DRAINING:
            return False
        if not any(row.candidate and row.takes_daemons for row in self._replica.nodes.values()):
            return False
        logger.info("monitor %s: node is draining, stepping down for another node", self._node)
        return self._store.run(lease.resign(self._store.keys, self._epoch, cause="its node drains"))

    def notify_candidates(self) -> None:
        """Notify a few other candidates that no monitor leads. Call after the epoch is over, from any thread."""
        nodes = self._replica.nodes.copy()
        others = [(name, row) for name, row in nodes.items() if name != self._node and row.candidate]
        for name, row in self._rng.sample(others, min(_SUCCESSORS_NOTIFIED, len(others))):
            task = SpawnTask(node=name, incarnation=row.incarnation, epoch=self._epoch, campaign=True)
            self._dispatcher.send(row.spawn_queue, task)
        self._dispatcher.flush(timeout=_NOTIFY_TIMEOUT)
