"""One node is cut off from Redis, in every way there is: for less than its lease or for more."""

import time
from collections.abc import Callable

import pytest

from tests.fault.conftest import OnStage
from tests.fault.signals import SOON
from tests.fault.stage import Stage
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

#: A short cut can be told from a long one, on a machine that does other things too.
PATIENT = {"lease_ttl": 2.0, "heartbeat_interval": 0.4}
LEASE = 2.0
#: Well below what a late heartbeat leaves of a lease.
BRIEF = 0.5

#: By name: nothing can be reached; silence both ways; requests are lost; answers are lost.
CUTS: dict[str, Callable[[Proxy], None]] = {
    "reset": Proxy.refuse,
    "silent": Proxy.hole,
    "deaf to it": lambda way: way.hole("up"),
    "deaf": lambda way: way.hole("down"),
}
cuts = pytest.mark.parametrize("cut", CUTS)


def works(stage: Stage, node: str) -> None:
    """Assert that the worker of a node takes tasks from the node's own queue: it is connected, and not deaf."""
    stage.task_runs(next(address.queue for address in stage.before.values() if address.node == node))


@cuts
def test_a_node_cut_off_for_less_than_its_lease_goes_on_untouched(on_stage: OnStage, cut: str) -> None:
    """Attacks: a node that gives up too soon, or a monitor that does (no token is touched)."""
    # Given
    stage = on_stage(settings=PATIENT, broker="behind")
    node, _ = stage.leading()
    start = stage.journal_end()

    # When
    CUTS[cut](stage.ways[node])
    time.sleep(BRIEF)
    stage.ways[node].heal()

    # Then
    stage.final_check()
    stage.untouched(stage.wanted)
    assert not stage.events("lost", start)


@cuts
def test_a_node_cut_off_for_longer_than_its_lease_is_replaced_and_comes_back(on_stage: OnStage, cut: str) -> None:
    """Attacks: both sides run the same daemons, one of them without knowing of the other (one at a time)."""
    # Given
    stage = on_stage(settings=PATIENT, broker="behind")
    node, leader = stage.leading()

    # When
    CUTS[cut](stage.ways[node])

    # Then
    stage.wait_moved(node)
    stage.untouched(stage.off(node))
    assert stage.leading()[1].epoch > leader.epoch
    stage.ways[node].heal()
    stage.final_check()
    works(stage, node)


def test_a_slow_network_costs_no_lease(on_stage: OnStage) -> None:
    """Attacks: every answer comes so late that a heartbeat is due before it (no token is touched)."""
    # Given
    stage = on_stage(settings=PATIENT, broker="behind")
    node, _ = stage.leading()
    start = stage.journal_end()

    # When
    stage.ways[node].delay(0.2)
    beaten = stage.lease_end(node)
    wait_until(lambda: stage.lease_end(node) > beaten + 1000 * LEASE, within=SOON, because="it still beats")
    stage.ways[node].heal()

    # Then
    stage.final_check()
    stage.untouched(stage.wanted)
    assert not stage.events("lost", start)


def test_requests_that_arrive_after_their_sender_was_replaced_change_nothing(on_stage: OnStage) -> None:
    """Attacks: heartbeats, claims and reports of a fenced node reach Redis long after they were sent."""
    # Given
    stage = on_stage(settings=PATIENT, broker="behind")
    node = stage.other(stage.leading()[0])

    # When
    stage.ways[node].hold("up")
    stage.wait_moved(node)
    moved = stage.client.locate_many(stage.wanted)
    stage.ways[node].heal()

    # Then
    assert stage.final_check() == moved


def test_a_node_that_keeps_its_broker_and_loses_its_book_is_replaced_all_the_same(on_stage: OnStage) -> None:
    """Attacks: spawn tasks that come in by the broker start daemons on a node without a lease (one at a time)."""
    # Given
    stage = on_stage(settings=PATIENT)
    node = stage.other(stage.leading()[0])

    # When
    stage.ways[node].hole()

    # Then
    stage.wait_moved(node)
    stage.untouched(stage.off(node))
    works(stage, node)
    stage.ways[node].heal()
    stage.final_check()
