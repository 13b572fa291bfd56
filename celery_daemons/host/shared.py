"""A host for many daemons: coroutines on its event loop, and threads for those that ask for one."""

import asyncio
import contextlib
import gc
import threading
from functools import partial

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.host.base import Host, end_of
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher
from celery_daemons.wire.messages import Alive

#: The most daemons in one message to the agent.
_BATCH = 1000
#: New objects after which the collector looks for garbage. With the interpreter's few hundred, a batch of starts would
#: have it go over all that runs here already, again and again.
_COLLECT_AFTER = 10_000


class SharedHost(Host):
    """Runs the event loop in the main thread until the process ends."""

    def run(self) -> int:
        """Serve for ever."""
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._tasks: dict[str, tuple[asyncio.Task[object], DaemonContext]] = {}
        self._threads: dict[str, BlockingDaemonContext] = {}
        self._new: list[tuple[DaemonName, Token]] = []
        self._gone: list[End] = []
        self._flushing = False
        newest, *older = gc.get_threshold()
        if newest:
            gc.set_threshold(max(newest, _COLLECT_AFTER), *older)
        self.start_receiving()
        while True:
            # A daemon that raises SystemExit ends itself, and takes the loop out of its turn: the others go on.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self._loop.run_forever()

    def begin(self, items: list[StartItem]) -> None:
        """Hand the daemons to the loop."""
        self._loop.call_soon_threadsafe(self._begin, items)

    def stop(self, names: list[DaemonName]) -> None:
        """Cancel coroutines, and tell threads."""
        self._loop.call_soon_threadsafe(self._stop, names)

    def probe(self) -> None:
        """Answer from the loop."""
        self._loop.call_soon_threadsafe(self.tell, Alive())

    def _begin(self, items: list[StartItem]) -> None:
        for item in items:
            try:
                self._begin_one(item, *self.prepare(item))
            except BaseException as error:  # noqa: BLE001 - a class may raise anything when it is made, also SystemExit
                # Nor may the rest of the batch suffer from a launcher not known here, or from the want of a thread.
                self._note_end(end_of(item.name, item.token, stopping=False, error=error))
        # Before the first step of the first of them: one that never lets go of the loop has started all the same, and
        # only what has started can be found to hang.
        self._flush()

    def _begin_one(
        self, item: StartItem, launcher: Launcher, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if launcher.options.isolation == "thread":
            blocking = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, threading.Event())
            thread = threading.Thread(
                target=self._run_thread, args=(launcher, blocking, args, kwargs), name=item.name, daemon=True
            )
            thread.start()
            # It reports its end through this loop, which is busy here: not before it is known.
            self._threads[item.name] = blocking
            self.watch(launcher, blocking)
        else:
            ctx = DaemonContext(item.name, item.launcher, self._node, item.token, asyncio.Event())
            task = self._loop.create_task(launcher.start(ctx, args, kwargs))
            self._tasks[item.name] = (task, ctx)
            self.watch(launcher, ctx)
            task.add_done_callback(partial(self._task_done, ctx))
        self._new.append((item.name, item.token))

    def _run_thread(
        self, launcher: Launcher, ctx: BlockingDaemonContext, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        error: BaseException | None = None
        try:
            launcher.start(ctx, args, kwargs)
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, also SystemExit
            error = raised
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
            error = None if stopping else asyncio.CancelledError("it cancelled itself")
        else:
            error = task.exception()
        self._done(ctx, error)

    def _thread_done(self, ctx: BlockingDaemonContext, error: BaseException | None) -> None:
        del self._threads[ctx.name]
        self._done(ctx, error)

    def _done(self, ctx: DaemonContext | BlockingDaemonContext, error: BaseException | None) -> None:
        self.unwatch(ctx.name)
        self._note_end(end_of(ctx.name, ctx.token, stopping=ctx.stopping.is_set(), error=error))

    def _note_end(self, end: End) -> None:
        self._gone.append(end)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        new, self._new = self._new, []
        gone, self._gone = self._gone, []
        for start in range(0, len(new), _BATCH):
            self.started(new[start : start + _BATCH])
        for start in range(0, len(gone), _BATCH):
            self.ended(gone[start : start + _BATCH])
