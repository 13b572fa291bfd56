"""When the monitor holds still, and for how long: on a clock of the test's own."""

from types import SimpleNamespace

import pytest

from celery_daemons.domain.names import NodeName
from celery_daemons.monitor import hold_off as module
from celery_daemons.monitor.hold_off import HoldOff

LEASE = 5.0
#: Milliseconds left of a lease that was renewed just now.
FRESH = 5000


class Watcher:
    """A monitor's caution, and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.caution = HoldOff(LEASE)

    def sees(self, **left_ms: int) -> str | None:
        """The leases as they are now; answers what the brake says."""
        return self.caution.with_losses({NodeName(name): left for name, left in left_ms.items()})

    @property
    def waits(self) -> float:
        """Seconds until it may sweep."""
        return max(0.0, self.caution.until - self.now, self.caution.sweeps_from - self.now)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    return Watcher(monkeypatch)


def test_one_of_three_is_swept_at_once(watcher: Watcher) -> None:
    assert watcher.sees(a=0, b=FRESH, c=FRESH) is None
    assert watcher.caution.sweeps


def test_two_of_three_within_a_lease_cost_one_more_lease_and_are_told_of_once(watcher: Watcher) -> None:
    assert watcher.sees(a=0, b=0, c=FRESH) == "2 of 3 nodes are lost within one lease: waiting one more"
    assert watcher.waits == LEASE
    watcher.now += 1
    assert watcher.sees(a=-1000, b=-1000, c=FRESH) is None
    assert watcher.waits == LEASE - 1


def test_those_whose_leases_are_about_to_end_count_with_the_first_that_has(watcher: Watcher) -> None:
    """Machines that vanish in the same moment have leases that end up to a heartbeat apart."""
    assert watcher.sees(a=-1, b=900, c=FRESH) is not None


def test_losses_one_lease_apart_do_not_add_up(watcher: Watcher) -> None:
    watcher.sees(a=0, b=FRESH, c=FRESH)
    watcher.now += LEASE + 0.1

    assert watcher.sees(b=0, c=FRESH, d=FRESH) is None


def test_losses_within_a_lease_add_up_though_the_first_has_been_swept(watcher: Watcher) -> None:
    watcher.sees(a=0, b=FRESH, c=FRESH)
    watcher.now += 1

    assert watcher.sees(b=0, c=FRESH) is not None


def test_one_that_is_back_is_not_lost_any_more(watcher: Watcher) -> None:
    watcher.sees(a=0, b=FRESH, c=FRESH)
    watcher.now += 2

    assert watcher.sees(a=FRESH, b=0, c=FRESH) is None
    assert watcher.caution.sweeps


def test_of_two_nodes_one_is_no_majority(watcher: Watcher) -> None:
    assert watcher.sees(a=0, b=FRESH) is None


def test_after_a_loss_of_data_it_waits_until_the_data_is_a_lease_old(watcher: Watcher) -> None:
    watcher.caution.with_data_of(2000)
    assert watcher.waits == LEASE - 2
    assert not watcher.caution.over

    watcher.now += LEASE - 2
    assert watcher.caution.over


def test_data_that_is_older_is_trusted_and_none_is_not(watcher: Watcher) -> None:
    watcher.caution.with_data_of(6000)
    assert watcher.caution.over

    watcher.caution.with_data_of(None)
    assert watcher.waits == LEASE


def test_with_another_server_it_settles_after_a_lease_and_with_a_known_one_at_once(watcher: Watcher) -> None:
    assert not watcher.caution.with_server("new", settled="old")
    assert watcher.waits == LEASE
    watcher.now += LEASE
    assert watcher.caution.with_server("new", settled="old")

    assert not watcher.caution.with_server("new", settled="new")
    assert watcher.caution.over


def test_after_a_silence_of_all_nothing_is_swept_for_a_lease_but_placing_goes_on(watcher: Watcher) -> None:
    watcher.caution.after_silence(1000)

    assert watcher.caution.over
    assert not watcher.caution.sweeps
    watcher.now += LEASE - 1
    assert watcher.caution.sweeps


def test_after_an_outage_everybody_has_a_lease_to_beat_again(watcher: Watcher) -> None:
    watcher.caution.after_outage()

    assert watcher.waits == LEASE
