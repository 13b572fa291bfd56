"""A host for many daemons: coroutines on one event loop, and a thread for each daemon that asks for a thread."""

import asyncio
import gc
import os
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
from celery_daemons.host.current_run import Run
from celery_daemons.host.frames import step_frames, task_frames, thread_frames
from celery_daemons.host.log_capture import LogCapture
from celery_daemons.host.stall_log import StallLog
from celery_daemons.host.stall_watch import StallWatch
from celery_daemons.host.step_clock import new_loop
from celery_daemons.host.watcher import Watcher
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.inspection import Refusal, Stack, ThreadStack
from celery_daemons.wire.loop_messages import AskStack
from celery_daemons.wire.messages import Alive, HostNumbers, ToHost

#: Daemons in one message to the agent.
_BATCH: Final = 1000
#: New objects after which the garbage collector runs. With Python's default of some hundred, a large batch of starts
#: would make the collector scan all daemons of the host again and again.
_GC_THRESHOLD: Final = 10_000


class SharedHost(Host):
    """Runs an event loop in the main thread until the agent ends the process."""

    def __init__(
        self,
        *,
        channel: Channel[ToHost],
        registry: Registry,
        node: str,
        deadman: Deadman | None,
        capture: LogCapture,
    ) -> None:
        super().__init__(channel=channel, registry=registry, node=node, deadman=deadman, capture=capture)
        self._loop, self._clock = new_loop()
        self._loop_thread = threading.get_ident()
        self._tasks: dict[str, tuple[asyncio.Task[object], DaemonContext, Run]] = {}
        self._threads: dict[str, tuple[threading.Thread, BlockingDaemonContext, Run]] = {}
        watch = None
        if self._clock is not None:
            watch = StallWatch(
                self._clock, send=self.send, stack=lambda: step_frames(self._loop_thread), log=StallLog()
            )
        self._watcher = Watcher(send=self.send, stack_of=self._stack_of, watch=watch, count=lambda: len(self._tasks))
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
        self._watcher.start()
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

    def ask_stack(self, question: AskStack) -> None:
        """Let the watcher answer, which works while the loop is blocked."""
        self._watcher.ask(question)

    def _stack_of(self, name: DaemonName) -> Stack | Refusal:
        if name in self._threads:
            thread, _, run = self._threads[name]
            stacks = [ThreadStack(thread.name, thread_frames(thread.ident or 0))]
            return Stack(kind="thread", pid=os.getpid(), token=run.token, stacks=stacks)
        if name not in self._tasks:
            return Refusal(why="the host does not run it (yet)")
        task, _, run = self._tasks[name]
        held_for = self._clock.held_for(run) if self._clock is not None else None
        frames = task_frames(task) if held_for is None else step_frames(self._loop_thread)
        return Stack(
            kind="task",
            pid=os.getpid(),
            token=run.token,
            stacks=[ThreadStack(task.get_name(), frames)],
            holds_loop_for=held_for,
            cpu_seconds=run.cpu_seconds,
            stalls=run.stalls,
            stall_seconds=run.stall_seconds,
        )

    def check_loop(self) -> None:
        """Report from the loop how long the loop took to answer."""
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
                run = Run(item.name, item.launcher, item.token)
                self._note_end(end_of_run(run, stopping=False, error=error))
        # Reported before the first daemon takes its first step: a daemon that blocks the loop at once has still
        # started, and only a daemon that was reported as started can be found to hang.
        self._flush()

    def _begin_one(
        self, item: StartItem, launcher: Launcher[...], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        run = Run(item.name, item.launcher, item.token)
        if launcher.options.isolation == "thread":
            blocking = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, threading.Event())
            thread = threading.Thread(
                target=self._run_thread, args=(launcher, blocking, run, args, kwargs), name=item.name, daemon=True
            )
            thread.start()
            # Safe after the start: the thread reports its end through this loop, which is busy with this very call.
            self._threads[item.name] = (thread, blocking, run)
            self.watch(launcher, blocking)
        else:
            ctx = DaemonContext(item.name, item.launcher, self._node, item.token, asyncio.Event())
            # One context for the daemon and for what is called before and after the daemon.
            with run.active():
                context = copy_context()
            context.run(self.announce_start, ctx)
            try:
                coroutine = context.run(launcher.start, ctx, args, kwargs)
                task = self._loop.create_task(coroutine, name=item.name, context=context)
            except BaseException as error:
                context.run(self.announce_end, ctx, error)
                raise
            self._tasks[item.name] = (task, ctx, run)
            self.watch(launcher, ctx)
            task.add_done_callback(partial(self._task_done, ctx, run), context=context)
        self._new.append((item.name, item.token))

    def _run_thread(
        self,
        launcher: Launcher[...],
        ctx: BlockingDaemonContext,
        run: Run,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        error: BaseException | None = None
        try:
            with run.active(), self.announced(ctx):
                launcher.start(ctx, args, kwargs)
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, SystemExit included
            error = raised
        if self.forked:
            end_forked_child(error)
        # This thread ends, and nothing else would close its connections.
        close_django()
        self._loop.call_soon_threadsafe(self._thread_done, ctx, run, error)

    def _stop(self, names: list[DaemonName]) -> None:
        for name in names:
            if name in self._tasks:
                task, ctx, _ = self._tasks[name]
                ctx.stopping.set()
                task.cancel()
            elif name in self._threads:
                self._threads[name][1].stopping.set()

    def _task_done(self, ctx: DaemonContext, run: Run, task: asyncio.Task[object]) -> None:
        del self._tasks[ctx.name]
        stopping = ctx.stopping.is_set()
        error: BaseException | None
        if task.cancelled():
            error = None if stopping else asyncio.CancelledError("the daemon cancelled itself")
        else:
            error = task.exception()
        self.announce_end(ctx, error)
        self._done(ctx, run, error)

    def _thread_done(self, ctx: BlockingDaemonContext, run: Run, error: BaseException | None) -> None:
        del self._threads[ctx.name]
        self._done(ctx, run, error)

    def _done(self, ctx: DaemonContext | BlockingDaemonContext, run: Run, error: BaseException | None) -> None:
        self.unwatch(ctx.name)
        self._note_end(end_of_run(run, stopping=ctx.stopping.is_set(), error=error))

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
