"""What the monitor would do, worked out by a client: the planner is pure, so the same state gives the same answer."""

from collections.abc import Callable

from celery_daemons.domain.names import LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.rebalance import Move
from celery_daemons.settings import Settings
from celery_daemons.store import queries
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica

Options = Callable[[LauncherName], LauncherOptions | None]


def even_moves(store: Store, settings: Settings, options: Options) -> list[Move]:
    """The moves that would even the nodes out now."""
    return _planner(store, settings, options).moves(even=True)


def stranded_daemons(store: Store, settings: Settings, options: Options, node: str) -> set[str]:
    """The daemons on a node that no other node can take."""
    return _planner(store, settings, options).stranded(NodeName(node))


def _planner(store: Store, settings: Settings, options: Options) -> Planner:
    replica = Replica(store, with_specs=True)
    replica.load()
    # Nothing goes to a node whose lease has ended, though nobody has swept it yet.
    replica.nodes = {name: row for name, (row, left_ms) in queries.node_rows(store).items() if left_ms > 0}
    planner = Planner(
        replica,
        load_factor=settings.load_factor,
        vnodes=settings.vnodes,
        options=options,
    )
    planner.nodes_changed()
    return planner
