"""The process in which daemons run: what every host does, whatever it runs."""

import logging
import os
import select
import threading
import time
import traceback
from abc import ABC, abstractmethod
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.domain.states import Outcome
from celery_daemons.forkserver.child import AGENT_GONE
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.store.codec import printable
from celery_daemons.wire.arguments import decode_arguments
from celery_daemons.wire.channel import Channel, ChannelClosed
from celery_daemons.wire.messages import Ended, Hung, Lease, Probe, Ready, Start, Started, Stop, ToHost

logger = logging.getLogger(__name__)

#: Seconds between looks at daemons with a progress deadline.
_WATCH: Final = 0.25
#: The most of an exception's text that goes into the book.
_ERROR_LENGTH: Final = 500
#: The most of its traceback that is kept, from its end: the last frames are the daemon's own.
_TRACE_LENGTH: Final = 4000


class Host(ABC):
    """One thread receives from the agent and keeps the lease; the main thread runs daemons."""

    def __init__(self, channel: Channel[ToHost], registry: Registry, node: str, deadman: Deadman | None) -> None:
        self._channel = channel
        self._registry = registry
        self._node = node
        self._deadman = deadman
        self._watched: dict[str, tuple[DaemonContext | BlockingDaemonContext, float]] = {}

    @abstractmethod
    def run(self) -> int:
        """Run daemons in the main thread; the exit status of the process."""

    @abstractmethod
    def begin(self, items: list[StartItem]) -> None:
        """Start daemons; called in the receiving thread."""

    @abstractmethod
    def stop(self, names: list[str]) -> None:
        """Ask daemons to stop; called in the receiving thread."""

    @abstractmethod
    def probe(self) -> None:
        """Answer the agent from where daemons run; called in the receiving thread."""

    def start_receiving(self) -> None:
        """Start the thread that hears the agent, who may send daemons, and signals to stop them, from now on."""
        self.tell(Ready(os.getpid()))
        threading.Thread(target=self._receive_for_ever, name="celery-daemons-agent", daemon=True).start()

    def prepare(self, item: StartItem) -> tuple[Launcher, tuple[object, ...], dict[str, object]]:
        """The launcher and the arguments of a daemon; raises DaemonsError or ValueError."""
        launcher = self._registry[item.launcher]
        args, kwargs = decode_arguments(item.arguments)
        return launcher, args, kwargs

    def watch(self, launcher: Launcher, ctx: DaemonContext | BlockingDaemonContext) -> None:
        """Watch the progress of a daemon whose launcher asks for it."""
        if launcher.options.progress_deadline is not None:
            self._watched[ctx.name] = (ctx, launcher.options.progress_deadline)

    def unwatch(self, name: str) -> None:
        """Watch it no more."""
        self._watched.pop(name, None)

    def started(self, items: list[tuple[DaemonName, Token]]) -> None:
        """Tell the agent that daemons run."""
        if items:
            self.tell(Started(items))

    def ended(self, items: list[End]) -> None:
        """Tell the agent that daemons run no more."""
        if items:
            self.tell(Ended(items))

    def tell(self, message: object) -> None:
        """Tell the agent; without one, there is nothing to live for."""
        try:
            self._channel.send(message)
        except ChannelClosed:
            os._exit(AGENT_GONE)

    def waiting_fds(self) -> list[int]:
        """File descriptors besides the channel that the receiving thread shall wait for."""
        return []

    def woken(self, fd: int) -> None:  # noqa: B027 - a host without other descriptors has nothing to do
        """One of them can be read."""

    def _receive_for_ever(self) -> None:
        try:
            channel = self._channel.fileno()
            while True:
                others = self.waiting_fds()
                timeout = _WATCH if self._watched else None
                ready, _, _ = select.select([channel, *others], [], [], timeout)
                for fd in others:
                    if fd in ready:
                        self.woken(fd)
                if channel in ready:
                    for message in self._channel.receive():
                        self._obey(message)
                if self._watched:
                    self._look_for_hangs()
        except ChannelClosed:
            # Without an agent nobody renews the lease, and a new agent counts on this host's end.
            os._exit(AGENT_GONE)
        except BaseException:
            logger.exception("host of %s: receiving failed, ending", self._node)
            os._exit(AGENT_GONE)

    def _obey(self, message: ToHost) -> None:
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

    def _look_for_hangs(self) -> None:
        now = time.monotonic()
        hung = [ctx for ctx, deadline in list(self._watched.values()) if now - ctx.beaten > deadline]
        for ctx in hung:
            self.unwatch(ctx.name)
        if hung:
            self.tell(Hung([(ctx.name, ctx.token) for ctx in hung]))


def failure(error: BaseException) -> str:
    """An exception as one short text that the channel can carry, whatever the exception is like."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text of an exception is user code too
        text = type(error).__name__
    return printable(text[:_ERROR_LENGTH])


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - so is what a traceback shows of it
        return ""
    return printable(text[-_TRACE_LENGTH:])


def end_of(name: DaemonName, token: Token, *, stopping: bool, error: BaseException | None) -> End:
    """How a life ended, and a line in the log if it failed."""
    if error is not None and not stopping:
        logger.error("daemon %s: failed: %s", name, failure(error), exc_info=error)
        return End(name, token, Outcome.FAILED, failure(error), _trace(error))
    if error is not None:
        logger.warning("daemon %s: failed while stopping: %s", name, failure(error), exc_info=error)
    return End(name, token, Outcome.STOPPED if stopping else Outcome.FINISHED)
