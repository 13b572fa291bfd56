"""Run the package's callbacks inside the worker, so that no error of the package stops the worker's own tasks.

Celery treats an ``OSError`` that leaves a timer or a consumer callback as a lost broker connection, and reconnects. If
such an error came back with every attempt, the worker would reconnect without end and run no task.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds until the next attempt after a failure, doubled for each further failure up to the maximum.
_FIRST_PAUSE: Final = 0.25
_MAX_PAUSE: Final = 30.0
#: Doublings that are enough to reach the maximum, whatever the number of failures.
_DOUBLINGS: Final = 7
#: The most different errors since the last success that are remembered, so that each is logged once.
_REMEMBERED_ERRORS: Final = 20


class Guard:
    """Calls functions that may fail, and lets no exception out.

    Each different error is logged once until a call succeeds. ``what`` is the subject of the message, for example
    ``"node w1@host: checking the agent"``; ``remedy`` says what happens next and what a person can do. With ``pauses``,
    calls that come too soon after a failure are skipped. ``expected`` failures have no traceback in the log.
    """

    def __init__(
        self,
        what: str,
        *,
        remedy: str,
        pauses: bool = False,
        expected: type[Exception] = OSError,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._remedy = remedy
        self._pauses = pauses
        self._expected = expected
        self._clock = clock
        self._not_before = 0.0
        self._failures = 0
        self._errors: set[str] = set()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call ``function`` and return the result; ``None`` if the call failed or was skipped."""
        if self._pauses and self._clock() < self._not_before:
            return None
        try:
            result = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker's own tasks must continue
            self._note(error)
            return None
        if self._failures:
            logger.info("%s works again", self._what)
            self._failures = 0
            self._errors.clear()
        return result

    @property
    def pause(self) -> float:
        """Seconds until the next attempt makes sense; 0 after a success."""
        return max(0.0, self._not_before - self._clock()) if self._failures else 0.0

    def _note(self, error: Exception) -> None:
        self._not_before = self._clock() + min(_MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, _DOUBLINGS))
        self._failures += 1
        shown = f"{type(error).__name__}: {error}"
        known = shown in self._errors or len(self._errors) >= _REMEMBERED_ERRORS
        # What is expected is a fact about the machine or the broker. Anything else is a defect: show where.
        trace = None if isinstance(error, self._expected) else error
        logger.log(
            logging.DEBUG if known else logging.ERROR,
            "%s failed (%s); %s",
            self._what,
            shown,
            self._remedy,
            exc_info=trace,
        )
        self._errors.add(shown)
