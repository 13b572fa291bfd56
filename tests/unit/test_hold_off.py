"""When the monitor must not act, and for how long: on a clock of the test's own."""

import pytest

from celery_daemons.domain.names import NodeName
from celery_daemons.monitor.hold_off import HoldOff

LEASE = 5.0
#: Milliseconds left of a lease that was renewed just now.
RENEWED = 5000


class HoldOffHarness:
    """A hold-off on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.hold_off = HoldOff(LEASE, lambda: self.now)

    def check(self, **left_ms: int) -> str | None:
        """Check the leases as they are now, and return what the brake reports."""
        return self.hold_off.on_mass_loss({NodeName(name): left for name, left in left_ms.items()})

    @property
    def wait(self) -> float:
        """Return the seconds until the monitor may sweep."""
        return max(0.0, self.hold_off.no_action_before - self.now, self.hold_off.no_sweep_before - self.now)


@pytest.fixture
def harness() -> HoldOffHarness:
    return HoldOffHarness()


def test_one_lost_node_of_three_is_swept_at_once(harness: HoldOffHarness) -> None:
    assert harness.check(a=0, b=RENEWED, c=RENEWED) is None
    assert harness.hold_off.may_sweep


def test_two_lost_nodes_of_three_delay_sweeps_by_one_lease_and_are_reported_once(harness: HoldOffHarness) -> None:
    cause = harness.check(a=0, b=0, c=RENEWED)
    assert cause == "2 of 3 nodes lost within one lease; waiting one more lease before sweeping them"
    assert harness.wait == LEASE
    harness.now += 1
    assert harness.check(a=-1000, b=-1000, c=RENEWED) is None
    assert harness.wait == LEASE - 1


def test_nodes_whose_leases_are_about_to_end_count_with_the_first_lost_node(harness: HoldOffHarness) -> None:
    """Machines that vanish in the same moment have leases that end up to a heartbeat apart."""
    assert harness.check(a=-1, b=900, c=RENEWED) is not None


def test_losses_one_lease_apart_do_not_add_up(harness: HoldOffHarness) -> None:
    harness.check(a=0, b=RENEWED, c=RENEWED)
    harness.now += LEASE + 0.1

    assert harness.check(b=0, c=RENEWED, d=RENEWED) is None


def test_losses_within_a_lease_add_up_though_the_first_node_has_been_swept(harness: HoldOffHarness) -> None:
    harness.check(a=0, b=RENEWED, c=RENEWED)
    harness.now += 1

    assert harness.check(b=0, c=RENEWED) is not None


def test_a_recovered_node_no_longer_counts_as_lost(harness: HoldOffHarness) -> None:
    harness.check(a=0, b=RENEWED, c=RENEWED)
    harness.now += 2

    assert harness.check(a=RENEWED, b=0, c=RENEWED) is None
    assert harness.hold_off.may_sweep


def test_one_lost_node_of_two_is_no_majority(harness: HoldOffHarness) -> None:
    assert harness.check(a=0, b=RENEWED) is None


def test_the_monitor_does_not_act_before_new_data_is_one_lease_old(harness: HoldOffHarness) -> None:
    harness.hold_off.on_data_age(2000)
    assert harness.wait == LEASE - 2
    assert not harness.hold_off.may_act

    harness.now += LEASE - 2
    assert harness.hold_off.may_act


def test_old_data_is_trusted_and_missing_data_is_not(harness: HoldOffHarness) -> None:
    harness.hold_off.on_data_age(6000)
    assert harness.hold_off.may_act

    harness.hold_off.on_data_age(None)
    assert harness.wait == LEASE


def test_a_changed_server_is_confirmed_after_one_lease_and_a_confirmed_one_is_not_waited_for(
    harness: HoldOffHarness,
) -> None:
    assert not harness.hold_off.on_server("new", confirmed="old")
    assert harness.wait == LEASE
    harness.now += LEASE
    assert harness.hold_off.on_server("new", confirmed="old")

    assert not harness.hold_off.on_server("new", confirmed="new")
    assert harness.hold_off.may_act


def test_a_silence_of_all_nodes_delays_sweeps_by_one_lease_and_placing_not_at_all(harness: HoldOffHarness) -> None:
    harness.hold_off.on_cluster_silence(1000)

    assert harness.hold_off.may_act
    assert not harness.hold_off.may_sweep
    harness.now += LEASE - 1
    assert harness.hold_off.may_sweep


def test_an_outage_of_redis_gives_every_node_one_lease_to_renew(harness: HoldOffHarness) -> None:
    harness.hold_off.on_outage()

    assert harness.wait == LEASE
