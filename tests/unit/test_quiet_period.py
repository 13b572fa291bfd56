"""When nodes count as at rest: after a quiet time, and when those that left in order are back or given up."""

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from celery_daemons.monitor.quiet_period import RETURNS_WITHIN, QuietPeriod
from tests.unit.test_placement import node


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nodes(**status: str) -> dict[NodeName, NodeRow]:
    """Nodes by what they do."""
    return {NodeName(name): node(status=NodeStatus(what)) for name, what in status.items()}


def test_a_quiet_time_after_the_last_change() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)

    clock.now += 3
    settling.see(nodes(a="up", b="up"))

    assert settling.at == clock.now + 5.0


def test_one_that_restarts_is_waited_for_and_the_quiet_time_begins_when_it_is_back() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)
    settling.see(nodes(a="up", b="up"))

    settling.see(nodes(a="draining", b="up"))
    assert settling.at == clock.now + RETURNS_WITHIN
    clock.now += 20
    settling.see(nodes(b="up"))
    assert settling.at == clock.now + RETURNS_WITHIN
    clock.now += 8
    settling.see(nodes(a="up", b="up"))

    assert settling.at == clock.now + 5.0


def test_one_that_left_for_good_is_given_up_after_a_while() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)
    settling.see(nodes(a="draining", b="up"))
    settling.see(nodes(b="up"))
    clock.now += RETURNS_WITHIN

    settling.see(nodes(b="up", c="up"))

    assert settling.at == clock.now + 5.0


def test_one_that_was_lost_is_not_waited_for() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)
    settling.see(nodes(a="up", b="up"))

    settling.see(nodes(b="up"))

    assert settling.at == clock.now + 5.0


def test_one_that_an_operator_drains_and_uncordons_is_back() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)
    settling.see(nodes(a="draining", b="up"))

    settling.see(nodes(a="up", b="up"))

    assert settling.at == clock.now + 5.0


def test_a_new_monitor_is_told_who_has_just_left() -> None:
    clock = Clock()
    settling = QuietPeriod(5.0, clock)

    settling.expect(NodeName("a"), gone_for=10.0)
    settling.expect(NodeName("b"), gone_for=RETURNS_WITHIN)

    assert settling.at == clock.now + RETURNS_WITHIN - 10.0
    settling.see(nodes(a="up"))
    assert settling.at == clock.now + 5.0
