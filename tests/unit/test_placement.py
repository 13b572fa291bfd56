"""Placement: fitting nodes, bounded loads, and the same result every time."""

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName
from celery_daemons.domain.placement import Demand, NodeLoads
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus

LAUNCHERS = ("tail", "poll", "watch")
LABELS = ("eu", "gpu", "big")


def node(
    *, weight: float = 1.0, labels: str = "", launchers: str = "tail", status: NodeStatus = NodeStatus.UP
) -> NodeRow:
    return NodeRow(
        incarnation=Incarnation("i"),
        status=status,
        queue="q",
        spawn_queue="s",
        host="h",
        pid=1,
        weight=weight,
        labels=labels,
        launchers=launchers,
    )


def make_cluster(load_factor: float = 1.25, /, **nodes: NodeRow) -> NodeLoads:
    return NodeLoads(nodes={NodeName(name): row for name, row in nodes.items()}, load_factor=load_factor, vnodes=40)


def demand(name: str, launcher: str = "tail", labels: tuple[str, ...] = (), weight: float = 1.0) -> Demand:
    return Demand(name=DaemonName(name), launcher=LauncherName(launcher), labels=labels, weight=weight)


def demands(count: int, first: int = 0) -> list[Demand]:
    return [demand(f"tail.web-{number}") for number in range(first, first + count)]


def joined(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sets(st.sampled_from(names)).map(lambda chosen: ",".join(sorted(chosen)))


rows = st.builds(
    node,
    weight=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    labels=joined(LABELS),
    launchers=joined(LAUNCHERS),
    status=st.sampled_from([NodeStatus.UP, NodeStatus.UP, NodeStatus.DRAINING]),
)
node_sets = st.dictionaries(st.sampled_from([NodeName(f"n{i}") for i in range(8)]), rows, max_size=8)
demand_lists = st.lists(
    st.builds(
        demand,
        name=st.integers(0, 10_000).map(str),
        launcher=st.sampled_from(LAUNCHERS),
        labels=st.sets(st.sampled_from(LABELS), max_size=2).map(tuple),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
    ),
    max_size=40,
    unique_by=lambda asked: asked.name,
)
factors = st.sampled_from([1.0, 1.1, 1.25, 2.0])


@given(node_sets, demand_lists, factors)
def test_a_daemon_is_placed_only_on_a_fitting_node(
    nodes: dict[NodeName, NodeRow], wanted: list[Demand], factor: float
) -> None:
    placed = NodeLoads(nodes=nodes, load_factor=factor, vnodes=40).place(wanted)

    assert [asked for asked, _, _ in placed] == wanted
    for asked, where, why in placed:
        fitting = [
            name
            for name, row in nodes.items()
            if row.status is NodeStatus.UP
            and asked.launcher in row.launchers.split(",")
            and set(asked.labels) <= set(row.labels.split(","))
        ]
        assert why
        assert (where in fitting) if fitting else where is None


@given(node_sets, demand_lists, factors)
def test_placement_is_deterministic(nodes: dict[NodeName, NodeRow], wanted: list[Demand], factor: float) -> None:
    backwards = dict(reversed(nodes.items()))

    first = NodeLoads(nodes=nodes, load_factor=factor, vnodes=40).place(wanted)

    assert NodeLoads(nodes=backwards, load_factor=factor, vnodes=40).place(wanted) == first


@given(node_sets, demand_lists, factors)
def test_loads_are_the_sums_of_placed_weights(
    nodes: dict[NodeName, NodeRow], wanted: list[Demand], factor: float
) -> None:
    cluster = NodeLoads(nodes=nodes, load_factor=factor, vnodes=40)

    placed = cluster.place(wanted)

    sums: Counter[NodeName] = Counter()
    for asked, where, _ in placed:
        if where is not None:
            sums[where] += asked.weight  # type: ignore[assignment]
    assert {name: load for name, load in cluster.loads.items() if load} == dict(sums)
    assert cluster.total == sum(sums.values())


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=8),
    count=st.integers(0, 200),
    factor=factors,
)
def test_no_node_holds_more_than_the_load_factor_times_its_fair_share(
    weights: list[float], count: int, factor: float
) -> None:
    cluster = make_cluster(factor, **{f"n{i}": node(weight=weight) for i, weight in enumerate(weights)})

    cluster.place(demands(count))

    for number, weight in enumerate(weights):
        most = math.ceil(factor * count * weight / sum(weights))
        assert cluster.loads.get(NodeName(f"n{number}"), 0) <= most


