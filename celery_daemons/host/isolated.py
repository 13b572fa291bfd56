"""A host for one daemon, which runs in the main thread of a separate process."""

import asyncio
import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable

import setproctitle

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.runs import StartItem
from celery_daemons.errors import DaemonsError
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.host.base import Host, end_of_run
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.messages import ToHost


class IsolatedHost(Host):
    """Waits for one daemon, runs the daemon, reports the end and exits; SIGTERM asks the daemon to stop."""

    def __init__(self, *, channel: Channel[ToHost], registry: Registry, node: str, deadman: Deadman | None) -> None:
        super().__init__(channel=channel, registry=registry, node=node, deadman=deadman)
        self._stopping = threading.Event()
        self._items: queue.SimpleQueue[StartItem] = queue.SimpleQueue()
        #: Cancels the coroutine of the daemon, once there is one.
        self._interrupt: Callable[[], None] = lambda: None
        self._wake, self._wake_end = os.pipe()
        os.set_blocking(self._wake_end, False)

    def run(self) -> int:
        """Run the daemon and return the exit status of the process."""
        # A handler of SIGTERM would run in the main thread, possibly while that thread holds the lock of the event
        # that the handler has to set. The wake-up descriptor passes the signal to the receiving thread instead.
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self.start_receiving()
        item = self._items.get()
        setproctitle.setproctitle(f"celery_daemons.host: {self._node} daemon {item.name}")
        error: BaseException | None = None
        try:
            launcher, args, kwargs = self.prepare(item)
            if not self._stopping.is_set():
                self._run_daemon(item, launcher, args, kwargs)
        except (DaemonsError, ValueError) as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, SystemExit included
            error = raised
        self.unwatch(item.name)
        self.report_ended([end_of_run(item.name, item.token, stopping=self._stopping.is_set(), error=error)])
        return 0

    def begin(self, items: list[StartItem]) -> None:
        """Pass the daemon to the main thread."""
        for item in items:
            self._items.put(item)

    def stop(self, names: list[DaemonName]) -> None:
        """Ask the daemon to stop."""
        self._stopping.set()
        self._interrupt()

    def probe(self) -> None:
        """Do nothing: the agent probes shared hosts only, where one daemon can block the others."""

    def extra_fds(self) -> list[int]:
        """Return the wake-up descriptor, which becomes readable when a signal arrives."""
        return [self._wake]

    def on_readable(self, fd: int) -> None:
        """Stop the daemon if SIGTERM has arrived."""
        if signal.SIGTERM in os.read(fd, 64):
            self.stop([])

    def _run_daemon(
        self, item: StartItem, launcher: Launcher, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if launcher.is_async:
            asyncio.run(self._run_coroutine(item, launcher, args, kwargs))
            return
        ctx = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, self._stopping)
        self.watch(launcher, ctx)
        self.report_started([(item.name, item.token)])
        launcher.start(ctx, args, kwargs)

    async def _run_coroutine(
        self, item: StartItem, launcher: Launcher, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        loop = asyncio.get_running_loop()
        ctx = DaemonContext(item.name, item.launcher, self._node, item.token, asyncio.Event())
        task = loop.create_task(launcher.start(ctx, args, kwargs))

        def interrupt() -> None:
            ctx.stopping.set()
            task.cancel()

        def interrupt_soon() -> None:
            # The loop may have closed in the meantime: then there is nothing left to cancel.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(interrupt)

        self._interrupt = interrupt_soon
        # A stop that arrived before this assignment found no coroutine to cancel.
        if self._stopping.is_set():
            interrupt()
        self.watch(launcher, ctx)
        self.report_started([(item.name, item.token)])
        try:
            await task
        except asyncio.CancelledError:
            if not ctx.stopping.is_set():
                raise
