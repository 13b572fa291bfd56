"""Remove from the broker the queues of nodes that have been gone for a while."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.store import lease, queries
from celery_daemons.store.connection import Store

#: Seconds for which this monitor must know that a node is gone before it removes the queues, and between two runs. A
#: restart takes less time, and must find the queues with their messages.
_RETENTION: Final = 60.0


class DepartedNodes:
    """The nodes that have left or were lost, whose queues may still be in the broker."""

    def __init__(self, *, store: Store, epoch: Epoch, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self._store = store
        self._epoch = epoch
        self._dispatcher = dispatcher
        self._clock = clock
        self._next_run_at = 0.0
        #: The departed nodes as they were first seen, and when.
        self._seen: dict[NodeName, tuple[queries.Gone, float]] = {}
        #: Nodes whose queues are removed. The dispatcher's thread appends, the monitor's loop takes.
        self._removed: deque[NodeName] = deque()

    def names(self) -> Iterable[NodeName]:
        """Return the departed nodes whose queues may still exist."""
        return queries.gone(self._store)

    def remove_queues(self) -> None:
        """Remove queues of nodes that have been gone for long enough; does nothing until the next run is due."""
        now = self._clock()
        if now < self._next_run_at:
            return
        while self._removed:
            self._store.run(lease.forget_queues(self._store.keys, self._epoch, self._removed.popleft()))
        departed = queries.gone(self._store)
        # By this clock, not by Redis's, which may be set: a node that restarts must find its queues.
        self._seen = {node: self._seen.get(node, (gone, now)) for node, gone in departed.items()}
        for node, queues in departed.items():
            gone, since = self._seen[node]
            if gone != queues:
                self._seen[node] = queues, now
            elif now - since >= _RETENTION:
                self._dispatcher.remove_queues(
                    spawn_queue=queues.spawn_queue,
                    task_queue=queues.queue,
                    is_gone=partial(self._is_gone, node, queues),
                    on_removed=partial(self._removed.append, node),
                )
        self._next_run_at = now + _RETENTION

    def _is_gone(self, node: NodeName, queues: queries.Gone) -> bool:
        """Return whether a node is still gone, as the broker may have taken long. Raises StoreUnavailable."""
        return queries.gone(self._store).get(node) == queues
