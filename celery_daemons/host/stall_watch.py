"""Decide which stalls of an event loop are reported: some while they last, others after their end."""

from collections.abc import Callable
from typing import Any, Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.host.current_run import Run, run_of
from celery_daemons.host.stall_log import StallLog
from celery_daemons.host.step_clock import STALL, Stall, StepClock
from celery_daemons.wire.inspection import StackFrame
from celery_daemons.wire.loop_messages import LoopBlocked, LoopFree, Stalled

#: Seconds between two checks of the event loop: each stall is seen at least once while it lasts, with its stack.
TICK: Final = STALL / 2
#: Seconds after which a stall that lasts is reported to the agent.
LASTING: Final = 1.0
#: A stall that lasts is logged after that time, and again whenever its duration has grown by this factor.
_LOG_FACTOR: Final = 10.0
#: Seconds between two checks above which the whole process was stopped, or waited for a call that holds the GIL.
_GAP: Final = 0.5
#: The share of a gap that has to be processor time of the loop, for a call that held the GIL.
_GAP_CPU_SHARE: Final = 0.5


class StallWatch:
    """Compares the step that the loop executes with the step of the last check. Times are by ``perf_counter``."""

    def __init__(
        self, clock: StepClock, *, send: Callable[[object], None], stack: Callable[[], list[StackFrame]], log: StallLog
    ) -> None:
        self._clock = clock
        self._send = send
        self._stack = stack
        self._log = log
        self._last_check = 0.0
        #: Steps count from this time at the earliest: before it, the whole process was stopped.
        self._not_before = 0.0
        #: The start of the last step that was seen to stall, and its stack.
        self._seen_began = 0.0
        self._seen_frames: list[StackFrame] = []
        #: The start of the step that was reported as lasting, and when it is logged again.
        self._reported_began: float | None = None
        self._log_after = LASTING

    def check(self, now: float, *, others: int) -> None:
        """Report what has happened since the last check; ``others`` is the number of the other daemons of the loop."""
        gap = now - self._last_check if self._last_check else 0.0
        self._last_check = now
        if gap > _GAP:
            self._not_before = now
        self._check_ended(gap, now, others)
        handle, began = self._clock.handle, self._clock.began
        if self._reported_began is not None and (handle is None or began != self._reported_began):
            self._reported_began = None
            self._send(LoopFree())
        if handle is not None:
            self._check_current(handle, began, now, others)

    def _check_current(self, handle: Any, began: float, now: float, others: int) -> None:
        seconds = now - max(began, self._not_before)
        if seconds < TICK / 2:
            return
        if began != self._seen_began:
            frames = self._stack()
            if self._clock.handle is not handle or self._clock.began != began:
                return
            self._seen_began, self._seen_frames, self._log_after = began, frames, LASTING
        run = run_of(handle._context)
        if seconds >= self._log_after:
            if self._reported_began is None:
                self._reported_began = began
                name, token = _identity(run)
                self._send(LoopBlocked(name, token, seconds))
            self._log.lasts(run, seconds, self._seen_frames, others=others)
            self._log_after *= _LOG_FACTOR

    def _check_ended(self, gap: float, now: float, others: int) -> None:
        ended: list[Stall] = []
        while self._clock.stalls:
            stall = self._clock.stalls.popleft()
            if gap <= _GAP or stall.seconds <= gap / 2 or stall.cpu_seconds >= _GAP_CPU_SHARE * stall.seconds:
                ended.append(stall)
        if ended:
            self._send(Stalled([(*_identity(stall.run), stall.seconds) for stall in ended]))
        for stall in ended:
            frames = self._seen_frames if stall.began == self._seen_began else []
            self._log.ended(stall.run, stall.seconds, frames, others=others, now=now)


def _identity(run: Run | None) -> tuple[DaemonName, Token]:
    """Return the name and token of a run, empty and 0 for code outside of daemons."""
    return (run.name, run.token) if run is not None else (DaemonName(""), Token(0))
