"""Plan what to do about daemons from what is wanted and what is: pure, and at a cost of what changed."""

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
    """Everything known of the cluster: specs, book entries and nodes. The planner only reads a snapshot."""

    @property
    def specs(self) -> Mapping[DaemonName, SpecRow]:
        """Return the specs: which daemons should run."""

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
    """What to do next: ``(name, why)`` lists by node, daemons that fit no node, and nodes to sweep."""

    assign: dict[NodeName, list[tuple[DaemonName, str]]] = field(default_factory=dict)
    recall: dict[NodeName, list[tuple[DaemonName, str]]] = field(default_factory=dict)
    park: list[tuple[DaemonName, str]] = field(default_factory=list)
    sweep: set[NodeName] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.assign or self.recall or self.park or self.sweep)


class Planner:
    """Plan for daemons that changed. A running count of what each node holds keeps a plan independent of the others."""

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
        #: Where each daemon is counted, and with which weight.
        self._counted: dict[DaemonName, tuple[NodeName, float]] = {}
        #: By launcher, until nodes change: the weight of a daemon, and the nodes on which a daemon may be.
        self._weights: dict[LauncherName, float] = {}
        self._fitting_nodes: dict[LauncherName, frozenset[NodeName]] = {}
        #: The labels and weights of launchers, as nodes report them.
        self._reported_needs: dict[LauncherName, Needs] = {}
        self._loads = self._no_loads()

    def nodes_changed(self) -> None:
        """Build the ring again and count all daemons."""
        self._loads = self._no_loads()
        # During a deploy, a monitor with older code leads nodes with launchers that it lacks: nodes report their needs.
        self._reported_needs = needs_by_launcher(self._snapshot.nodes)
        self._fitting_nodes.clear()
        self._weights.clear()
        self._counted = {
            name: (row.node, self._weight(row.launcher))
            for name, row in self._snapshot.book.items()
            if row.node is not None
        }
        for node, weight in self._counted.values():
            self._loads.add(node, weight)

    def recount(self, name: DaemonName) -> None:
        """Count a daemon on the node that the book names."""
        self._uncount(name)
        row = self._snapshot.book.get(name)
        if row is not None and row.node is not None:
            weight = self._weight(row.launcher)
            self._counted[name] = (row.node, weight)
            self._loads.add(row.node, weight)

    def _uncount(self, name: DaemonName) -> None:
        counted = self._counted.pop(name, None)
        if counted is not None:
            self._loads.remove(*counted)

    def needing_action(self) -> set[DaemonName]:
        """Return every daemon that is not as wanted; visits all daemons."""
        snapshot = self._snapshot
        names = {
            name for name, row in snapshot.book.items() if self._step(snapshot.specs.get(name), row)[0] is not Step.REST
        }
        names.update(name for name in snapshot.specs if name not in snapshot.book)
        return names

    def plan(self, names: Iterable[DaemonName], *, moving: Mapping[DaemonName, Move]) -> Plan:
        """Return what to do about these daemons; ``moving`` says where a daemon that is being rebalanced goes."""
        snapshot, plan = self._snapshot, Plan()
        demands: list[Demand] = []
        for name in names:
            if name in snapshot.corrupt:
                continue
            spec, row = snapshot.specs.get(name), snapshot.book.get(name)
            step, why = self._step(spec, row)
            if step is Step.PLACE and spec is not None:
                self._uncount(name)
                demands.append(self._placement(name, spec, row, moving.get(name)))
            elif step is Step.RECALL and row is not None and row.node is not None:
                plan.recall.setdefault(row.node, []).append((name, why))
            elif step is Step.SWEEP and row is not None and row.node is not None:
                plan.sweep.add(row.node)
        demands.sort(key=lambda demand: demand.name)
        for demand, node, why in self._loads.place(demands):
            if node is None:
                plan.park.append((demand.name, why))
            else:
                # place() has added the weight already. The next change of the daemon's entry counts it again.
                self._counted[demand.name] = (node, demand.weight)
                plan.assign.setdefault(node, []).append((demand.name, why))
        return plan

    def moves(self, *, even: bool, moving: Mapping[DaemonName, Move]) -> list[Move]:
        """Return the moves that balance the nodes; see :func:`rebalance` for ``even``.

        Only daemons that run, are as wanted and are not ``moving`` already are moved.
        """
        return rebalance(self._loads, self._movable(moving), even=even)

    def stranded(self, node: NodeName) -> set[str]:
        """Return the daemons on a node that no other node can take."""
        book, specs = self._snapshot.book, self._snapshot.specs
        held = [name for name, row in book.items() if row.node == node and name in specs]
        return {
            str(name) for name in held if not self._loads.fitting(self._demand(name, specs[name].launcher)) - {node}
        }

    def _movable(self, moving: Mapping[DaemonName, Move]) -> Iterable[tuple[NodeName, Demand]]:
        for name, row in self._snapshot.book.items():
            spec = self._snapshot.specs.get(name)
            if (
                row.node is not None
                and row.status is DaemonStatus.RUNNING
                and spec is not None
                and name not in self._snapshot.corrupt
                and name not in moving
                and self._step(spec, row)[0] is Step.REST
            ):
                yield row.node, self._demand(name, spec.launcher)

    def _step(self, spec: SpecRow | None, row: BookRow | None) -> tuple[Step, str]:
        fits, others_fit = True, False
        if row is not None and row.node is not None and spec is not None:
            fitting = self._fitting(spec.launcher)
            # A daemon stays on a node that no longer fits as long as no other node does.
            is_fitting = row.node in fitting
            fits = is_fitting or not fitting or self._stays(row.node, spec.launcher)
            others_fit = len(fitting) > is_fitting
        return next_step(spec, row, self._snapshot.nodes, fits=fits, others_fit=others_fit)

    def _stays(self, node: NodeName, launcher: LauncherName) -> bool:
        """Return whether a daemon stays on a node that can start no other daemons."""
        return self._loads.keeps(node, self._demand(DaemonName(""), launcher))

    def _fitting(self, launcher: LauncherName) -> frozenset[NodeName]:
        """Return the nodes on which daemons of a launcher may be."""
        fitting = self._fitting_nodes.get(launcher)
        if fitting is None:
            fitting = self._loads.fitting(self._demand(DaemonName(""), launcher))
            self._fitting_nodes[launcher] = fitting
        return fitting

    def _weight(self, launcher: LauncherName) -> float:
        weight = self._weights.get(launcher)
        if weight is None:
            _, weight = self._needs(launcher)
            self._weights[launcher] = weight
        return weight

    def _placement(self, name: DaemonName, spec: SpecRow, row: BookRow | None, move: Move | None) -> Demand:
        """Return the demand of a daemon to place: an operator's choice of node comes first, then the rebalancer's."""
        avoid = row.avoid if row is not None else None
        is_new_version = row is None or row.version != spec.version
        if is_new_version and (spec.target or spec.avoid):
            return self._demand(name, spec.launcher, target=spec.target, why="moved here", avoid=spec.avoid or avoid)
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
        labels, weight = self._needs(launcher)
        return Demand(name=name, launcher=launcher, labels=labels, weight=weight, target=target, why=why, avoid=avoid)

    def _needs(self, launcher: LauncherName) -> Needs:
        options = self._options(launcher)
        return (
            (options.labels, options.weight) if options is not None else self._reported_needs.get(launcher, ((), 1.0))
        )

    def _no_loads(self) -> NodeLoads:
        return NodeLoads(
            nodes={name: row for name, row in self._snapshot.nodes.items() if row.status is not NodeStatus.LOST},
            load_factor=self._load_factor,
            vnodes=self._vnodes,
        )
