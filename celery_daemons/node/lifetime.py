"""The background tasks of the agent's process, and the moment at which it has to leave."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Lifetime:
    """Runs background tasks until something asks the process to leave."""

    def __init__(self, *, node: str, drain_timeout: float) -> None:
        self._node = node
        self._drain_timeout = drain_timeout
        self._leave_within: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        #: The time by which the process must have left, on the event loop's clock, once a request has come.
        self._leave_by = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()

    def handle_signals(self) -> None:
        """Leave on SIGTERM, and ignore SIGINT: a service manager may signal every process of the worker's group."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.leave)
        loop.add_signal_handler(signal.SIGINT, lambda: None)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a background task; if the task fails, the process leaves, and the worker starts a new agent."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def leave(self, within: float | None = None) -> None:
        """Leave within so many seconds, by default the drain time-out; a later request can only shorten the time."""
        seconds = self._drain_timeout if within is None else within
        self._leave_by = min(self._leave_by, asyncio.get_running_loop().time() + seconds)
        if not self._leave_within.done():
            self._leave_within.set_result(seconds)

    @property
    def is_leaving(self) -> bool:
        """Whether a request to leave has come."""
        return self._leave_within.done()

    @property
    def left(self) -> float:
        """The seconds that are left; negative once the time is over."""
        return self._leave_by - asyncio.get_running_loop().time()

    async def wait(self) -> float:
        """Wait for the request to leave; return the seconds that are left for leaving."""
        return await self._leave_within

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.critical("node %s: the agent failed", self._node, exc_info=task.exception())
            self.leave()
