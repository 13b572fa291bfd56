"""When nodes count as stable: after a quiet time, once nodes that left gracefully are back or given up."""

import pytest

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from celery_daemons.monitor.quiet_period import RETURN_WINDOW, QuietPeriod
from tests.unit.test_placement import node

DELAY = 5.0


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def period(clock: ManualClock) -> QuietPeriod:
    return QuietPeriod(DELAY, clock)


def nodes(**status: str) -> dict[NodeName, NodeRow]:
    """Return node records by name and status."""
    return {NodeName(name): node(status=NodeStatus(what)) for name, what in status.items()}


def test_the_period_ends_a_quiet_time_after_the_last_change(clock: ManualClock, period: QuietPeriod) -> None:
    clock.now += 3
    period.on_nodes(nodes(a="up", b="up"))

    assert period.ends_at == clock.now + DELAY


def test_a_restarting_node_is_waited_for_and_the_quiet_time_begins_when_it_is_back(
    clock: ManualClock, period: QuietPeriod
) -> None:
    # Given
    period.on_nodes(nodes(a="up", b="up"))

    # When it drains and leaves, then it is expected back
    period.on_nodes(nodes(a="draining", b="up"))
    assert period.ends_at == clock.now + RETURN_WINDOW
    clock.now += 20
    period.on_nodes(nodes(b="up"))
    assert period.ends_at == clock.now + RETURN_WINDOW

    # When it returns
    clock.now += 8
    period.on_nodes(nodes(a="up", b="up"))

    # Then
    assert period.ends_at == clock.now + DELAY


def test_a_node_that_left_for_good_is_given_up_after_the_return_window(clock: ManualClock, period: QuietPeriod) -> None:
    period.on_nodes(nodes(a="draining", b="up"))
    period.on_nodes(nodes(b="up"))
    clock.now += RETURN_WINDOW

    period.on_nodes(nodes(b="up", c="up"))

    assert period.ends_at == clock.now + DELAY


def test_a_lost_node_is_not_waited_for(clock: ManualClock, period: QuietPeriod) -> None:
    period.on_nodes(nodes(a="up", b="up"))

    period.on_nodes(nodes(b="up"))

    assert period.ends_at == clock.now + DELAY


def test_a_node_that_an_operator_drains_and_uncordons_is_back(clock: ManualClock, period: QuietPeriod) -> None:
    period.on_nodes(nodes(a="draining", b="up"))

    period.on_nodes(nodes(a="up", b="up"))

    assert period.ends_at == clock.now + DELAY


def test_a_new_monitor_waits_for_nodes_that_left_just_before_its_election(
    clock: ManualClock, period: QuietPeriod
) -> None:
    """Attacks invariant 4: when they left is a time of Redis's clock, which may have been set since."""
    # When
    clock.now += 7
    period.expect([NodeName("a"), NodeName("b")])

    # Then they get the whole time, once
    assert period.ends_at == clock.now + RETURN_WINDOW
    period.on_nodes(nodes(a="up"))
    clock.now += 10
    period.expect([NodeName("b")])
    assert period.ends_at == clock.now - 10 + RETURN_WINDOW
    period.on_nodes(nodes(a="up", b="up"))
    assert period.ends_at == clock.now + DELAY
