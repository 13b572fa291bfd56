"""Report recovery scanners that some node has but this monitor lacks: the daemons that they list are never started."""

import logging

from celery_daemons.domain.names import Epoch, LauncherName
from celery_daemons.domain.planner import Snapshot
from celery_daemons.domain.records import missing_scanners
from celery_daemons.launcher import Registry
from celery_daemons.store import specs
from celery_daemons.store.connection import Store

logger = logging.getLogger(__name__)


class MissingScanners:
    """Compares the scanners of this monitor's app with those of the nodes, and reports each difference once."""

    def __init__(self, *, registry: Registry, store: Store, epoch: Epoch, snapshot: Snapshot) -> None:
        self._own = frozenset(name for name in registry if registry[name].scanner is not None)
        self._store = store
        self._epoch = epoch
        self._snapshot = snapshot
        self._reported: set[LauncherName] = set()

    def check(self) -> None:
        """Report scanners that are missing, in the log and in the status of the cluster. Raises StoreUnavailable."""
        found = missing_scanners(self._own, self._snapshot.nodes)
        self._reported &= found.keys()
        for launcher, node in found.items():
            if launcher in self._reported:
                continue
            error = (
                f"node {node} has a recovery scanner for it, and the node of the monitor has none: it is not run; use "
                "the same app on all nodes, or another daemons_namespace for each app"
            )
            logger.error("launcher %s: %s", launcher, error)
            self._store.run(specs.scanned(self._store.keys, self._epoch, launcher, listed=0, took_ms=0, error=error))
            self._reported.add(launcher)
