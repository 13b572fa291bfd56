"""Compute in a client what the monitor would do: the planner is pure, so the same state gives the same answer."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.settings import Settings
from celery_daemons.store import queries
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica

Options = Callable[[LauncherName], LauncherOptions | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _LiveSnapshot:
    """The cluster with only the nodes whose lease runs: no daemon goes to a lost node that is not swept yet."""

    specs: Mapping[DaemonName, SpecRow]
    book: Mapping[DaemonName, BookRow]
    nodes: Mapping[NodeName, NodeRow]
    corrupt: AbstractSet[DaemonName]


def even_moves(store: Store, settings: Settings, options: Options) -> list[Move]:
    """Return the moves with which a requested rebalance would begin now."""
    return _planner(store, settings, options).moves(even=True, moving={})


def stranded_daemons(store: Store, settings: Settings, options: Options, node: str) -> set[str]:
    """Return the daemons on a node that no other node can take."""
    return _planner(store, settings, options).stranded(NodeName(node))


def _planner(store: Store, settings: Settings, options: Options) -> Planner:
    replica = Replica(store, with_specs=True)
    replica.load()
    snapshot = _LiveSnapshot(
        specs=replica.specs,
        book=replica.book,
        nodes={name: row for name, (row, left_ms) in queries.node_rows(store).items() if left_ms > 0},
        corrupt=replica.corrupt,
    )
    planner = Planner(snapshot, load_factor=settings.load_factor, vnodes=settings.vnodes, options=options)
    planner.nodes_changed()
    return planner
