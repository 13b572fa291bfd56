"""A host for one daemon: a process of its own, with the daemon in its main thread."""

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
from celery_daemons.host.base import Host, end_of
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher


class IsolatedHost(Host):
    """Waits for its daemon, runs it, reports its end and ends itself; SIGTERM asks the daemon to stop."""

    def run(self) -> int:
        """Run the one daemon."""
        self._asked = threading.Event()
        self._items: queue.SimpleQueue[StartItem] = queue.SimpleQueue()
        self._interrupt: Callable[[], None] = lambda: None
        # The handler of SIGTERM runs in the main thread, perhaps inside the lock of the very event that it would set;
        # the wake-up descriptor hands the signal to the receiving thread instead.
        self._wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self.start_receiving()
        item = self._items.get()
        setproctitle.setproctitle(f"celery_daemons.host: {self._node} daemon {item.name}")
        error: BaseException | None = None
        try:
            launcher, args, kwargs = self.prepare(item)
            if not self._asked.is_set():
                self._run_daemon(item, launcher, args, kwargs)
        except (DaemonsError, ValueError) as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, also SystemExit
            error = raised
        self.unwatch(item.name)
        self.ended([end_of(item.name, item.token, stopping=self._asked.is_set(), error=error)])
        return 0

    def begin(self, items: list[StartItem]) -> None:
        """Hand the daemon to the main thread."""
        for item in items:
            self._items.put(item)

    def stop(self, names: list[DaemonName]) -> None:
        """Ask the daemon to stop."""
        self._asked.set()
        self._interrupt()

    def probe(self) -> None:
        """Nothing to tell: an isolated host is never asked, its one daemon is all there is."""

    def waiting_fds(self) -> list[int]:
        """The wake-up descriptor."""
        return [self._wake]

    def woken(self, fd: int) -> None:
        """A signal came in."""
        if signal.SIGTERM in os.read(fd, 64):
            self.stop([])

    def _run_daemon(
        self, item: StartItem, launcher: Launcher, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if launcher.is_async:
            asyncio.run(self._run_coroutine(item, launcher, args, kwargs))
            return
        ctx = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, self._asked)
        self.watch(launcher, ctx)
        self.started([(item.name, item.token)])
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
            # The loop may have closed since: then there is nothing left to interrupt.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(interrupt)

        self._interrupt = interrupt_soon
        if self._asked.is_set():
            interrupt()
        self.watch(launcher, ctx)
        self.started([(item.name, item.token)])
        try:
            await task
        except asyncio.CancelledError:
            if not ctx.stopping.is_set():
                raise
