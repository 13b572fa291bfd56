"""What a worker reports of its own loop."""

import pytest

from celery_daemons.wire.messages import Consuming, Tick
from celery_daemons.worker import loop_reports
from celery_daemons.worker.loop_reports import LoopReports


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_reports, "time", clock)
    return clock


def test_a_worker_ticks_every_other_second(clock: Clock) -> None:
    sent: list[object] = []
    reports = LoopReports(sent.append, ticks=True)
    for _ in range(40):
        clock.now += 0.25
        reports.tick()

    assert sent == [Tick()] * 5


def test_a_worker_whose_timer_shows_nothing_does_not_tick(clock: Clock) -> None:
    sent: list[object] = []

    LoopReports(sent.append, ticks=False).tick()

    assert sent == []


def test_a_change_is_reported_once_and_repeated_to_the_next_agent(clock: Clock) -> None:
    sent: list[object] = []
    reports = LoopReports(sent.append, ticks=True)
    reports.repeat()
    reports.set_consuming(True)
    reports.set_consuming(True)
    reports.repeat()
    reports.set_consuming(False)
    reports.repeat()

    assert sent == [Consuming(True), Consuming(True), Consuming(False)]
