"""Restarts: the policy, the back-off, and the limit of restarts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.options import LauncherOptions, Restart
from celery_daemons.domain.restart import RestartHistory, Verdict, restarts_after
from celery_daemons.domain.states import Outcome


class UpperBounds(random.Random):
    """A random generator that always returns the upper bound, so that delays are exact."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper bound."""
        return b


AGAIN, ELSEWHERE, FAILED = Verdict


def delays(
    options: LauncherOptions, run_times: list[float], rng: random.Random | None = None, *, exhausted: bool = False
) -> list[tuple[float, Verdict]]:
    """Return the answer after each of these runs; each run starts when the delay after the previous run is over."""
    history, now, answers = RestartHistory(exhausted=exhausted), 0.0, []
    for ran_for in run_times:
        now += ran_for
        answer = history.next_delay(options, now=now, ran_for=ran_for, rng=rng or UpperBounds())
        answers.append(answer)
        now += answer[0]
    return answers


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
def test_the_policy_decides_whether_a_daemon_starts_again(policy: Restart, outcome: Outcome, again: bool) -> None:
    assert restarts_after(LauncherOptions(restart=policy), outcome) is again


def test_the_bound_of_the_delay_doubles_up_to_the_maximum() -> None:
    options = LauncherOptions(backoff=1, backoff_max=10, max_restarts=100, restart_period=1000)

    assert [delay for delay, _ in delays(options, [0.1] * 6)] == [1, 2, 4, 8, 10, 10]


def test_another_node_should_try_after_too_many_failures_within_the_period() -> None:
    options = LauncherOptions(backoff=0.5, backoff_max=60, max_restarts=5, restart_period=60)

    answers = delays(options, [0.0] * 6)

    assert [verdict for _, verdict in answers] == [AGAIN] * 5 + [ELSEWHERE]
    assert answers[-1][0] == 0


def test_after_another_node_gave_up_the_first_failure_counts_as_failed() -> None:
    options = LauncherOptions(backoff=0.5, backoff_max=60, max_restarts=5, restart_period=60)

    answers = delays(options, [0.0] * 7, exhausted=True)

    assert answers == [(60, FAILED)] * 7


def test_a_daemon_that_failed_in_an_outage_is_back_within_the_longest_delay_of_its_end() -> None:
    """After 15 s without what they connect to, all daemons were retried after 1, 2, 4, 8 and 16 minutes."""
    options, rng = LauncherOptions(), random.Random(1)
    outage = 900.0

    for _ in range(50):
        history, now, given_up = RestartHistory(), 0.0, False
        while now < outage:
            delay, verdict = history.next_delay(options, now=now, ran_for=0.0, rng=rng)
            now += delay
            if verdict is ELSEWHERE:
                assert not given_up
                history, given_up = RestartHistory(exhausted=True), True
        assert now - outage <= options.backoff_max == 30


def test_a_retry_of_a_failed_daemon_is_never_immediate() -> None:
    options = LauncherOptions(backoff_max=60, max_restarts=1)

    slow = [delay for delay, _ in delays(options, [0.0] * 50, random.Random(7), exhausted=True)]

    assert all(delay >= 30 for delay in slow)
    assert len(set(slow)) == 50


def test_delays_longer_than_the_period_do_not_hide_a_daemon_that_always_fails() -> None:
    """A slow back-off spreads failures over more than the period; a streak of short runs must still reach the limit."""
    options = LauncherOptions(backoff=50, backoff_max=60, max_restarts=3, restart_period=60)

    assert [verdict for _, verdict in delays(options, [0.1] * 4)] == [AGAIN, AGAIN, AGAIN, ELSEWHERE]


