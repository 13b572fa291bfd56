"""Stalls of an event loop: the daemon that holds the loop is known, reported once, and moved if it offends again."""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.host.current_run import Run
from celery_daemons.host.frames import step_frames
from celery_daemons.host.stall_log import StallLog
from celery_daemons.host.stall_watch import StallWatch
from celery_daemons.host.step_clock import Stall, StepClock, new_loop
from celery_daemons.wire.loop_messages import LoopBlocked, LoopFree, Stalled
from tests.benchmarks import stalls


def run_named(name: str) -> Run:
    """Return a run."""
    return Run(DaemonName(name), LauncherName("tail"), Token(7))


class LoopHarness:
    """An event loop with a clock and a watch; each test makes the checks itself."""

    def __init__(self) -> None:
        loop, clock = new_loop()
        assert clock is not None
        self.loop, self.clock = loop, clock
        self.sent: list[Any] = []
        thread = threading.get_ident()
        self.watch = StallWatch(clock, send=self.sent.append, stack=lambda: step_frames(thread), log=StallLog())

    def run(self, **daemons: Callable[[], Any]) -> dict[str, Run]:
        """Run coroutine functions as daemons until all have ended, and return their runs."""
        runs = {name: run_named(name) for name in daemons}
        tasks = []
        for name, daemon in daemons.items():
            with runs[name].active():
                tasks.append(self.loop.create_task(daemon()))
        self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()
        return runs


def test_a_step_that_blocks_the_loop_is_attributed_to_the_daemon_and_its_tasks() -> None:
    # Given
    harness = LoopHarness()

    async def blocks() -> None:
        await asyncio.sleep(0)
        # A child task inherits the daemon.
        await asyncio.create_task(child())

    async def child() -> None:
        time.sleep(0.12)  # noqa: ASYNC251 - the mistake under test

    async def innocent() -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)

    # When
    runs = harness.run(guilty=blocks, innocent=innocent)
    harness.watch.check(time.perf_counter(), others=1)

    # Then
    assert (runs["guilty"].stalls, runs["innocent"].stalls) == (1, 0)
    (message,) = harness.sent
    assert isinstance(message, Stalled)
    ((name, token, seconds),) = message.items
    assert (name, token) == ("guilty", 7)
    assert seconds >= 0.12


def test_processor_time_is_shared_out_by_what_each_daemon_computes_and_waiting_costs_none() -> None:
    # Given
    def computes(seconds: float) -> Callable[[], Any]:
        async def daemon() -> None:
            left = seconds
            while left > 0:
                began = time.thread_time()
                while time.thread_time() - began < 0.004:
                    pass
                left -= time.thread_time() - began
                await asyncio.sleep(0)

        return daemon

    async def waits() -> None:
        time.sleep(0.15)  # noqa: ASYNC251 - the mistake under test

    # When
    runs = LoopHarness().run(three=computes(0.3), one=computes(0.1), waits=waits)

    # Then
    assert runs["three"].cpu_seconds == pytest.approx(0.3, rel=0.05)
    assert runs["one"].cpu_seconds == pytest.approx(0.1, rel=0.1)
    assert runs["waits"].cpu_seconds < 0.05


class Handle:
    """What an event loop executes, in the context of a run."""

    def __init__(self, run: Run) -> None:
        with run.active():
            self._context = contextvars.copy_context()


@pytest.fixture
def watched() -> tuple[StepClock, StallWatch, list[Any]]:
    """Return a clock without a loop, a watch that has made its first check, and what the watch sends."""
    clock, sent = StepClock(), list[Any]()
    watch = StallWatch(clock, send=sent.append, stack=list, log=StallLog())
    watch.check(100.0, others=3)
    return clock, watch, sent


def test_a_stall_that_lasts_is_reported_once_and_its_end_too(
    watched: tuple[StepClock, StallWatch, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    clock, watch, sent = watched
    clock.began, clock.handle = 100.0, Handle(run_named("sleeper"))

    # When
    for tick in range(1, 241):
        watch.check(100 + tick * 0.05, others=3)

    # Then it is in the log after 1 and 10 seconds
    (blocked,) = sent
    assert isinstance(blocked, LoopBlocked)
    assert blocked.name == "sleeper"
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert all("daemon sleeper: blocks the event loop" in text for text in texts)
    assert "3 other daemons wait" in texts[0]

    # When
    clock.handle = None
    watch.check(112.05, others=3)

    # Then
    assert isinstance(sent[-1], LoopFree)
    assert len(sent) == 2


def test_repeated_stalls_of_a_daemon_are_logged_at_growing_intervals_but_all_are_counted(
    watched: tuple[StepClock, StallWatch, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    clock, watch, sent = watched
    run = run_named("repeater")

    # When it stalls each second for a minute
    now = 100.0
    for second in range(60):
        clock.stalls.append(Stall(run, 100.0 + second, 0.2, 0.2))
        for _ in range(20):
            now += 0.05
            watch.check(now, others=1)

    # Then
    assert sum(len(message.items) for message in sent) == 60
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3, "at 0, 10 and 30 s"
    assert "times since the last warning" in warnings[1].getMessage()


def test_nobody_is_blamed_for_a_time_in_which_the_whole_process_was_stopped(
    watched: tuple[StepClock, StallWatch, list[Any]],
) -> None:
    # Given a step that was under way when the process was stopped for ten seconds
    clock, watch, sent = watched
    run = run_named("innocent")
    clock.began, clock.handle = 100.01, Handle(run)

    # When
    watch.check(110.0, others=1)
    clock.handle = None
    watch.check(110.05, others=1)
    clock.stalls.append(Stall(run, 110.06, 9.99, 0.001))
    watch.check(120.1, others=1)

    # Then
    assert sent == []


def test_a_call_that_held_the_gil_is_blamed_although_nothing_could_look_meanwhile(
    watched: tuple[StepClock, StallWatch, list[Any]],
) -> None:
    clock, watch, sent = watched

    clock.stalls.append(Stall(run_named("guilty"), 100.0, 3.0, 2.9))
    watch.check(103.0, others=1)

    assert [item[0] for message in sent for item in message.items] == ["guilty"]


@pytest.mark.timing
def test_of_a_thousand_daemons_the_one_that_blocks_is_named() -> None:
    assert stalls.naming(100).met
