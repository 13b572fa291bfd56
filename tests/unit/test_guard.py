"""What the guard around the package's callbacks in the worker logs, and when it calls again."""

import logging

import pytest

from celery_daemons.worker.guard import Guard


def test_a_guard_logs_each_error_once_until_a_call_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    # Given
    caplog.set_level(logging.INFO)
    guard = Guard("node w1@here: polling", remedy="check the disk")

    def fail(text: str) -> None:
        raise OSError(text)

    # When
    for text in ("full", "full", "gone", "full"):
        guard.call(fail, text)
    guard.call(int)
    guard.call(fail, "full")

    # Then
    assert [record.getMessage() for record in caplog.records] == [
        "node w1@here: polling failed (OSError: full); check the disk",
        "node w1@here: polling failed (OSError: gone); check the disk",
        "node w1@here: polling works again",
        "node w1@here: polling failed (OSError: full); check the disk",
    ]


def test_a_guard_shows_where_a_defect_is_and_skips_calls_during_its_pause(caplog: pytest.LogCaptureFixture) -> None:
    # Given
    now = [0.0]
    calls = []
    guard = Guard("polling", remedy="wait", pauses=True, clock=lambda: now[0])

    def fail() -> None:
        calls.append(now[0])
        raise KeyError("a defect")

    # When it is called four times a second for five minutes
    for quarter in range(1200):
        now[0] = quarter / 4
        guard.call(fail)

    # Then
    (record,) = caplog.records
    assert record.exc_info is not None
    assert len(calls) < 20
    assert calls[-1] - calls[-2] == pytest.approx(30, abs=0.5)

    # When it has failed for days, then the pause is as long
    for _ in range(1200):
        now[0] += 31
        guard.call(fail)
    assert guard.pause == 30
