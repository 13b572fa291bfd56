"""A host for many daemons: coroutines on one event loop, and a thread for each daemon that asks for a thread."""

import asyncio
import gc
import threading
import time
from contextvars import copy_context
from functools import partial
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.forkserver.app_connections import close_django
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.forkserver.process_end import end_forked_child
from celery_daemons.host.base import Host, end_forks_after_their_step, end_of_run
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.messages import Alive, HostNumbers, ToHost

#: Daemons in one message to the agent.
_BATCH: Final = 1000
#: New objects after which the garbage collector runs. With Python's default of some hundred, a large batch of starts
#: would make the collector scan all daemons of the host again and again.
_GC_THRESHOLD: Final = 10_000


class SharedHost(Host):
    """Runs an event loop in the main thread until the agent ends the process."""

    def __init__(self, *, channel: Channel[ToHost], registry: Registry, node: str, deadman: Deadman | None) -> None:
        super().__init__(channel=channel, registry=registry, node=node, deadman=deadman)
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, tuple[asyncio.Task[object], DaemonContext]] = {}
        self._threads: dict[str, BlockingDaemonContext] = {}
        #: Starts and ends that the next flush reports.
        self._new: list[tuple[DaemonName, Token]] = []
        self._ended: list[End] = []
        self._flush_scheduled = False
        self._leaving = False

    def run(self) -> int:
        """Serve until the agent asks the host to leave, and return the exit status of the process."""
        end_forks_after_their_step(self._loop)
        asyncio.set_event_loop(self._loop)
        youngest, *older = gc.get_threshold()
        if youngest:
            gc.set_threshold(max(youngest, _GC_THRESHOLD), *older)
        self.report_ready()
        while not self._leaving:
            # A daemon that raises SystemExit ends, and the exception leaves the loop: continue with the other daemons.
            try:
                self._loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as error:
                if self.forked:
                    end_forked_child(error)
        return 0

    def begin(self, items: list[StartItem]) -> None:
        """Pass the daemons to the loop."""
        self._loop.call_soon_threadsafe(self._begin, items)

    def stop(self, names: list[DaemonName]) -> None:
        """Cancel coroutines, and set the stop event of threads."""
        self._loop.call_soon_threadsafe(self._stop, names)

    def probe(self) -> None:
        """Answer the probe from the loop, so that a blocked loop does not answer."""
        self._loop.call_soon_threadsafe(self.send, Alive())

    def check_loop(self) -> None:
        """Report from the loop how long the loop took to get to the question."""
        self._loop.call_soon_threadsafe(self._report_numbers, time.monotonic())

    def _report_numbers(self, asked_at: float) -> None:
        self.send(HostNumbers(loop_lag=time.monotonic() - asked_at))

    def leave(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._stop_loop)

    def _stop_loop(self) -> None:
        self._leaving = True
        self._loop.stop()

    def _begin(self, items: list[StartItem]) -> None:
        for item in items:
            try:
                self._begin_one(item, *self.prepare(item))
            except BaseException as error:  # noqa: BLE001 - a constructor may raise anything, SystemExit included
                # An unknown launcher or a failure to create a thread must not affect the rest of the batch either.
                self._note_end(end_of_run(item.name, item.token, stopping=False, error=error))
        # Reported before the first daemon takes its first step: a daemon that blocks the loop at once has started all
        # the same, and only a daemon that has been reported as started can be found to hang.
        self._flush()

    def _begin_one(
        self, item: StartItem, launcher: Launcher[...], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if launcher.options.isolation == "thread":
            blocking = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, threading.Event())
            thread = threading.Thread(
                target=self._run_thread, args=(launcher, blocking, args, kwargs), name=item.name, daemon=True
            )
            thread.start()
            # Safe after the start: the thread reports its end through this loop, which is busy with this very call.
            self._threads[item.name] = blocking
            self.watch(launcher, blocking)
        else:
            ctx = DaemonContext(item.name, item.launcher, self._node, item.token, asyncio.Event())
            # One context for the daemon and for what is called before and after the daemon.
            context = copy_context()
            context.run(self.announce_start, ctx)
            try:
                task = self._loop.create_task(context.run(launcher.start, ctx, args, kwargs), context=context)
            except BaseException as error:
                context.run(self.announce_end, ctx, error)
                raise
            self._tasks[item.name] = (task, ctx)
            self.watch(launcher, ctx)
            task.add_done_callback(partial(self._task_done, ctx), context=context)
        self._new.append((item.name, item.token))

    def _run_thread(
        self, launcher: Launcher[...], ctx: BlockingDaemonContext, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        error: BaseException | None = None
        try:
            with self.announced(ctx):
                launcher.start(ctx, args, kwargs)
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, SystemExit included
            error = raised
        if self.forked:
            end_forked_child(error)
        # This thread ends, and nothing else would close its connections.
        close_django()
        self._loop.call_soon_threadsafe(self._thread_done, ctx, error)

    def _stop(self, names: list[DaemonName]) -> None:
        for name in names:
            if name in self._tasks:
                task, ctx = self._tasks[name]
                ctx.stopping.set()
                task.cancel()
            elif name in self._threads:
                self._threads[name].stopping.set()

    def _task_done(self, ctx: DaemonContext, task: asyncio.Task[object]) -> None:
        del self._tasks[ctx.name]
        stopping = ctx.stopping.is_set()
        error: BaseException | None
        if task.cancelled():
            error = None if stopping else asyncio.CancelledError("the daemon cancelled itself")
        else:
            error = task.exception()
        self.announce_end(ctx, error)
        self._done(ctx, error)

    def _thread_done(self, ctx: BlockingDaemonContext, error: BaseException | None) -> None:
        del self._threads[ctx.name]
        self._done(ctx, error)

    def _done(self, ctx: DaemonContext | BlockingDaemonContext, error: BaseException | None) -> None:
        self.unwatch(ctx.name)
        self._note_end(end_of_run(ctx.name, ctx.token, stopping=ctx.stopping.is_set(), error=error))

    def _note_end(self, end: End) -> None:
        self._ended.append(end)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        new, self._new = self._new, []
        ended, self._ended = self._ended, []
        for start in range(0, len(new), _BATCH):
            self.report_started(new[start : start + _BATCH])
        for start in range(0, len(ended), _BATCH):
            self.report_ended(ended[start : start + _BATCH])
