"""Log which daemon blocks the event loop: at once, and then at growing intervals."""

import logging
import os
from collections import OrderedDict
from typing import Final

from celery_daemons.domain.names import DaemonName
from celery_daemons.host.current_run import Run
from celery_daemons.host.frames import as_text
from celery_daemons.wire.inspection import StackFrame

logger = logging.getLogger(__name__)

#: Seconds without a warning about a daemon after its first stall in the log, doubled with each further warning up to
#: the maximum.
_FIRST_SILENCE: Final = 10.0
_LONGEST_SILENCE: Final = 600.0
#: The most daemons for which the interval is remembered.
_REMEMBERED: Final = 1000
_REMEDY: Final = "use asyncio.to_thread for what blocks, or isolation='process' or 'auto' for the launcher"


class _Silence:
    __slots__ = ("length", "skipped", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.length = 0.0
        self.skipped = 0


class StallLog:
    """Writes the warnings of one host. Times are by ``perf_counter``."""

    def __init__(self) -> None:
        self._silences: OrderedDict[str, _Silence] = OrderedDict()

    def ended(self, run: Run | None, seconds: float, frames: list[StackFrame], *, others: int, now: float) -> None:
        """Report a stall that is over, unless one of the same daemon was reported shortly before."""
        name = run.name if run is not None else DaemonName("")
        silence = self._silences.setdefault(name, _Silence())
        self._silences.move_to_end(name)
        if len(self._silences) > _REMEMBERED:
            self._silences.popitem(last=False)
        if now < silence.until:
            silence.skipped += 1
            return
        first = not silence.length or now - silence.until > _LONGEST_SILENCE
        silence.length = _FIRST_SILENCE if first else min(_LONGEST_SILENCE, 2 * silence.length)
        silence.until = now + silence.length
        skipped, silence.skipped = silence.skipped, 0
        more = f", and {skipped} times since the last warning" if skipped else ""
        self._warn(run, f"blocked the event loop of host {os.getpid()} for {seconds:.2f} s{more}", frames, others)

    def lasts(self, run: Run | None, seconds: float, frames: list[StackFrame], *, others: int) -> None:
        """Report a stall that is not over."""
        self._warn(run, f"blocks the event loop of host {os.getpid()} since {seconds:.1f} s", frames, others)

    def _warn(self, run: Run | None, what: str, frames: list[StackFrame], others: int) -> None:
        waiting = f"; {others} other daemons wait for it" if others > 0 else ""
        stack = f"\n{as_text(frames)}" if frames else " (no stack: the code did not release the GIL)"
        if run is None:
            logger.warning("code outside of daemons: %s%s; %s%s", what, waiting, _REMEDY, stack)
            return
        with run.active():
            logger.warning("daemon %s: %s%s; %s%s", run.name, what, waiting, _REMEDY, stack)
