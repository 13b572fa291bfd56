"""The agent's view of its hosts: starting them, talking to them, knowing for certain when they are dead."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import Final, Protocol

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import StartItem
from celery_daemons.forkserver.spawner import Child, Spawner
from celery_daemons.store.clock import lease_clock
from celery_daemons.wire.channel import AsyncChannel, ChannelClosed
from celery_daemons.wire.messages import (
    Alive,
    Boot,
    Ended,
    FromHost,
    HostBoot,
    Hung,
    Lease,
    LoadFailed,
    Probe,
    Ready,
    Start,
    Started,
    Stop,
)

logger = logging.getLogger(__name__)

_ROLE: Final = "celery_daemons.host.main:main"
#: Seconds that a host without a lease may live: it runs no daemon before the first lease reaches it.
_BOOT_ALLOWANCE: Final = 60.0
#: Between two attempts to fork where forking fails (out of memory, out of processes).
_FORK_RETRY: Final = 1.0


class HostEvents(Protocol):
    """What a host tells its supervisor."""

    def host_started(self, host: "Host", items: list[tuple[DaemonName, Token]]) -> None:
        """Daemons run."""

    def host_ended(self, host: "Host", message: Ended) -> None:
        """Daemons ended, while the host lives."""

    def host_hung(self, host: "Host", items: list[tuple[DaemonName, Token]]) -> None:
        """Daemons make no progress."""

    def host_died(self, host: "Host") -> None:
        """The process is dead, with all that ran in it."""


class Host:
    """One host process. ``names`` are the daemons that were given to it and have not ended."""

    def __init__(self, *, isolated: bool) -> None:
        self.isolated = isolated
        self.names: set[str] = set()
        #: Of these, those that did not stop within their grace.
        self.overdue: set[str] = set()
        #: It is given no more daemons, and ends once it has none but overdue ones.
        self.retiring = False
        #: Its event loop has answered the last probe.
        self.answered = False
        self.since = time.monotonic()
        self.pid = 0
        self.dead = False
        self.ready = asyncio.Event()
        self.unready: str | None = None
        self._child: Child | None = None
        self._channel: AsyncChannel[FromHost] | None = None
        self._queued: list[StartItem] = []
        self._killed = False

    def start_daemons(self, items: list[StartItem]) -> None:
        """Start daemons as soon as the host is ready."""
        if self._channel is not None and self.ready.is_set():
            self._channel.send(Start(items))
        else:
            self._queued += items

    def stop_daemons(self, names: list[str]) -> None:
        """Ask daemons to stop: a process by SIGTERM, the others by message."""
        waiting = {item.name for item in self._queued}
        if waiting.intersection(names):
            # Never sent: whoever starts it later starts it elsewhere. A host of its own has no other purpose.
            self._queued = [item for item in self._queued if item.name not in names]
            if self.isolated:
                self.kill()
                return
        if self.isolated and self._child is not None:
            self._child.signal(signal.SIGTERM)
        elif self._channel is not None:
            self._channel.send(Stop(names))

    def renew(self, until: float) -> None:
        """Pass the lease on."""
        if self._channel is not None and not self.dead:
            self._channel.send(Lease(until))

    def probe(self) -> None:
        """Ask for a sign of life of its event loop."""
        self.answered = False
        if self._channel is not None and not self.dead:
            self._channel.send(Probe())

    def kill(self) -> None:
        """End the process now; its death is reported as any other."""
        self._killed = True
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    async def launch(self, spawner: Spawner, boot: HostBoot, until: Callable[[], float], events: HostEvents) -> None:
        """Fork the process and serve it until it is dead."""
        loop = asyncio.get_running_loop()
        self._child = await self._fork(spawner, boot, until)
        if self._child is None:
            self.dead = True
            self.ready.set()
            events.host_died(self)
            return
        self.pid = self._child.pid
        death: asyncio.Future[None] = loop.create_future()
        self._child.on_death(lambda: death.set_result(None))
        self._channel = await AsyncChannel.over(self._child.sock, FromHost)
        if self._killed:
            self._child.signal(signal.SIGKILL)
        # Renewals since the fork was asked for went to nobody. A lease counts even if the allowance was longer: the
        # node may have joined meanwhile, and this host be given daemons that are swept when that lease ends.
        self.renew(until() or boot.until)
        receiving = asyncio.create_task(self._receive(events))
        await death
        # What it said before it died is still in the socket: an orderly end must not pass for a crash.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(receiving, 1.0)
        self._channel.close()
        self.dead = True
        self.ready.set()
        await asyncio.to_thread(self._child.reap)
        events.host_died(self)

    async def _fork(self, spawner: Spawner, boot: HostBoot, until: Callable[[], float]) -> Child | None:
        """Try to fork for as long as the host is wanted."""
        while not self._killed:
            try:
                # A lease that has ended is one too: a host that nobody vouches for ends as it starts.
                return await spawner.start(_ROLE, boot, lambda: until() or lease_clock() + _BOOT_ALLOWANCE)
            except (OSError, EOFError) as error:
                logger.error("host of %s: cannot be forked (%s), trying again", boot.node, error)
                await asyncio.sleep(_FORK_RETRY)
        return None

    async def _receive(self, events: HostEvents) -> None:
        assert self._channel is not None
        with contextlib.suppress(ChannelClosed):
            while True:
                match await self._channel.receive():
                    case Ready():
                        self.ready.set()
                        if self._queued:
                            self._channel.send(Start(self._queued))
                            self._queued = []
                    case LoadFailed(error):
                        self.unready = error
                    case Started(items):
                        events.host_started(self, items)
                    case Ended() as message:
                        events.host_ended(self, message)
                    case Hung(items):
                        events.host_hung(self, items)
                    case Alive():
                        self.answered = True


class HostPool:
    """The hosts of one node: as many shared ones as are set, and one more for each isolated daemon."""

    def __init__(self, boot: Boot, spawner: Spawner, events: HostEvents, until: Callable[[], float]) -> None:
        self._boot = boot
        self._spawner = spawner
        self._events = events
        self._until = until
        self._tasks: dict[Host, asyncio.Task[None]] = {}
        self.shared: list[Host] = []
        self.all: set[Host] = set()

    def start_shared(self) -> None:
        """Bring the number of shared hosts up to what is set."""
        self.shared = [host for host in self.shared if not host.dead]
        while len(self.shared) < self._boot.settings["hosts"]:
            self.shared.append(self._start(isolated=False))

    def isolated(self) -> Host:
        """A new host for one daemon."""
        return self._start(isolated=True)

    def least_loaded(self) -> Host:
        """The shared host that holds the fewest daemons."""
        self.start_shared()
        return min(self.shared, key=lambda host: len(host.names))

    def retire(self, host: Host) -> None:
        """Give a shared host nothing more, and start another in its place."""
        host.retiring = True
        if host in self.shared:
            self.shared.remove(host)
        self.start_shared()

    def renew(self, until: float) -> None:
        """Pass the lease on to every host."""
        for host in self.all:
            host.renew(until)

    def kill_all(self) -> None:
        """End every host now."""
        for host in self.all:
            host.kill()

    async def wait_dead(self) -> None:
        """Wait until every host that was killed is dead."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def forget(self, host: Host) -> None:
        """Let go of a dead host."""
        self.all.discard(host)
        if host in self.shared:
            self.shared.remove(host)

    def _start(self, *, isolated: bool) -> Host:
        host = Host(isolated=isolated)
        self.all.add(host)
        boot = HostBoot(
            node=self._boot.node,
            settings=self._boot.settings,
            title=f"celery_daemons.host: {self._boot.node}",
            isolated=isolated,
        )
        task = asyncio.create_task(host.launch(self._spawner, boot, self._until, self._events))
        self._tasks[host] = task
        task.add_done_callback(lambda _: self._tasks.pop(host, None))
        return host