@given(lost=st.integers(0, 4), count=st.integers(1, 100))
@settings(max_examples=50)
def test_a_lost_node_moves_exactly_its_own_daemons(lost: int, count: int) -> None:
    """Only the daemons of the lost node are placed again, and no node exceeds its bound."""
    nodes = {f"n{i}": node() for i in range(5)}
    before = make_cluster(1.25, **nodes)
    where = {asked.name: home for asked, home, _ in before.place(demands(count))}
    gone = nodes.pop(f"n{lost}")
    assert gone is not None

    after = make_cluster(1.25, **nodes)
    for home in where.values():
        if home is not None and home != f"n{lost}":
            after.add(home, 1.0)
    moved = after.place([asked for asked in demands(count) if where[asked.name] == f"n{lost}"])

    assert all(home in nodes for _, home, _ in moved)
    assert max(after.loads.values()) <= math.ceil(1.25 * count / 4)
    assert sum(after.loads.values()) == count


def test_daemons_of_other_nodes_keep_their_choice_within_bounds() -> None:
    wanted = demands(300)
    four = make_cluster(100.0, a=node(), b=node(), c=node(), d=node())
    three = make_cluster(100.0, a=node(), b=node(), d=node())

    before = {asked.name: home for asked, home, _ in four.place(wanted)}
    after = {asked.name: home for asked, home, _ in three.place(wanted)}

    for name, home in before.items():
        assert home == "c" or after[name] == home


def test_the_first_choice_of_the_ring_is_taken_while_there_is_room() -> None:
    cluster = make_cluster(100.0, a=node(), b=node(), c=node())

    for asked, home, why in cluster.place(demands(50)):
        assert home == next(cluster.ring.preference(asked.name))
        assert why == "preferred by the ring"


@given(few=st.sets(st.integers(0, 19), min_size=1))
def test_a_few_fitting_nodes_come_in_ring_order(few: set[int]) -> None:
    cluster = make_cluster(**{f"n{number}": node() for number in range(20)})
    names = {NodeName(f"n{number}") for number in few}

    for asked in demands(20):
        narrowed = list(cluster.ring.narrowed(names).preference(asked.name))
        assert narrowed == [name for name in cluster.ring.preference(asked.name) if name in names]


def test_a_full_node_is_passed_over_for_the_next_choice() -> None:
    cluster = make_cluster(1.0, a=node(), b=node())

    reasons = Counter(why for _, _, why in cluster.place(demands(100)))

    assert cluster.loads == {"a": 50.0, "b": 50.0}
    assert set(reasons) == {"preferred by the ring", "choice 2 of the ring"}


def test_the_only_fitting_node_takes_daemons_above_the_bound() -> None:
    """Only one of three nodes carries the label, so that node takes all daemons that require the label."""
    cluster = make_cluster(a=node(labels="gpu"), b=node(), c=node())

    placed = cluster.place([demand(f"x{i}", labels=("gpu",)) for i in range(9)])

    assert {home for _, home, _ in placed} == {"a"}
    assert "all that fit are above the load factor: the least loaded" in {why for *_, why in placed}


def test_above_the_bound_the_node_least_loaded_for_its_weight_is_chosen() -> None:
    cluster = make_cluster(1.0, a=node(labels="gpu", weight=2.0), b=node(labels="gpu"), c=node(weight=50.0))

    placed = cluster.place([demand(f"x{i}", labels=("gpu",)) for i in range(30)])

    homes = Counter(home for _, home, _ in placed)
    assert homes == {"a": 20, "b": 10}


def test_the_reason_says_what_is_missing_without_a_fitting_node() -> None:
    gpu = demand("x", labels=("gpu", "eu"))

    assert make_cluster().choose(gpu) == (None, "no node is up")
    assert make_cluster(a=node(status=NodeStatus.DRAINING)).choose(gpu) == (None, "every node is draining")
    assert make_cluster(a=node(launchers="poll")).choose(gpu) == (
        None,
        "no node that is up has registered launcher tail",
    )
    assert make_cluster(a=node(labels="gpu"), b=node(launchers="poll", labels="eu,gpu")).choose(gpu) == (
        None,
        "no node that is up and has launcher tail carries the labels eu,gpu",
    )


def test_a_daemon_that_cannot_be_placed_does_not_change_the_loads() -> None:
    cluster = make_cluster(a=node())

    cluster.place([demand("x", labels=("gpu",)), demand("y")])

    assert cluster.total == 1.0
    assert cluster.loads == {"a": 1.0}


def test_a_draining_node_takes_no_daemons() -> None:
    cluster = make_cluster(a=node(status=NodeStatus.DRAINING), b=node())

    assert {home for _, home, _ in cluster.place(demands(20))} == {"b"}


def test_removing_a_daemon_makes_room() -> None:
    cluster = make_cluster(1.0, a=node(), b=node())
    cluster.place(demands(10))

    cluster.remove(NodeName("a"), 1.0)

    assert cluster.loads[NodeName("a")] == 4.0
    assert cluster.total == 9.0
    assert cluster.place(demands(1, first=10))[0][1] == "a"


def test_daemons_count_by_their_weight() -> None:
    cluster = make_cluster(1.0, a=node(), b=node())

    cluster.place([demand("heavy", weight=10.0), *demands(10)])

    assert sorted(cluster.loads.values()) == [10.0, 10.0]
