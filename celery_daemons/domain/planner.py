"""From what is wanted and what is, to what to do: pure, and only about the daemons that changed."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.placement import Demand, NodeLoads
from celery_daemons.domain.rebalance import Move, rebalance
from celery_daemons.domain.reconcile import Step, next_step
from celery_daemons.domain.records import BookRow, Needs, NodeRow, SpecRow, needs_by_launcher
from celery_daemons.domain.states import DaemonStatus, NodeStatus


class Snapshot(Protocol):
    """What is known of the cluster: specs, entries and nodes. The planner reads it and never changes it."""

    @property
    def specs(self) -> Mapping[DaemonName, SpecRow]:
        """Return what should run."""

    @property
    def book(self) -> Mapping[DaemonName, BookRow]:
        """Return the entries of the address book."""

    @property
    def nodes(self) -> Mapping[NodeName, NodeRow]:
        """Return the registered nodes."""

    @property
    def corrupt(self) -> AbstractSet[DaemonName]:
        """Return the daemons with a record that cannot be read."""


@dataclass(slots=True)
class Plan:
    """What to do next: ``(name, why)`` lists by node, what finds no node, and which nodes have to be swept."""

    assign: dict[NodeName, list[tuple[DaemonName, str]]] = field(default_factory=dict)
    recall: dict[NodeName, list[tuple[DaemonName, str]]] = field(default_factory=dict)
    park: list[tuple[DaemonName, str]] = field(default_factory=list)
    sweep: set[NodeName] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.assign or self.recall or self.park or self.sweep)


class Planner:
    """Keeps count of what each node holds, so that a plan costs as much as what changed."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        load_factor: float,
        vnodes: int,
        options: Callable[[LauncherName], LauncherOptions | None],
    ) -> None:
        self._snapshot = snapshot
        self._load_factor = load_factor
        self._vnodes = vnodes
        self._options = options
        self._counted: dict[DaemonName, tuple[NodeName, float]] = {}
        #: By launcher: what its daemons count for, and the nodes on which they may stay.
        self._weights: dict[LauncherName, float] = {}
        self._keepers: dict[LauncherName, frozenset[NodeName]] = {}
        self._cluster = self._new_cluster()
        self._needs: dict[LauncherName, Needs] = {}
        #: Moves under way: where each daemon shall start once its node has released it.
        self.moving: dict[DaemonName, Move] = {}

    def nodes_changed(self) -> None:
        """Draw the ring anew, and count again."""
        self._cluster = self._new_cluster()
        # In a deploy, a monitor of older code leads nodes with launchers that it does not have: they say what it takes.
        self._needs = needs_by_launcher(self._snapshot.nodes)
        self._keepers.clear()
        self._weights.clear()
        self._counted = {
            name: (row.node, self._weight(row.launcher))
            for name, row in self._snapshot.book.items()
            if row.node is not None
        }
        for node, weight in self._counted.values():
            self._cluster.add(node, weight)

    def count(self, name: DaemonName) -> None:
        """Bring the count of a daemon in line with the book."""
        self._uncount(name)
        row = self._snapshot.book.get(name)
        if row is not None and row.node is not None:
            weight = self._weight(row.launcher)
            self._counted[name] = (row.node, weight)
            self._cluster.add(row.node, weight)

    def _uncount(self, name: DaemonName) -> None:
        before = self._counted.pop(name, None)
        if before is not None:
            self._cluster.remove(*before)

    def needing_action(self) -> set[DaemonName]:
        """Every daemon that is not as it should be: for a look at everything, after nodes have changed."""
        snapshot = self._snapshot
        names = {
            name for name, row in snapshot.book.items() if self._step(snapshot.specs.get(name), row)[0] is not Step.REST
        }
        names.update(name for name in snapshot.specs if name not in snapshot.book)
        return names

    def plan(self, names: Iterable[DaemonName]) -> Plan:
        """What to do about these daemons."""
        snapshot, plan = self._snapshot, Plan()
        demands: list[Demand] = []
        for name in names:
            if name in snapshot.corrupt:
                continue
            spec, row = snapshot.specs.get(name), snapshot.book.get(name)
            step, why = self._step(spec, row)
            if step is Step.PLACE and spec is not None:
                self._uncount(name)
                demands.append(self._wish(name, spec, row))
            elif step is Step.RECALL and row is not None and row.node is not None:
                plan.recall.setdefault(row.node, []).append((name, why))
            elif step is Step.SWEEP and row is not None and row.node is not None:
                plan.sweep.add(row.node)
        demands.sort(key=lambda demand: demand.name)
        for demand, node, why in self._cluster.place(demands):
            if node is None:
                plan.park.append((demand.name, why))
            else:
                # Counted here by place() already; the next look at its entry counts it anew.
                self._counted[demand.name] = (node, demand.weight)
                plan.assign.setdefault(node, []).append((demand.name, why))
        return plan

    def moves(self, *, even: bool) -> list[Move]:
        """What to move so that the nodes hold about their shares: only daemons that run, and are as they should be."""
        return rebalance(self._cluster, self._movable(), even=even)

    def stranded(self, node: NodeName) -> set[str]:
        """The daemons on a node that no other one can take."""
        book, specs = self._snapshot.book, self._snapshot.specs
        held = [name for name, row in book.items() if row.node == node and name in specs]
        return {
            str(name) for name in held if not self._cluster.fitting(self._demand(name, specs[name].launcher)) - {node}
        }

    def _movable(self) -> Iterable[tuple[NodeName, Demand]]:
        for name, row in self._snapshot.book.items():
            spec = self._snapshot.specs.get(name)
            if (
                row.node is not None
                and row.status is DaemonStatus.RUNNING
                and spec is not None
                and name not in self._snapshot.corrupt
                and name not in self.moving
                and self._step(spec, row)[0] is Step.REST
            ):
                yield row.node, self._demand(name, spec.launcher)

    def _step(self, spec: SpecRow | None, row: BookRow | None) -> tuple[Step, str]:
        keeps, others = True, False
        if row is not None and row.node is not None and spec is not None:
            fitting = self._fitting(spec.launcher)
            # It stays where it no longer fits as long as no other node fits.
            keeps = row.node in fitting or not fitting
            others = len(fitting) > 1
        return next_step(spec, row, self._snapshot.nodes, fits=keeps, others_fit=others)

    def _fitting(self, launcher: LauncherName) -> frozenset[NodeName]:
        """The nodes that may have daemons of a launcher."""
        fitting = self._keepers.get(launcher)
        if fitting is None:
            fitting = self._keepers[launcher] = self._cluster.fitting(self._demand(DaemonName(""), launcher))
        return fitting

    def _weight(self, launcher: LauncherName) -> float:
        weight = self._weights.get(launcher)
        if weight is None:
            _, weight = self._needs_of(launcher)
            self._weights[launcher] = weight
        return weight

    def _wish(self, name: DaemonName, spec: SpecRow, row: BookRow | None) -> Demand:
        """What a daemon asks that is to be placed: with where it shall go, or not, if somebody has said so."""
        avoid = row.avoid if row is not None else None
        fresh = row is None or row.version != spec.version
        if fresh and (spec.target or spec.avoid):
            return self._demand(name, spec.launcher, target=spec.target, why="moved here", avoid=spec.avoid or avoid)
        move = self.moving.get(name)
        if move is not None:
            return self._demand(name, spec.launcher, target=move.target, why=f"rebalanced: {move.why}", avoid=avoid)
        return self._demand(name, spec.launcher, avoid=avoid)

    def _demand(
        self,
        name: DaemonName,
        launcher: LauncherName,
        *,
        target: NodeName | None = None,
        why: str = "",
        avoid: NodeName | None = None,
    ) -> Demand:
        labels, weight = self._needs_of(launcher)
        return Demand(name=name, launcher=launcher, labels=labels, weight=weight, target=target, why=why, avoid=avoid)

    def _needs_of(self, launcher: LauncherName) -> Needs:
        options = self._options(launcher)
        return (options.labels, options.weight) if options is not None else self._needs.get(launcher, ((), 1.0))

    def _new_cluster(self) -> NodeLoads:
        return NodeLoads(
            nodes={name: row for name, row in self._snapshot.nodes.items() if row.status is not NodeStatus.LOST},
            load_factor=self._load_factor,
            vnodes=self._vnodes,
        )
