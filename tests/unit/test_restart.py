"""When a daemon that ended starts again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.options import LauncherOptions, Restart
from celery_daemons.domain.restart import RestartHistory, restarts_after
from celery_daemons.domain.states import Outcome


class Dice(random.Random):
    """Always the highest throw, so that delays are their own bounds."""

    def uniform(self, a: float, b: float) -> float:
        """The upper bound."""
        return b


def delays(options: LauncherOptions, lives: list[float], dice: random.Random | None = None) -> list[tuple[float, bool]]:
    """What follows on each of these lives, each starting when the delay after the last one is over."""
    history, now, found = RestartHistory(), 0.0, []
    for lived in lives:
        now += lived
        answer = history.next_delay(options, now=now, lived=lived, dice=dice or Dice())
        found.append(answer)
        now += answer[0]
    return found


@pytest.mark.parametrize(
    ("policy", "outcome", "again"),
    [
        ("permanent", Outcome.FAILED, True),
        ("permanent", Outcome.FINISHED, True),
        ("transient", Outcome.FAILED, True),
        ("transient", Outcome.FINISHED, False),
        ("temporary", Outcome.FAILED, False),
        ("temporary", Outcome.FINISHED, False),
        ("temporary", Outcome.STOPPED, True),
    ],
)
def test_the_policy_decides_whether_it_starts_again(policy: Restart, outcome: Outcome, again: bool) -> None:
    assert restarts_after(LauncherOptions(restart=policy), outcome) is again


def test_each_delay_may_be_twice_the_last_up_to_the_most() -> None:
    options = LauncherOptions(backoff=1, backoff_max=10, max_restarts=100, restart_period=1000)

    assert [delay for delay, _ in delays(options, [0.1] * 6)] == [1, 2, 4, 8, 10, 10]


def test_more_failures_than_allowed_within_the_period_count_as_failed_and_are_retried_slowly() -> None:
    options = LauncherOptions(backoff=0.5, backoff_max=60, max_restarts=5, restart_period=60)

    answers = delays(options, [0.0] * 8)

    assert [failed for _, failed in answers] == [False] * 5 + [True] * 3
    assert all(delay == 60 for delay, failed in answers if failed)


def test_a_slow_retry_never_comes_at_once() -> None:
    options = LauncherOptions(backoff_max=60, max_restarts=1)
    dice = random.Random(7)

    slow = [delay for delay, failed in delays(options, [0.0] * 50, dice) if failed]

    assert len(slow) > 40
    assert all(30 <= delay <= 60 for delay in slow)


def test_delays_that_outlast_the_period_do_not_hide_a_daemon_that_never_lives() -> None:
    """However slow the back-off: after so many short lives in a row it is this node's turn to give up."""
    options = LauncherOptions(backoff=50, backoff_max=60, max_restarts=3, restart_period=60)

    assert [failed for _, failed in delays(options, [0.1] * 5)] == [False, False, False, True, True]


def test_a_life_that_lasted_makes_a_clean_slate() -> None:
    options = LauncherOptions(backoff=1, max_restarts=5, restart_period=60)

    answers = delays(options, [0.1, 0.1, 0.1, 60.0, 0.1])

    assert [delay for delay, _ in answers] == [1, 2, 4, 1, 2]
    assert not any(failed for _, failed in answers)


def test_the_first_end_that_was_not_its_fault_is_followed_by_a_start_at_once() -> None:
    options = LauncherOptions(backoff=1)
    history = RestartHistory()

    first = history.next_delay(options, now=1.0, lived=1.0, dice=Dice(), blameless=True)
    second = history.next_delay(options, now=2.0, lived=1.0, dice=Dice(), blameless=True)

    assert first == (0.0, False)
    assert second == (2.0, False)


def test_all_restarts_are_counted_for_ever() -> None:
    history = RestartHistory()

    for now in range(10):
        history.next_delay(LauncherOptions(), now=1000.0 * now, lived=500.0, dice=Dice())

    assert history.total == 10
    assert len(history.recent) == 1


def test_a_launcher_that_never_gives_up_is_delayed_for_ever() -> None:
    """An exponent that grows with every failure overflows a float after a thousand of them."""
    options = LauncherOptions(max_restarts=1_000_000, backoff_max=60)
    history = RestartHistory(streak=5000)

    assert history.next_delay(options, now=0.0, lived=0.0, dice=Dice()) == (60.0, False)


@given(
    seed=st.integers(),
    lives=st.lists(st.floats(0, 100), max_size=30),
    backoff=st.floats(0.001, 100),
    factor=st.floats(1, 1000),
    allowed=st.integers(1, 20),
)
def test_every_delay_is_within_its_bounds(
    seed: int, lives: list[float], backoff: float, factor: float, allowed: int
) -> None:
    options = LauncherOptions(backoff=backoff, backoff_max=backoff * factor, max_restarts=allowed)

    for delay, failed in delays(options, lives, random.Random(seed)):
        lowest = options.backoff_max / 2 if failed else 0
        assert lowest <= delay <= options.backoff_max


def test_delays_differ_so_that_daemons_that_failed_together_do_not_return_together() -> None:
    options = LauncherOptions(backoff=10)

    first = {delays(options, [0.0], random.Random(seed))[0][0] for seed in range(20)}

    assert len(first) == 20
