"""The consistent-hashing ring: the order in which names prefer nodes."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.ring import Ring

node_names = st.from_regex(r"celery@[a-z0-9.\-]{1,12}", fullmatch=True).map(NodeName)
daemon_names = st.from_regex(r"[a-z0-9./:@+_\-]{1,20}", fullmatch=True).map(DaemonName)
weights = st.dictionaries(node_names, st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=8)


def ring(*nodes: str, vnodes: int = 40) -> Ring:
    return Ring({NodeName(node): 1.0 for node in nodes}, vnodes=vnodes)


def names(count: int) -> list[DaemonName]:
    return [DaemonName(f"tail.web-{number}") for number in range(count)]


@given(weights, daemon_names)
def test_every_node_is_preferred_once(nodes: dict[NodeName, float], name: DaemonName) -> None:
    order = list(Ring(nodes, vnodes=40).preference(name))

    assert sorted(order) == sorted(nodes)


@given(weights, daemon_names, st.randoms())
def test_the_order_of_nodes_does_not_change_the_ring(
    nodes: dict[NodeName, float], name: DaemonName, rng: Random
) -> None:
    shuffled = list(nodes.items())
    rng.shuffle(shuffled)

    assert list(Ring(nodes, vnodes=40).preference(name)) == list(Ring(dict(shuffled), vnodes=40).preference(name))


@given(weights.filter(lambda nodes: len(nodes) > 1), daemon_names, st.data())
def test_a_lost_node_does_not_change_the_order_of_the_others(
    nodes: dict[NodeName, float], name: DaemonName, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(sorted(nodes)))
    left = {node: weight for node, weight in nodes.items() if node != lost}

    before = [node for node in Ring(nodes, vnodes=40).preference(name) if node != lost]
    assert list(Ring(left, vnodes=40).preference(name)) == before


def test_only_the_daemons_of_a_lost_node_get_another_first_choice() -> None:
    before, after = ring("a", "b", "c", "d"), ring("a", "b", "d")

    for name in names(1000):
        first = next(before.preference(name))
        if first != "c":
            assert next(after.preference(name)) == first


def test_a_new_node_becomes_first_choice_of_about_its_share_only() -> None:
    before, after = ring("a", "b", "c"), ring("a", "b", "c", "d")

    moved = 0
    for name in names(4000):
        old, new = next(before.preference(name)), next(after.preference(name))
        assert new in (old, "d")
        moved += new == "d"
    assert 600 < moved < 1500


def test_a_node_of_twice_the_weight_is_first_choice_about_twice_as_often() -> None:
    ring_of_two = Ring({NodeName("a"): 1.0, NodeName("b"): 2.0}, vnodes=200)

    firsts = [next(ring_of_two.preference(name)) for name in names(6000)]

    assert 1.5 < firsts.count(NodeName("b")) / firsts.count(NodeName("a")) < 2.7


def test_a_node_of_the_smallest_weight_is_on_the_ring() -> None:
    tiny = Ring({NodeName("a"): 1.0, NodeName("b"): 0.0001}, vnodes=40)

    assert set(tiny.preference(DaemonName("x"))) == {"a", "b"}


def test_an_empty_ring_has_no_first_choice() -> None:
    assert list(Ring({}, vnodes=40).preference(DaemonName("x"))) == []


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_has_the_same_ring(seed: str) -> None:
    """A client and the monitor must compute the same preference for a name."""
    program = (
        "from celery_daemons.domain.ring import Ring\n"
        "ring = Ring({'a': 1.0, 'b': 2.0, 'c': 0.5}, vnodes=40)\n"
        "print([''.join(ring.preference(f'x{n}')) for n in range(20)])"
    )
    here = Ring({NodeName("a"): 1.0, NodeName("b"): 2.0, NodeName("c"): 0.5}, vnodes=40)

    there = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )

    assert there.stdout.strip() == str(["".join(here.preference(DaemonName(f"x{n}"))) for n in range(20)])
