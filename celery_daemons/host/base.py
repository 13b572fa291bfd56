"""What shared and isolated hosts have in common: the thread that serves the agent, and how runs are reported."""

import asyncio
import contextlib
import logging
import os
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.domain.states import Outcome
from celery_daemons.errors import NotADaemon
from celery_daemons.forkserver import unpatched
from celery_daemons.forkserver.child import leave_without_agent
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.forkserver.process_end import end_forked_child
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.host.current_run import Run
from celery_daemons.host.log_capture import LogCapture
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.signals import daemon_failed, daemon_started, daemon_stopped
from celery_daemons.store.codec import printable
from celery_daemons.wire.arguments import decode_arguments
from celery_daemons.wire.channel import Channel, ChannelClosed
from celery_daemons.wire.loop_messages import AskStack
from celery_daemons.wire.messages import (
    CheckLoop,
    Ended,
    HostNumbers,
    Hung,
    Lease,
    Leave,
    Probe,
    Proven,
    Ready,
    Start,
    Started,
    Stop,
    ToHost,
)

logger = logging.getLogger(__name__)

#: Seconds between two checks of daemons with a progress deadline. A hang is found at most this much late.
_PROGRESS_CHECK: Final = 0.25
#: Characters of an exception's text that are reported to the agent and stored in Redis.
_ERROR_LENGTH: Final = 500
#: Characters of a traceback that are reported, from its end: the last frames are those of the daemon.
_TRACE_LENGTH: Final = 4000


