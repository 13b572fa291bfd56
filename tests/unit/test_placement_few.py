"""Placement with few daemons, and beside nodes that cannot start processes."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_daemons.domain.names import NodeName
from tests.unit.test_placement import demand, demands, make_cluster, node


def test_a_node_that_cannot_start_processes_is_given_nothing() -> None:
    """Attacks invariant 2: what is placed there does not run."""
    broken = replace(node(), problem="no process can be forked")
    cluster = make_cluster(a=broken, b=node())

    assert {home for _, home, _ in cluster.place(demands(20))} == {"b"}


def test_what_stays_on_a_node_that_cannot_start_processes_is_no_part_of_the_shares_of_others() -> None:
    cluster = make_cluster(a=replace(node(), problem="no process can be forked"), b=node(), c=node())
    for home in ("a", "b", "c"):
        cluster.add(NodeName(home), 10.0)

    assert cluster.fair(NodeName("b")) == 10.0
    cluster.remove(NodeName("a"), 10.0)
    assert cluster.fair(NodeName("b")) == 10.0


def test_without_another_node_the_reason_names_the_problem_of_the_one_that_fits() -> None:
    cluster = make_cluster(a=replace(node(), problem="no process can be forked"), b=node(launchers="poll"))

    assert cluster.choose(demand("x")) == (
        None,
        "no node that fits can start processes; a: no process can be forked",
    )


@given(count=st.integers(1, 12), weights=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=300)
def test_with_as_many_daemons_as_nodes_no_node_stays_empty(count: int, weights: bool, seed: int) -> None:
    """Two of two were on one node in half of all cases, and four of four left a node empty in nine of ten."""
    cluster = make_cluster(**{f"n{n}": node(weight=1.0 + n % 3 if weights else 1.0) for n in range(count)})

    cluster.place([demand(f"feed.{seed}.{number}") for number in range(count)])

    assert set(cluster.loads.values()) == {1.0}


@given(count=st.integers(1, 12), size=st.integers(0, 40), seed=st.integers(0, 1000))
def test_daemons_that_come_one_by_one_leave_no_node_empty_either(count: int, size: int, seed: int) -> None:
    cluster = make_cluster(**{f"n{number}": node() for number in range(count)})

    for number in range(size):
        cluster.place([demand(f"feed.{seed}.{number}")])

    held = [cluster.loads.get(NodeName(f"n{number}"), 0.0) for number in range(count)]
    assert min(held) > 0 or max(held) <= 1
    assert max(held) <= max(math.ceil(size / count), math.floor(1.25 * size / count))


def test_an_empty_node_that_a_daemon_should_avoid_does_not_take_it() -> None:
    cluster = make_cluster(a=node(), b=node())
    cluster.add(NodeName("a"), 1.0)

    ((_, home, _),) = cluster.place([replace(demand("x"), avoid=NodeName("b"))])

    assert home == "a"
