"""The context that every daemon receives: identity, fencing token, logger, and the request to stop."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.host.current_run import Run
from celery_daemons.signals import daemon_beat

if TYPE_CHECKING:
    from celery_daemons.store.fence import FencedRedis

E = TypeVar("E", asyncio.Event, threading.Event)


class _DaemonLog(logging.LoggerAdapter[logging.Logger]):
    """Logs for a daemon wherever it is called, also in threads that the daemon starts by itself."""

    def __init__(self, logger: logging.Logger, run: Run) -> None:
        super().__init__(logger)
        self._run = run

    def process(self, msg: object, kwargs: Any) -> Any:
        """Leave the call as it is: before Python 3.13 an adapter drops the caller's ``extra``."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, with the caller as the place in the code."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        with self._run.active():
            super().log(level, msg, *args, **kwargs)


class _Context(Generic[E]):
    """The part that coroutine and blocking contexts share."""

    __slots__ = ("_is_ready", "_report_ready", "last_beat_at", "launcher", "name", "node", "stopping", "token")

    def __init__(self, name: DaemonName, launcher: LauncherName, node: str, token: Token, stopping: E) -> None:
        self.name = name
        self.launcher = launcher
        self.node = node
        #: Fencing token of this run; tokens of a name only grow. Pass the token to every resource that the daemon
        #: writes to.
        self.token = token
        #: Set when the daemon is asked to stop.
        self.stopping: E = stopping
        #: Monotonic time of the last call of :meth:`beat`, or of the start.
        self.last_beat_at = time.monotonic()
        self._is_ready = False
        self._report_ready: Callable[[], None] | None = None

    def ready(self) -> None:
        """Report that the daemon has started its work, before the ``start_seconds`` of the launcher are over.

        From now on the daemon's status is ``running``. Without ``start_seconds`` this does nothing: the status is
        ``running`` as soon as the code is called.
        """
        self._is_ready = True
        report, self._report_ready = self._report_ready, None
        if report is not None:
            report()

    def when_ready(self, report: Callable[[], None]) -> None:
        """Call ``report`` once the daemon has called :meth:`ready`, which a thread may have done already."""
        self._report_ready = report
        if self._is_ready:
            self.ready()

    def beat(self) -> None:
        """Report progress, and send the signal ``daemon_beat``.

        Needed if the launcher has a ``progress_deadline``, and in a loop that does not call :meth:`sleep` if something
        is done between rounds, as the Django integration does.
        """
        self.last_beat_at = time.monotonic()
        daemon_beat.send(sender=self.launcher, ctx=self)

    def fenced(self, redis: Any) -> "FencedRedis":
        """Return a writer for the user's own Redis; a write is refused once a newer run of this daemon has written.

        ``redis`` is a client of redis-py, blocking or async. A refused write raises :exc:`ClaimLost`.
        """
        from celery_daemons.store.fence import FencedRedis

        return FencedRedis(redis, name=self.name, token=self.token)

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """The logger ``daemons.<launcher>``; its records have ``daemon``, ``launcher`` and ``token``."""
        logger = logging.getLogger(f"daemons.{self.launcher}")
        return _DaemonLog(logger, Run(self.name, self.launcher, self.token))


class DaemonContext(_Context[asyncio.Event]):
    """The context of a coroutine daemon."""

    __slots__ = ()

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until the daemon is asked to stop."""
        daemon_beat.send(sender=self.launcher, ctx=self)
        # Not asyncio.wait_for: in Python 3.11 it swallows a cancellation that arrives together with the event, as it
        # does on a stop. A daemon that sleeps between its rounds would then continue with the next round.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


class BlockingDaemonContext(_Context[threading.Event]):
    """The context of a daemon that runs in a separate process or thread."""

    __slots__ = ()

    def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until the daemon is asked to stop."""
        daemon_beat.send(sender=self.launcher, ctx=self)
        self.stopping.wait(seconds)
