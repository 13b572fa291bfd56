"""When a daemon that ended starts again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.options import LauncherOptions, Restart
from celery_daemons.domain.restart import RestartHistory, Verdict, restarts_after
from celery_daemons.domain.states import Outcome


class Dice(random.Random):
    """Always the highest throw, so that delays are their own bounds."""

    def uniform(self, a: float, b: float) -> float:
        """The upper bound."""
        return b


AGAIN, ELSEWHERE, FAILED = Verdict


def delays(
    options: LauncherOptions, lives: list[float], rng: random.Random | None = None, *, exhausted: bool = False
) -> list[tuple[float, Verdict]]:
    """What follows on each of these lives, each starting when the delay after the last one is over."""
    history, now, found = RestartHistory(exhausted=exhausted), 0.0, []
    for ran_for in lives:
        now += ran_for
        answer = history.next_delay(options, now=now, ran_for=ran_for, rng=rng or Dice())
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


def test_more_failures_than_allowed_within_the_period_are_for_another_node_to_try() -> None:
    options = LauncherOptions(backoff=0.5, backoff_max=60, max_restarts=5, restart_period=60)

    answers = delays(options, [0.0] * 6)

    assert [verdict for _, verdict in answers] == [AGAIN] * 5 + [ELSEWHERE]
    assert answers[-1][0] == 0


def test_where_another_node_has_given_up_the_first_failure_counts_as_failed_and_is_retried_ever_more_slowly() -> None:
    options = LauncherOptions(backoff=0.5, backoff_max=60, max_restarts=5, restart_period=60)

    answers = delays(options, [0.0] * 7, exhausted=True)

    assert answers == [(delay, FAILED) for delay in (60, 120, 240, 480, 960, 960, 960)]


def test_a_slow_retry_never_comes_at_once() -> None:
    options = LauncherOptions(backoff_max=60, max_restarts=1)

    slow = [delay for delay, _ in delays(options, [0.0] * 50, random.Random(7), exhausted=True)]

    assert all(delay >= 30 for delay in slow)
    assert len(set(slow)) == 50


def test_delays_that_outlast_the_period_do_not_hide_a_daemon_that_never_lives() -> None:
    """However slow the back-off: after so many short lives in a row it is this node's turn to give up."""
    options = LauncherOptions(backoff=50, backoff_max=60, max_restarts=3, restart_period=60)

    assert [verdict for _, verdict in delays(options, [0.1] * 4)] == [AGAIN, AGAIN, AGAIN, ELSEWHERE]


@pytest.mark.parametrize("seed", range(200))
def test_a_daemon_that_always_crashes_starts_twelve_times_at_most_in_its_first_ten_minutes(seed: int) -> None:
    """supervisor #487, circus #1157: neither given up for ever nor a hot loop; by virtual clock, on two nodes."""
    options, rng = LauncherOptions(), random.Random(seed)
    history, now, starts, given_up = RestartHistory(), 0.0, 0, False

    while now < 600:
        starts += 1
        delay, verdict = history.next_delay(options, now=now, ran_for=0.0, rng=rng)
        now += delay
        if verdict is ELSEWHERE:
            assert not given_up
            history, given_up = RestartHistory(exhausted=True), True

    assert 7 < starts <= 12


def test_a_long_life_on_the_second_node_makes_up_for_what_was_on_the_first() -> None:
    options = LauncherOptions(backoff=1, max_restarts=1, restart_period=60)

    answers = delays(options, [60.0, 0.1, 0.1], exhausted=True)

    assert [verdict for _, verdict in answers] == [AGAIN, ELSEWHERE, ELSEWHERE]


def test_a_life_that_lasted_makes_a_clean_slate() -> None:
    options = LauncherOptions(backoff=1, max_restarts=5, restart_period=60)

    answers = delays(options, [0.1, 0.1, 0.1, 60.0, 0.1])

    assert [delay for delay, _ in answers] == [1, 2, 4, 1, 2]
    assert all(verdict is AGAIN for _, verdict in answers)


def test_an_end_without_a_word_is_followed_by_a_start_at_once_but_only_the_first_time() -> None:
    options = LauncherOptions(backoff=1)
    history = RestartHistory()

    first = history.next_delay(options, now=1.0, ran_for=1.0, rng=Dice(), at_once=True)
    second = history.next_delay(options, now=2.0, ran_for=1.0, rng=Dice(), at_once=True)

    assert first == (0.0, AGAIN)
    assert second == (2.0, AGAIN)


def test_ends_that_were_the_hosts_are_backed_off_from_and_never_held_against_a_daemon() -> None:
    """One daemon that brings its host down again and again must not make its neighbours count as failed."""
    options = LauncherOptions(backoff=1, backoff_max=8, max_restarts=1)
    history = RestartHistory(exhausted=True)

    answers = [
        history.next_delay(options, now=float(now), ran_for=1.0, rng=Dice(), at_once=True, counts=False)
        for now in range(7)
    ]

    assert answers == [(delay, AGAIN) for delay in (0, 2, 4, 8, 8, 8, 8)]


def test_all_restarts_are_counted_for_ever() -> None:
    history = RestartHistory()

    for now in range(10):
        history.next_delay(LauncherOptions(), now=1000.0 * now, ran_for=500.0, rng=Dice())

    assert history.total == 10
    assert len(history.recent) == 1


def test_a_launcher_that_never_gives_up_is_delayed_for_ever() -> None:
    """An exponent that grows with every failure overflows a float after a thousand of them."""
    options = LauncherOptions(max_restarts=1_000_000, backoff_max=60)
    history = RestartHistory(streak=5000)

    assert history.next_delay(options, now=0.0, ran_for=0.0, rng=Dice()) == (60.0, AGAIN)


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

    for exhausted in (False, True):
        for delay, verdict in delays(options, lives, random.Random(seed), exhausted=exhausted):
            lowest, highest = (1 / 2, 16) if verdict is FAILED else (0, 1)
            assert lowest * options.backoff_max <= delay <= highest * options.backoff_max


def test_delays_differ_so_that_daemons_that_failed_together_do_not_return_together() -> None:
    options = LauncherOptions(backoff=10)

    first = {delays(options, [0.0], random.Random(seed))[0][0] for seed in range(20)}

    assert len(first) == 20
