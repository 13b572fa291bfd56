"""Redis's clock as other processes measure it, and the leases that they conclude from it."""

import pytest

from celery_daemons.domain.longest_lease import LongestLease
from celery_daemons.domain.names import Incarnation
from celery_daemons.domain.server_clock import ServerClock
from celery_daemons.node.name_wait import NameWait
from celery_daemons.store.lease import Taken

WINDOW = 5.0
#: Redis's clock is this far ahead of the local one.
AHEAD = 1_000_000.0


class MeasuredClock:
    """A server clock that is measured once a second of local time."""

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.now = 100.0
        self.ahead = AHEAD

    def measure(self, *, round_trip: float = 0.002, seconds: int = 1) -> float:
        """Let time pass and measure; return the step of the last measurement."""
        step = 0.0
        for _ in range(seconds):
            self.now += 1
            step = self.clock.observe(
                self.now + self.ahead - round_trip / 2, sent=self.now - round_trip, received=self.now, window=WINDOW
            )
        return step

    def ago(self, server: float) -> float:
        """Return how long ago Redis's clock can have shown a time at the latest."""
        return self.now - self.clock.latest(server)


def test_a_time_of_an_even_clock_is_translated_exactly_to_the_fastest_round_trip() -> None:
    measured = MeasuredClock()
    assert measured.measure(seconds=5) == 0
    assert measured.measure(round_trip=0.5) == 0
    assert measured.ago(measured.now + AHEAD - 3) == pytest.approx(3, abs=0.03)


@pytest.mark.parametrize("step", [0.5, 3.0, 3600.0, -0.5, -3.0, -3600.0])
def test_a_step_is_noticed_and_after_it_the_later_moment_counts_for_a_window(step: float) -> None:
    # Given
    measured = MeasuredClock()
    measured.measure(seconds=3)

    # When
    before, after = measured.now + AHEAD, measured.now + AHEAD + step
    measured.ahead += step
    assert measured.measure() == pytest.approx(step, abs=0.05)

    # Then times from before and after the step are not taken for older than they are
    assert measured.ago(before) <= 1.001
    assert measured.ago(after) <= 1.001
    measured.measure(seconds=int(WINDOW) + 2)
    assert measured.ago(measured.now + measured.ahead - 1) == pytest.approx(1, abs=0.03)


def test_a_step_in_a_long_gap_counts_from_the_end_of_the_gap() -> None:
    """The step came at an unknown moment of the gap, perhaps just before its end."""
    measured = MeasuredClock()
    measured.measure(seconds=3)
    measured.now += 60
    before = measured.now + AHEAD
    measured.ahead += 3
    measured.measure()

    assert measured.ago(before) == pytest.approx(1, abs=0.02)


def test_clocks_of_slightly_different_rates_do_not_step() -> None:
    measured = MeasuredClock()
    for _ in range(1000):
        measured.ahead += 0.005
        assert measured.measure() == 0


def test_another_process_continues_with_the_measurements() -> None:
    measured = MeasuredClock()
    measured.measure(seconds=3)
    measured.ahead += 3600
    measured.measure()

    assert ServerClock(measured.clock.segments).latest(5.0) == measured.clock.latest(5.0)


def test_a_clock_that_is_set_all_the_time_takes_no_memory() -> None:
    measured = MeasuredClock()
    for number in range(1000):
        measured.ahead += 10 if number % 2 else -10
        measured.clock.observe(measured.now + measured.ahead, sent=measured.now, received=measured.now, window=WINDOW)

    assert len(measured.clock.segments) <= 64


def test_a_longer_lease_is_remembered_for_its_length_after_it_was_seen() -> None:
    longest = LongestLease(3.0)
    assert longest.seconds == 3

    longest.note(30.0, now=100.0)
    longest.note(3.0, now=129.0)
    assert longest.seconds == 30

    longest.note(3.0, now=131.0)
    assert longest.seconds == 3


def taken(end: float, *, server: float) -> Taken:
    """Return the answer that a name is taken by a node with a lease of five seconds."""
    return Taken(
        left_ms=int((end - server) * 1000),
        incarnation=Incarnation("other"),
        server_ms=int(server * 1000),
        end_ms=int(end * 1000),
        length_ms=5000,
    )


def test_a_name_is_free_when_the_lease_of_its_holder_has_ended() -> None:
    measured = MeasuredClock()
    measured.measure(seconds=2)
    wait = NameWait(measured.clock)
    end = measured.now + AHEAD + 2.5

    assert wait.seconds_left(taken(end, server=measured.now + AHEAD), now=measured.now) == pytest.approx(2.5, abs=0.05)
    measured.measure(seconds=3)
    assert wait.seconds_left(taken(end, server=measured.now + AHEAD), now=measured.now) == 0
    assert wait.ended_ms == int(end * 1000)


def test_a_waiting_worker_is_not_deceived_by_a_step_of_redis_clock() -> None:
    """Attacks invariants 1, 2 and 4: forward, the holder still runs; back, the lease would run for another hour."""
    for step in (3600.0, -3600.0):
        # Given
        measured = MeasuredClock()
        measured.measure(seconds=2)
        wait = NameWait(measured.clock)
        end = measured.now + AHEAD + 4
        wait.seconds_left(taken(end, server=measured.now + AHEAD), now=measured.now)

        # When
        measured.ahead += step
        measured.measure()

        # Then
        assert wait.seconds_left(taken(end, server=measured.now + measured.ahead), now=measured.now) > 2.9
        assert wait.ended_ms == 0
        measured.measure(seconds=4)
        assert wait.seconds_left(taken(end, server=measured.now + measured.ahead), now=measured.now) == 0
