"""What the monitor would do, worked out by a client: the planner is pure, so the same state gives the same answer."""

from collections.abc import Mapping

from celery_daemons.domain.balance import Move
from celery_daemons.domain.names import NodeName
from celery_daemons.launcher import Launcher
from celery_daemons.monitor.plan import Planner
from celery_daemons.settings import Settings
from celery_daemons.store import reading
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica


def moves(store: Store, settings: Settings, launchers: Mapping[str, Launcher]) -> list[Move]:
    """The moves that would even the nodes out now."""
    return _planner(store, settings, launchers).moves(even=True)


def stranded(store: Store, settings: Settings, launchers: Mapping[str, Launcher], node: str) -> set[str]:
    """The daemons on a node that no other node can take."""
    return _planner(store, settings, launchers).stranded(NodeName(node))


def _planner(store: Store, settings: Settings, launchers: Mapping[str, Launcher]) -> Planner:
    replica = Replica(store, with_specs=True)
    replica.load()
    # Nothing goes to a node whose lease has ended, though nobody has swept it yet.
    replica.nodes = {name: row for name, (row, left_ms) in reading.node_rows(store).items() if left_ms > 0}
    planner = Planner(replica, settings, lambda name: launchers[name].options if name in launchers else None)
    planner.nodes_changed()
    return planner
