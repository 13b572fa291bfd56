"""A host for one daemon, which runs in the main thread of a separate process."""

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from queue import Empty
from typing import Final

import setproctitle

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.runs import StartItem
from celery_daemons.errors import DaemonsError
from celery_daemons.forkserver import unpatched
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.forkserver.process_end import end_forked_child
from celery_daemons.host.base import Host, end_forks_after_their_step, end_of_run
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.host.current_run import Run
from celery_daemons.host.frames import all_threads, task_frames
from celery_daemons.host.log_capture import LogCapture
from celery_daemons.host.watcher import Watcher
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.inspection import Refusal, Stack, ThreadStack
from celery_daemons.wire.loop_messages import AskStack
from celery_daemons.wire.messages import ToHost

#: Seconds for the receiving thread to handle what has arrived; it waits for nothing but the GIL.
_CATCH_UP_TIMEOUT: Final = 1.0

#: Bytes from the main thread to the receiving thread.
_CATCH_UP: Final = b"?"
_SIGTERM_ARRIVED: Final = b"t"


class IsolatedHost(Host):
    """Waits for a single daemon, runs the daemon, reports the end and exits.

    The agent asks the daemon to stop by a message; the SIGTERM that follows is for handlers of the daemon's own.
    SIGTERM from elsewhere asks the daemon to stop as well.
    """

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
        self._watcher = Watcher(send=self.send, stack_of=self._stack_of)
        #: The task of a coroutine daemon, once there is one.
        self._task: asyncio.Task[object] | None = None
        self._token = 0
        self._stopping = threading.Event()
        self._items: unpatched.SimpleQueue[StartItem | None] = unpatched.SimpleQueue()
        #: Cancels the coroutine of the daemon, once there is one.
        self._interrupt: Callable[[], None] = lambda: None
        self._from_main, self._to_receiver = os.pipe()
        os.set_blocking(self._to_receiver, False)
        self._caught_up: unpatched.SimpleQueue[None] = unpatched.SimpleQueue()
        #: Wakes the hub of gevent or eventlet, where their greenlets have replaced threads.
        self._hub_end, self._to_hub = os.pipe() if unpatched.threads_are_green() else (-1, -1)

    def run(self) -> int:
        """Run the daemon and return the exit status of the process."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if self._hub_end >= 0:
            threading.Thread(target=self._wake_hub, daemon=True).start()
        self.report_ready()
        item = self._items.get()
        if item is None:
            return 0
        setproctitle.setproctitle(f"celery_daemons.host: {self._node} daemon {item.name}")
        run = Run(item.name, item.launcher, item.token)
        self._token = item.token
        error: BaseException | None = None
        try:
            launcher, args, kwargs = self.prepare(item)
            if not self._stopping.is_set():
                with self._capture.whole_process(run):
                    self._run_daemon(item, launcher, args, kwargs)
        except (DaemonsError, ValueError) as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - a daemon may raise anything, SystemExit included
            error = raised
        if self.forked:
            end_forked_child(error)
        self._catch_up()
        self.unwatch(item.name)
        self.report_ended([end_of_run(run, stopping=self._stopping.is_set(), error=error)])
        return 0

    def begin(self, items: list[StartItem]) -> None:
        """Pass the daemon to the main thread."""
        for item in items:
            self._items.put(item)

    def stop(self, names: list[DaemonName]) -> None:
        """Ask the daemon to stop. A second request is ignored: a second cancellation would interrupt the clean-up."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._interrupt()
            if self._to_hub >= 0:
                os.write(self._to_hub, b"!")

    def ask_stack(self, question: AskStack) -> None:
        """Let the watcher answer, which is started by the first question."""
        self._watcher.ask(question)

    def _stack_of(self, name: DaemonName) -> Stack | Refusal:
        """Return the stacks of all threads, and that of the daemon's task."""
        task, stacks = self._task, all_threads()
        if task is not None and not task.done():
            stacks.insert(0, ThreadStack("task", task_frames(task)))
        return Stack(kind="process", pid=os.getpid(), token=self._token, stacks=stacks)

    def probe(self) -> None:
        """Do nothing: the agent probes shared hosts only, where a daemon can block the others."""

    def leave(self) -> None:
        """End a host that still waits for a daemon; :meth:`stop` asks a running daemon."""
        self._items.put(None)

    def extra_fds(self) -> list[int]:
        """Return the descriptor by which the main thread reaches the receiving thread."""
        return [self._from_main]

    def on_readable(self, fd: int) -> None:
        """Stop the daemon if SIGTERM has arrived, and confirm that the messages which had arrived are handled."""
        requests = os.read(fd, 64)
        if _SIGTERM_ARRIVED in requests:
            self.stop([])
        if _CATCH_UP in requests:
            self._caught_up.put(None)

    def _wake_hub(self) -> None:
        """Wait, as a greenlet, for the stop, and set the event again.

        An event that another thread sets does not wake the hub, and the daemon would continue to wait.
        """
        select.select([self._hub_end], [], [])
        self._stopping.set()

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        # Not stop(): this runs in the main thread, possibly while that thread holds the lock of the event to set.
        with contextlib.suppress(BlockingIOError):
            os.write(self._to_receiver, _SIGTERM_ARRIVED)

    def _catch_up(self) -> None:
        """Wait until the messages that have arrived are handled.

        A daemon with a handler of SIGTERM may end before the receiving thread has read the request to stop. Without
        that request its end would count as its own decision, after which its restart policy may not start it again.
        """
        os.write(self._to_receiver, _CATCH_UP)
        with contextlib.suppress(Empty):
            self._caught_up.get(timeout=_CATCH_UP_TIMEOUT)

    def _run_daemon(
        self, item: StartItem, launcher: Launcher[...], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if launcher.is_async:
            asyncio.run(self._run_coroutine(item, launcher, args, kwargs))
            return
        ctx = BlockingDaemonContext(item.name, item.launcher, self._node, item.token, self._stopping)
        self.watch(launcher, ctx)
        self.report_started([(item.name, item.token)])
        with self.announced(ctx):
            launcher.start(ctx, args, kwargs)

    async def _run_coroutine(
        self, item: StartItem, launcher: Launcher[...], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        loop = asyncio.get_running_loop()
        end_forks_after_their_step(loop)
        ctx = DaemonContext(item.name, item.launcher, self._node, item.token, asyncio.Event())
        with self.announced(ctx):
            task = self._task = loop.create_task(launcher.start(ctx, args, kwargs))

            def interrupt() -> None:
                ctx.stopping.set()
                task.cancel()

            def interrupt_soon() -> None:
                # The loop may have closed in the meantime.
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
                    raise asyncio.CancelledError("the daemon cancelled itself") from None