class Host(ABC):
    """A host process: a thread serves the agent and extends the lease timer, the main thread runs daemons."""

    def __init__(
        self,
        *,
        channel: Channel[ToHost],
        registry: Registry,
        node: str,
        deadman: Deadman | None,
        capture: LogCapture,
    ) -> None:
        self._channel = channel
        self._capture = capture
        self._registry = registry
        self._node = node
        self._deadman = deadman
        self._pid = os.getpid()
        #: Context and progress deadline of each daemon whose launcher sets a deadline.
        self._watched: dict[str, tuple[DaemonContext | BlockingDaemonContext, float]] = {}

    @abstractmethod
    def run(self) -> int:
        """Run daemons in the main thread and return the exit status of the process."""

    @abstractmethod
    def begin(self, items: list[StartItem]) -> None:
        """Start daemons. Called in the receiving thread."""

    @abstractmethod
    def stop(self, names: list[DaemonName]) -> None:
        """Ask daemons to stop. Called in the receiving thread."""

    @abstractmethod
    def probe(self) -> None:
        """Answer a probe of the agent from the event loop that runs daemons. Called in the receiving thread."""

    def check_loop(self) -> None:
        """Report the host's numbers from the event loop, if the host has one. Called in the receiving thread."""
        self.send(HostNumbers())

    @abstractmethod
    def leave(self) -> None:
        """Let :meth:`run` return. Called in the receiving thread."""

    @abstractmethod
    def ask_stack(self, question: AskStack) -> None:
        """Report where the code of a daemon is, from another thread. Called in the receiving thread."""

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the host that a daemon has made with ``os.fork()``."""
        return os.getpid() != self._pid

    def start_receiving(self) -> None:
        """Start the receiving thread, which renews the lease."""
        # A real thread even in a process that gevent has patched: the thread renews the lease while a daemon computes.
        unpatched.start_new_thread(self._receive_forever, ())

    def report_ready(self) -> None:
        """Report the host as ready; from now on the agent may send daemons."""
        self.send(Ready(os.getpid()))

    def prepare(self, item: StartItem) -> tuple[Launcher[...], tuple[object, ...], dict[str, object]]:
        """Return the launcher and the arguments of a daemon. Raises DaemonsError or ValueError."""
        launcher = self._registry[item.launcher]
        args, kwargs = decode_arguments(item.arguments)
        return launcher, args, kwargs

    def watch(self, launcher: Launcher[...], ctx: DaemonContext | BlockingDaemonContext) -> None:
        """Watch a daemon as the launcher requires: ``ctx.ready()`` and progress are reported to the agent."""
        if launcher.options.start_seconds:
            ctx.when_ready(lambda: self.send(Proven([(ctx.name, ctx.token)])))
        if launcher.options.progress_deadline is not None:
            self._watched[ctx.name] = (ctx, launcher.options.progress_deadline)

    def unwatch(self, name: str) -> None:
        """Stop watching the progress of a daemon."""
        self._watched.pop(name, None)

    def announce_start(self, ctx: DaemonContext | BlockingDaemonContext) -> None:
        """Send ``daemon_started``. Call where the code of the daemon is called next."""
        daemon_started.send(sender=ctx.launcher, ctx=ctx)

    def announce_end(self, ctx: DaemonContext | BlockingDaemonContext, error: BaseException | None) -> None:
        """Send ``daemon_stopped`` or ``daemon_failed``, except in a process that the daemon has forked.

        There, a receiver could close connections that the daemon still uses.
        """
        if self.forked:
            return
        if error is None or ctx.stopping.is_set():
            daemon_stopped.send(sender=ctx.launcher, ctx=ctx)
        else:
            daemon_failed.send(sender=ctx.launcher, ctx=ctx, exception=error)

    @contextlib.contextmanager
    def announced(self, ctx: DaemonContext | BlockingDaemonContext) -> Iterator[None]:
        """Send the signals before and after the code of a daemon that runs in the block."""
        self.announce_start(ctx)
        try:
            yield
        except BaseException as error:
            self.announce_end(ctx, error)
            raise
        self.announce_end(ctx, None)

    def report_started(self, items: list[tuple[DaemonName, Token]]) -> None:
        """Report to the agent that daemons run."""
        if items:
            self.send(Started(items))

    def report_ended(self, items: list[End]) -> None:
        """Report to the agent that runs have ended."""
        if items:
            self.send(Ended(items))

    def send(self, message: object) -> None:
        """Send a message to the agent. Without an agent the process exits: no lease would be renewed."""
        try:
            self._channel.send(message)
        except ChannelClosed:
            leave_without_agent()

    def extra_fds(self) -> list[int]:
        """Return the file descriptors, besides the channel, that the receiving thread waits for."""
        return []

    def on_readable(self, fd: int) -> None:  # noqa: B027 - a host without extra descriptors has nothing to do
        """Handle input on an extra descriptor."""

    def _receive_forever(self) -> None:
        try:
            channel = self._channel.fileno()
            while True:
                extra = self.extra_fds()
                timeout = _PROGRESS_CHECK if self._watched else None
                ready, _, _ = unpatched.select([channel, *extra], [], [], timeout)
                # The agent's messages first: an extra descriptor may ask whether all that had arrived are handled.
                if channel in ready:
                    for message in self._channel.receive():
                        self._handle(message)
                for fd in extra:
                    if fd in ready:
                        self.on_readable(fd)
                if self._watched:
                    self._report_hung()
        except ChannelClosed:
            # The agent has died: the lease is no longer renewed, and the next agent waits for this host to end.
            leave_without_agent()
        except BaseException:
            logger.exception("host of %s: receiving failed, ending", self._node)
            leave_without_agent()

    def _handle(self, message: ToHost) -> None:
        match message:
            case Lease():
                if self._deadman is not None:
                    self._deadman.arm(message.until)
            case Start():
                self.begin(message.items)
            case Stop():
                self.stop(message.names)
            case Probe():
                self.probe()
            case CheckLoop():
                self.check_loop()
            case Leave():
                self.leave()
            case AskStack():
                self.ask_stack(message)

    def _report_hung(self) -> None:
        now = time.monotonic()
        hung = [ctx for ctx, deadline in list(self._watched.values()) if now - ctx.last_beat_at > deadline]
        for ctx in hung:
            self.unwatch(ctx.name)
        if hung:
            self.send(Hung([(ctx.name, ctx.token) for ctx in hung]))


def end_forks_after_their_step(loop: asyncio.AbstractEventLoop) -> None:
    """End each process that a daemon makes with ``os.fork()`` once control returns to ``loop``.

    Otherwise the fork would continue every daemon of the loop, and use descriptors of its parent's loop.
    """

    def end_fork() -> None:
        # asyncio's own loops take the next callback from here. In other loops, further callbacks may run once more.
        with contextlib.suppress(AttributeError):
            loop._ready.clear()  # type: ignore[attr-defined]
        loop.call_soon(end_forked_child, None)

    os.register_at_fork(after_in_child=end_fork)


def end_of_run(run: Run, *, stopping: bool, error: BaseException | None) -> End:
    """Return the report of a run that has ended, and log ``error`` unless ``None``."""
    with run.active():
        if error is not None and not stopping:
            logger.error("daemon %s: failed: %s", run.name, _summary(error), exc_info=error)
            trace = _trace(error)
            return End(run.name, run.token, Outcome.FAILED, _summary(error), trace, isinstance(error, NotADaemon))
        if error is not None:
            logger.warning("daemon %s: failed while stopping: %s", run.name, _summary(error), exc_info=error)
    return End(run.name, run.token, Outcome.STOPPED if stopping else Outcome.FINISHED)


def _summary(error: BaseException) -> str:
    """Return type and text of an exception, shortened and printable, whatever the exception's own code does."""
    text = _name_and_text(error)
    leaf = error
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    if leaf is not error:
        # The text of a group says how many exceptions there are, not what happened.
        text = f"{text}: {_name_and_text(leaf)}"
    return printable(text[:_ERROR_LENGTH])


def _name_and_text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - __str__ of an exception is user code and may raise anything
        return type(error).__name__


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - formatting a traceback calls __str__ too
        return ""
    return printable(text[-_TRACE_LENGTH:])
