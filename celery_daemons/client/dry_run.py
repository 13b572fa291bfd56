"""Compute in a client what the monitor would do: the planner is pure, so the same state gives the same answer."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

from celery_daemons.client.cluster_io import ClusterIO
from celery_daemons.domain import placement
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow, needs_by_launcher
from celery_daemons.settings import Settings
from celery_daemons.store import listing, queries

R = TypeVar("R", BookRow, SpecRow)

Options = Callable[[LauncherName], LauncherOptions | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _LiveSnapshot:
    """The cluster with only the nodes whose lease runs: no daemon is placed on a lost node that is not swept yet."""

    specs: Mapping[DaemonName, SpecRow]
    book: Mapping[DaemonName, BookRow]
    nodes: Mapping[NodeName, NodeRow]
    corrupt: AbstractSet[DaemonName]


async def even_moves(io: ClusterIO, settings: Settings, options: Options) -> list[Move]:
    """Return the moves with which a requested rebalance would begin now."""
    snapshot = await _read_all(io)
    return await io.compute(lambda: _planner(snapshot, settings, options).moves(even=True, moving={}))


async def stranded_daemons(io: ClusterIO, settings: Settings, options: Options, node: str) -> set[str]:
    """Return the daemons on a node that no other node can take."""
    snapshot = await _read_all(io)
    return await io.compute(lambda: set(_planner(snapshot, settings, options).stranded(NodeName(node))))


async def suitable_nodes(io: ClusterIO, launcher: LauncherName) -> tuple[list[NodeName], str]:
    """Return the nodes that can take a launcher's daemons, and the requirements as a clause for a message."""
    rows = await queries.node_rows(io)
    labels, _ = needs_by_launcher({name: row for name, (row, _) in rows.items()}).get(launcher, ((), 1.0))
    live = {name: row for name, (row, left_ms) in rows.items() if left_ms > 0}
    demand = placement.Demand(name=DaemonName(""), launcher=launcher, labels=labels)
    nodes = sorted(placement.NodeLoads(nodes=live, load_factor=1.0, vnodes=1).fitting(demand))
    and_labels = f" and the labels {','.join(sorted(labels))}" if labels else ""
    return nodes, f"has launcher {launcher}{and_labels}"


async def _read_all(io: ClusterIO) -> _LiveSnapshot:
    specs, corrupt_specs = await _read(io, io.keys.specs, SpecRow)
    book, corrupt_entries = await _read(io, io.keys.book, BookRow)
    return _LiveSnapshot(
        specs=specs,
        book=book,
        nodes={name: row for name, (row, left_ms) in (await queries.node_rows(io)).items() if left_ms > 0},
        corrupt=corrupt_specs | corrupt_entries,
    )


async def _read(io: ClusterIO, key: str, kind: type[R]) -> tuple[dict[DaemonName, R], set[DaemonName]]:
    """Return the records of a hash by name, and the names of those that are corrupt."""
    rows: dict[DaemonName, R] = {}
    corrupt = set[DaemonName]()
    async for page in listing.pages(io, key, kind):
        for name, row in page.items():
            if row is None:
                corrupt.add(name)
            else:
                rows[name] = row
    return rows, corrupt


def _planner(snapshot: _LiveSnapshot, settings: Settings, options: Options) -> Planner:
    planner = Planner(snapshot, load_factor=settings.load_factor, vnodes=settings.vnodes, options=options)
    planner.nodes_changed()
    return planner
