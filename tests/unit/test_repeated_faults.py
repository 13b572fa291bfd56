"""A fault that repeats is logged when it changes, and at growing intervals while it is the same."""

import itertools

from celery_daemons.node.repeats import RepeatedFault


def logged(fault: RepeatedFault, kind: str, seconds: range) -> list[int]:
    """Return when a fault is logged that happens every second."""
    return [now for now in seconds if fault.is_worth_logging(kind, now=float(now))]


def test_the_intervals_grow_up_to_an_hour() -> None:
    times = logged(RepeatedFault(), "stuck", range(40_000))

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == 0
    assert gaps[:8] == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(gaps[8:]) == {3600}


def test_another_fault_is_logged_at_once() -> None:
    fault = RepeatedFault()
    logged(fault, "stuck", range(100))

    assert logged(fault, "no memory", range(100, 120)) == [100]


def test_a_fault_that_comes_back_after_a_success_is_logged_at_once() -> None:
    fault = RepeatedFault()
    logged(fault, "stuck", range(100))

    fault.over()

    assert logged(fault, "stuck", range(101, 120)) == [101]
