"""What a daemon is given: who it is, its fencing token, and how it hears that it shall stop."""

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from celery_daemons.domain.names import DaemonName, LauncherName, Token

if TYPE_CHECKING:
    from celery_daemons.store.fence import FencedRedis

E = TypeVar("E", asyncio.Event, threading.Event)

_logger = logging.getLogger("celery_daemons.daemon")


class _NamedLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: object, kwargs: object) -> tuple[object, object]:  # type: ignore[override]
        return f"daemon {self.extra['daemon']}: {msg}", kwargs  # type: ignore[index]


class _Context(Generic[E]):
    """What both kinds of context share."""

    __slots__ = ("beaten", "launcher", "name", "node", "stopping", "token")

    def __init__(self, name: DaemonName, launcher: LauncherName, node: str, token: Token, stopping: E) -> None:
        self.name = name
        self.launcher = launcher
        self.node = node
        #: Fencing token of this start: it only ever grows per name. Hand it to whatever the daemon writes to.
        self.token = token
        #: Set once the daemon shall stop.
        self.stopping: E = stopping
        self.beaten = time.monotonic()

    def beat(self) -> None:
        """Say that the daemon makes progress; asked for only by a launcher with a ``progress_deadline``."""
        self.beaten = time.monotonic()

    def fenced(self, redis: Any) -> "FencedRedis":
        """Writes to the user's own Redis that are refused once a newer start of this daemon has written there.

        ``redis`` is a client of redis-py, blocking or async. A refused write raises :exc:`ClaimLost`.
        """
        from celery_daemons.store.fence import FencedRedis

        return FencedRedis(redis, name=self.name, token=self.token)

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that puts the daemon's name first."""
        return _NamedLog(_logger, {"daemon": self.name})


class DaemonContext(_Context[asyncio.Event]):
    """The context of a coroutine daemon."""

    __slots__ = ()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the daemon shall stop."""
        # Not wait_for: that of Python 3.11 forgets a cancellation that comes together with the event, as a stop does,
        # and a daemon that sleeps between its rounds would go on with them.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


class BlockingDaemonContext(_Context[threading.Event]):
    """The context of a daemon in a process or thread of its own."""

    __slots__ = ()

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the daemon shall stop."""
        self.stopping.wait(seconds)
