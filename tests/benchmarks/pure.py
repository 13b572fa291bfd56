"""The planner alone, without Redis, broker or other processes."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Plan, Planner
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from tests.benchmarks.rows import Row, spread

DAEMONS = 10_000
NODES = 100
ROUNDS = 5
_LAUNCHER = LauncherName("rest")


def planner() -> Iterator[Row]:
    """Place ten thousand daemons on a hundred nodes, first all of them, then those of one lost node."""
    first, lost = [], []
    for _ in range(ROUNDS):
        copy = _copy()
        plans = Planner(copy, load_factor=1.25, vnodes=40, options=lambda _name: LauncherOptions())
        first.append(_timed(plans, copy))
        victim = next(iter(copy.nodes))
        del copy.nodes[victim]
        for name, row in copy.book.items():
            if row.node == victim:
                copy.book[name] = BookRow(status=DaemonStatus.PENDING, token=row.token, launcher=_LAUNCHER)
        lost.append(_timed(plans, copy))
    what = f"planner: {DAEMONS:,} daemons on {NODES} nodes"
    yield spread(f"{what}, from nothing", first, "s", 0.3)
    yield spread(f"{what}, after one is lost", lost, "s", 0.05)


def _timed(plans: Planner, copy: Any) -> float:
    began = time.perf_counter()
    plans.nodes_changed()
    plan = plans.plan(plans.needing_action(), moving={})
    taken = time.perf_counter() - began
    _carry_out(plan, copy)
    return taken


def _carry_out(plan: Plan, copy: Any) -> None:
    for node, items in plan.assign.items():
        for item in items:
            copy.book[item[0]] = BookRow(
                status=DaemonStatus.RUNNING,
                token=Token(1),
                launcher=_LAUNCHER,
                node=node,
                incarnation=Incarnation("one"),
                version="1",
            )


def _copy() -> Any:
    """Return a snapshot of a cluster in which nothing runs yet."""
    spec = SpecRow(launcher=_LAUNCHER, arguments="[[],{}]", desired=Desired.RUNNING, version="1")
    node = NodeRow(
        incarnation=Incarnation("one"),
        status=NodeStatus.UP,
        queue="q",
        spawn_queue="s",
        host="h",
        pid=1,
        weight=1.0,
        labels="",
        launchers=_LAUNCHER,
    )
    return SimpleNamespace(
        specs={DaemonName(f"rest.{number}"): spec for number in range(DAEMONS)},
        book={},
        nodes={NodeName(f"w{number}@test"): node for number in range(NODES)},
        corrupt=set(),
    )
