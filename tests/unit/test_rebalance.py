"""Which daemons are moved for the sake of balance: as few as possible, each for a reason, and only once."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.placement import Demand, NodeLoads, at_least, at_most
from celery_daemons.domain.rebalance import Move, rebalance
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from tests.unit.test_placement import demand, demand_lists, demands, factors, node, node_sets

Placement = dict[DaemonName, tuple[NodeName, Demand]]


def cluster_of(nodes: dict[NodeName, NodeRow], where: Placement, *, factor: float = 1.25) -> NodeLoads:
    """Return the loads of a cluster with this placement."""
    cluster = NodeLoads(nodes=nodes, load_factor=factor, vnodes=40)
    for home, asked in where.values():
        cluster.add(home, asked.weight)
    return cluster


def placed(nodes: dict[NodeName, NodeRow], wanted: list[Demand], *, factor: float = 1.25) -> Placement:
    """Return where daemons are placed in an empty cluster."""
    found = NodeLoads(nodes=nodes, load_factor=factor, vnodes=40).place(wanted)
    return {asked.name: (home, asked) for asked, home, _ in found if home is not None}


def planned(
    nodes: dict[NodeName, NodeRow], where: Placement, *, even: bool = False, factor: float = 1.25
) -> list[Move]:
    """Return the moves for a cluster with this placement."""
    return rebalance(cluster_of(nodes, where, factor=factor), where.values(), even=even)


def applied(where: Placement, moves: list[Move]) -> Placement:
    """Return where daemons are after the moves."""
    return where | {move.name: (move.target, where[move.name][1]) for move in moves}


def rebalanced(nodes: dict[NodeName, NodeRow], size: int) -> Placement:
    """Return a placement with nothing left to move: with few daemons, the ring alone may starve a node."""
    where = placed(nodes, demands(size))
    return applied(where, planned(nodes, where))


def up(count: int) -> dict[NodeName, NodeRow]:
    """Return equal nodes that are up."""
    return {NodeName(f"n{number}"): node() for number in range(count)}


def loads(where: Placement) -> Counter[NodeName]:
    """Return how many daemons each node holds."""
    return Counter(home for home, _ in where.values())


@given(nodes=node_sets, wanted=demand_lists, homes=st.data(), factor=factors, even=st.booleans())
@settings(max_examples=300)
def test_a_second_plan_after_the_first_moves_nothing(
    nodes: dict[NodeName, NodeRow], wanted: list[Demand], homes: st.DataObject, factor: float, even: bool
) -> None:
    """Any placement, and any launchers, labels and weights."""
    if not nodes:
        return
    choice = st.sampled_from(sorted(nodes))
    where: Placement = {asked.name: (homes.draw(choice), asked) for asked in wanted}

    moves = planned(nodes, where, even=even, factor=factor)

    assert planned(nodes, applied(where, moves), even=even, factor=factor) == []


@given(nodes=node_sets, wanted=demand_lists, homes=st.data(), even=st.booleans())
def test_a_daemon_only_moves_to_a_node_that_fits_and_for_a_reason(
    nodes: dict[NodeName, NodeRow], wanted: list[Demand], homes: st.DataObject, even: bool
) -> None:
    if not nodes:
        return
    choice = st.sampled_from(sorted(nodes))
    where: Placement = {asked.name: (homes.draw(choice), asked) for asked in wanted}

    for move in planned(nodes, where, even=even):
        home, asked = where[move.name]
        row = nodes[move.target]
        assert move.source == home != move.target
        assert row.status is NodeStatus.UP
        assert asked.launcher in row.launcher_set
        assert row.label_set.issuperset(asked.labels)
        assert move.why
        assert "holds" not in move.why or move.target in move.why or move.source in move.why


@given(count=st.integers(1, 12), size=st.integers(0, 300))
@settings(max_examples=300)
def test_a_joined_node_attracts_at_most_its_fair_share_and_nothing_moves_between_the_others(
    count: int, size: int
) -> None:
    where = rebalanced(up(count), size)
    more = up(count + 1)
    new = NodeName(f"n{count}")

    moves = planned(more, where)

    assert {move.target for move in moves} <= {new}
    assert len(moves) <= at_most(size / (count + 1))
    after = loads(applied(where, moves))
    assert after[new] >= at_least(0.9 * size / (count + 1)) or not moves
    # A node may always hold two daemons above its fair share.
    fair = size / (count + 1)
    assert max(after.values(), default=0) <= max(at_most(1.25 * fair), at_most(fair) + 2)


@given(count=st.integers(2, 12), size=st.integers(0, 300), lost=st.integers(0, 11))
@settings(max_examples=300)
def test_daemons_of_a_lost_node_are_placed_within_the_bounds_of_the_others(count: int, size: int, lost: int) -> None:
    nodes, gone = up(count), NodeName(f"n{lost % count}")
    where = placed(nodes, demands(size))
    del nodes[gone]
    stay = {name: place for name, place in where.items() if place[0] != gone}

    rest = cluster_of(nodes, stay)
    replaced = rest.place([asked for home, asked in where.values() if home == gone])

    after = stay | {asked.name: (home, asked) for asked, home, _ in replaced if home is not None}
    assert len(after) == size
    assert max(loads(after).values(), default=0) <= max(loads(stay).values(), default=0) or max(
        loads(after).values()
    ) <= at_most(1.25 * size / (count - 1))
    assert {move.source for move in planned(nodes, after)} <= {home for home, _ in stay.values()}


@given(count=st.integers(2, 12), size=st.integers(0, 400), seed=st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_requested_rebalance_brings_every_node_within_a_tenth_of_its_fair_share(
    count: int, size: int, seed: object
) -> None:
    nodes = up(count)
    names = sorted(nodes)
    where: Placement = {asked.name: (seed.choice(names), asked) for asked in demands(size)}  # type: ignore[attr-defined]

    after = loads(applied(where, planned(nodes, where, even=True)))

    fair = size / count
    assert all(at_least(0.9 * fair) <= after[name] <= at_most(1.1 * fair) for name in names)


def test_no_node_gets_more_than_four_of_thirty_daemons_on_ten_nodes() -> None:
    assert max(loads(placed(up(10), demands(30))).values()) <= 4


def test_a_thousand_daemons_on_ten_nodes_are_within_the_load_factor_and_after_a_rebalance_within_a_tenth() -> None:
    nodes = up(10)
    where = placed(nodes, demands(1000))

    after = applied(where, planned(nodes, where, even=True))

    assert max(loads(where).values()) <= 125
    assert planned(nodes, where) == []
    assert max(loads(after).values()) <= 110


def test_node_weights_set_the_fair_shares() -> None:
    nodes = {NodeName("big"): node(weight=3.0), NodeName("small"): node()}
    where: Placement = {asked.name: (NodeName("small"), asked) for asked in demands(100)}

    after = loads(applied(where, planned(nodes, where, even=True)))

    assert 67 <= after[NodeName("big")] <= 83


def test_daemons_whose_ring_prefers_the_new_node_move_first() -> None:
    where = placed(up(3), demands(300))
    nodes = up(4)
    ring = cluster_of(nodes, where).ring

    moves = planned(nodes, where)

    preferring = {name for name in where if ring.first(name) == "n3"}
    chosen = {move.name for move in moves}
    assert preferring
    assert len(chosen & preferring) >= min(len(preferring), len(chosen)) * 0.6
    assert {move.name for move in moves if "the ring prefers it" in move.why} == chosen & preferring


def test_draining_nodes_are_neither_filled_nor_relieved() -> None:
    nodes = up(2) | {NodeName("leaving"): node(status=NodeStatus.DRAINING)}
    where: Placement = {asked.name: (NodeName("leaving"), asked) for asked in demands(50)}

    assert planned(nodes, where, even=True) == []


def test_a_rolling_restart_of_all_nodes_moves_each_daemon_about_once() -> None:
    """Attacks: after a rolling deploy one old node holds all (orleans #4925), and all moves again (akka #27179)."""
    for count, size, most in ((4, 200, 1.5), (10, 1000, 1.3)):
        nodes = up(count)
        where, moved = placed(nodes, demands(size)), 0
        for name in sorted(nodes):
            nodes[name] = node(status=NodeStatus.DRAINING)
            leaving = [asked for home, asked in where.values() if home == name]
            rest = cluster_of(nodes, {one: place for one, place in where.items() if place[0] != name})
            replaced = rest.place(leaving)
            where |= {asked.name: (home, asked) for asked, home, _ in replaced if home is not None}
            moved += len(leaving)
            nodes[name] = node()
        moves = planned(nodes, where)
        after = loads(applied(where, moves))

        assert (moved + len(moves)) / size <= most
        assert len(after) == count
        assert max(after.values()) <= at_most(1.25 * size / count)
        assert min(after.values()) >= at_least(0.5 * size / count)


def test_a_heavy_daemon_is_not_moved_to_a_node_that_it_would_load_more() -> None:
    nodes = up(2)
    where: Placement = {DaemonName("heavy"): (NodeName("n0"), demand("heavy", weight=10.0))}

    assert planned(nodes, where, even=True) == []


@given(count=st.integers(2, 8), size=st.integers(2, 20), homes=st.data(), even=st.booleans())
@settings(max_examples=300)
def test_a_node_without_a_daemon_is_short_while_another_holds_two(
    count: int, size: int, homes: st.DataObject, even: bool
) -> None:
    """A requested rebalance called four daemons on three of four nodes even."""
    nodes = up(count)
    where: Placement = {asked.name: (homes.draw(st.sampled_from(sorted(nodes))), asked) for asked in demands(size)}

    after = loads(applied(where, planned(nodes, where, even=even)))

    held = [after[name] for name in nodes]
    assert min(held) > 0 or max(held) <= 1


def test_a_node_that_no_daemon_fits_stays_empty() -> None:
    nodes = up(2) | {NodeName("other"): node(launchers="poll")}
    where: Placement = {asked.name: (NodeName("n0"), asked) for asked in demands(2)}

    assert [move.target for move in planned(nodes, where)] == ["n1"]