@pytest.mark.parametrize("seed", range(200))
def test_a_daemon_that_always_crashes_starts_fifty_times_at_most_in_its_first_ten_minutes(seed: int) -> None:
    """supervisor #487, circus #1157: neither a permanent stop nor a hot loop. Uses a virtual clock and two nodes."""
    options, rng = LauncherOptions(), random.Random(seed)
    history, now, starts, given_up = RestartHistory(), 0.0, 0, False

    while now < 600:
        starts += 1
        delay, verdict = history.next_delay(options, now=now, ran_for=0.0, rng=rng)
        now += delay
        if verdict is ELSEWHERE:
            assert not given_up
            history, given_up = RestartHistory(exhausted=True), True

    assert 20 < starts <= 50


def test_a_long_run_on_the_second_node_clears_the_failures_on_the_first() -> None:
    options = LauncherOptions(backoff=1, max_restarts=1, restart_period=60)

    answers = delays(options, [60.0, 0.1, 0.1], exhausted=True)

    assert [verdict for _, verdict in answers] == [AGAIN, ELSEWHERE, ELSEWHERE]


def test_a_long_run_resets_the_history() -> None:
    options = LauncherOptions(backoff=1, max_restarts=5, restart_period=60)

    answers = delays(options, [0.1, 0.1, 0.1, 60.0, 0.1])

    assert [delay for delay, _ in answers] == [1, 2, 4, 1, 2]
    assert all(verdict is AGAIN for _, verdict in answers)


def test_a_silent_death_restarts_at_once_only_the_first_time() -> None:
    options = LauncherOptions(backoff=1)
    history = RestartHistory()

    first = history.next_delay(options, now=1.0, ran_for=1.0, rng=UpperBounds(), at_once=True)
    second = history.next_delay(options, now=2.0, ran_for=1.0, rng=UpperBounds(), at_once=True)

    assert first == (0.0, AGAIN)
    assert second == (2.0, AGAIN)


def test_host_deaths_delay_a_daemon_but_never_fail_it() -> None:
    """One daemon that repeatedly kills its host must not make the other daemons of that host count as failed."""
    options = LauncherOptions(backoff=1, backoff_max=8, max_restarts=1)
    history = RestartHistory(exhausted=True)

    answers = [
        history.next_delay(options, now=float(now), ran_for=1.0, rng=UpperBounds(), at_once=True, counts=False)
        for now in range(7)
    ]

    assert answers == [(delay, AGAIN) for delay in (0, 2, 4, 8, 8, 8, 8)]


def test_all_restarts_are_counted() -> None:
    history = RestartHistory()

    for now in range(10):
        history.next_delay(LauncherOptions(), now=1000.0 * now, ran_for=500.0, rng=UpperBounds())

    assert history.total == 10
    assert len(history.recent) == 1


def test_a_launcher_that_never_gives_up_is_delayed_without_an_overflow() -> None:
    """An exponent that grows with every failure would overflow a float after about a thousand failures."""
    options = LauncherOptions(max_restarts=1_000_000, backoff_max=60)
    history = RestartHistory(streak=5000)

    assert history.next_delay(options, now=0.0, ran_for=0.0, rng=UpperBounds()) == (60.0, AGAIN)


@given(
    seed=st.integers(),
    run_times=st.lists(st.floats(0, 100), max_size=30),
    backoff=st.floats(0.001, 100),
    factor=st.floats(1, 1000),
    allowed=st.integers(1, 20),
)
def test_every_delay_is_within_its_bounds(
    seed: int, run_times: list[float], backoff: float, factor: float, allowed: int
) -> None:
    options = LauncherOptions(backoff=backoff, backoff_max=backoff * factor, max_restarts=allowed)

    for exhausted in (False, True):
        for delay, verdict in delays(options, run_times, random.Random(seed), exhausted=exhausted):
            lowest = 1 / 2 if verdict is FAILED else 0
            assert lowest * options.backoff_max <= delay <= options.backoff_max


def test_delays_of_daemons_that_failed_together_differ() -> None:
    options = LauncherOptions(backoff=10)

    first = {delays(options, [0.0], random.Random(seed))[0][0] for seed in range(20)}

    assert len(first) == 20
