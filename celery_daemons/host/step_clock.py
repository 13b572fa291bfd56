"""Measure which daemon holds the event loop and since when, and how much processor time each daemon uses."""

import asyncio
import selectors
import time
from collections import deque
from typing import Any, Final, NamedTuple

from celery_daemons.host.current_run import Run, run_of

#: Seconds that a step on the event loop may take. A longer one is a stall: all other daemons of the host wait for it.
STALL: Final = 0.1
#: The processor's clock is read, by a system call, only for steps of at least this many seconds. Shorter steps hardly
#: wait for anything, so their duration is their processor time.
_SHORT: Final = 0.001


class Stall(NamedTuple):
    """A step that took too long; ``run`` is ``None`` for code outside of daemons, ``began`` by ``perf_counter``.

    ``cpu_seconds`` is the processor time of the step, which is short for a blocking wait.
    """

    run: Run | None
    began: float
    seconds: float
    cpu_seconds: float


class StepClock:
    """The measurements of one event loop. Written by the thread of the loop, read by the watcher."""

    def __init__(self) -> None:
        #: The callback that runs now and its start; ``None`` while the loop waits.
        self.handle: Any = None
        self.began = 0.0
        #: Stalls that the watcher has not fetched.
        self.stalls: deque[Stall] = deque(maxlen=1000)
        self._cpu_read = time.thread_time()
        #: Seconds of short steps since the processor's clock was read.
        self._short = 0.0

    def held_for(self, run: Run) -> float | None:
        """Return for how many seconds the present step of a run has lasted; ``None`` if no step of it is executed."""
        handle, began = self.handle, self.began
        if handle is None or run_of(handle._context) is not run:
            return None
        return time.perf_counter() - began

    def end_step(self, now: float) -> None:
        """Add the step that has ended to the measurements, if one was under way."""
        handle, self.handle = self.handle, None
        if handle is None:
            return
        seconds = now - self.began
        run = run_of(handle._context)
        if seconds < _SHORT:
            self._short += seconds
            if run is not None:
                run.cpu_seconds += seconds
            return
        cpu = time.thread_time()
        used = cpu - self._cpu_read - self._short
        self._cpu_read, self._short = cpu, 0.0
        used = min(max(0.0, used), seconds)
        if run is not None:
            run.cpu_seconds += used
        if seconds >= STALL:
            if run is not None:
                run.stalls += 1
                run.stall_seconds += seconds
            self.stalls.append(Stall(run, self.began, seconds, used))


class _TimedQueue(deque[Any]):
    """The callbacks that are ready to run: an event loop takes one from here for each step."""

    clock: StepClock

    def popleft(self) -> Any:
        handle = deque.popleft(self)
        clock = self.clock
        now = time.perf_counter()
        clock.end_step(now)
        # In this order: the watcher reads the handle first, and must not find it with the start of an earlier step.
        clock.began = now
        clock.handle = handle
        return handle


class _TimedSelector(selectors.DefaultSelector):
    """A selector that ends the last step when the loop asks for events."""

    clock: StepClock

    def select(self, timeout: float | None = None) -> Any:
        self.clock.end_step(time.perf_counter())
        return super().select(timeout)


def new_loop() -> tuple[asyncio.AbstractEventLoop, StepClock | None]:
    """Return a new event loop and its clock; ``None`` for a loop that is not asyncio's own, such as uvloop's."""
    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        return loop, None
    loop.close()
    clock = StepClock()
    selector = _TimedSelector()
    selector.clock = clock
    timed = asyncio.SelectorEventLoop(selector)
    ready = _TimedQueue(timed._ready)  # type: ignore[attr-defined]
    ready.clock = clock
    timed._ready = ready  # type: ignore[attr-defined]
    return timed, clock
