"""Waiting ends: with the value, or with the reason why it should have come."""

import itertools

import pytest

from tests.support.waiting import wait_until, wait_until_async


def test_waiting_returns_the_first_true_value() -> None:
    values = itertools.count()

    assert wait_until(lambda: next(values), within=5, because="the counter grows", interval=0) == 1


def test_a_wait_that_fails_names_the_reason_and_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: pigs fly; last value seen: \[\]"):
        wait_until(list, within=0.05, because="pigs fly")


def test_a_predicate_is_checked_once_more_after_the_deadline() -> None:
    answers = iter([False, True])

    assert wait_until(lambda: next(answers), within=1e-6, because="the second look finds it", interval=0.01)


@pytest.mark.asyncio
async def test_waiting_accepts_coroutine_functions() -> None:
    values = itertools.count()

    async def grown() -> int:
        return next(values)

    assert await wait_until_async(grown, within=5, because="the counter grows", interval=0) == 1
    assert await wait_until_async(lambda: next(values), within=5, because="it goes on", interval=0) == 2
