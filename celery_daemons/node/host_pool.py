"""The host processes of a node: forking them, talking to them, and knowing for certain when they are dead."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.runs import StartItem
from celery_daemons.forkserver.spawner import Child, ProcessEnd, Spawner
from celery_daemons.node import descriptors
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.log_files import LogFiles
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.repeats import RepeatedFault
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.store.clock import lease_clock
from celery_daemons.wire.channel import AsyncChannel, ChannelClosed, batches
from celery_daemons.wire.loop_messages import AskStack
from celery_daemons.wire.messages import (
    Boot,
    CheckLoop,
    FromHost,
    HostBoot,
    HostNumbers,
    Lease,
    Leave,
    Probe,
    Start,
    Stop,
)

logger = logging.getLogger(__name__)

_ROLE: Final = "celery_daemons.host.main:main"
#: Seconds that a host may live without a lease: it runs no daemon before the first lease reaches it.
_BOOT_ALLOWANCE: Final = 60.0
#: Seconds between attempts to fork where forking fails (out of memory, out of processes).
_FORK_RETRY: Final = 1.0
#: Seconds for reading what a dead host has sent before it died.
_LAST_MESSAGES: Final = 1.0


@dataclass(frozen=True, slots=True)
class HostDied:
    """The host process is dead, or was killed before the fork."""

    end: ProcessEnd


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """An attempt to fork the host process failed; another follows unless the host is killed."""

    error: OSError | EOFError


HostEvent = FromHost | HostDied | ForkFailed
EventHandler = Callable[[HostId, HostEvent], None]


class HostProcess:
    """A host process, from the request for a fork until the death."""

    def __init__(self, host_id: HostId, *, isolated: bool, lease: NodeLease, fork_fault: RepeatedFault) -> None:
        self._id = host_id
        self._fork_fault = fork_fault
        self._isolated = isolated
        self._lease = lease
        self._child: Child | None = None
        self._channel: AsyncChannel[FromHost] | None = None
        self._killed = False
        #: The host was asked for numbers, and has not answered.
        self._asked = False

    @property
    def pid(self) -> int:
        """The process id; 0 before the fork."""
        return self._child.pid if self._child is not None else 0

    def start(self, items: list[StartItem]) -> None:
        """Start daemons."""
        for batch in batches(items, lambda item: len(item.arguments)):
            self._send(Start(batch))

    def stop(self, names: list[DaemonName]) -> None:
        """Ask daemons to stop.

        An isolated host gets SIGTERM too, for handlers of the daemon's own. The message comes first: when the signal
        arrives, the host already knows the reason. The signal alone would depend on the wake-up descriptor, which any
        event loop may replace.
        """
        self._send(Stop(names))
        if self._isolated and self._child is not None:
            self._child.signal(signal.SIGTERM)

    def leave(self) -> None:
        """Ask a host that has no daemons to end."""
        self._send(Leave())

    def renew(self) -> None:
        """Pass the lease on."""
        self._send(Lease(self._lease.until))

    def probe(self) -> None:
        """Ask the event loop for an answer."""
        self._send(Probe())

    def ask_stack(self, question: int, name: DaemonName) -> None:
        """Ask where the code of a daemon is; the answer is an event with the number of the question."""
        self._send(AskStack(question, name))

    def check_loop(self) -> None:
        """Ask for numbers from the loop, unless the last question is not answered: the socket must not fill."""
        if not self._asked:
            self._asked = self._channel is not None
            self._send(CheckLoop())

    def kill(self) -> None:
        """Kill the process now; the death is reported like any other."""
        self._killed = True
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def _send(self, message: object) -> None:
        if self._channel is not None:
            self._channel.send(message)

    async def run(
        self, spawner: Spawner, boot: HostBoot, handle: EventHandler, *, check_room: Callable[[], None]
    ) -> None:
        """Fork the process and pass on the reports until the process is dead."""
        child = self._child = await self._fork(spawner, boot, handle, check_room)
        if child is None:
            handle(self._id, HostDied(ProcessEnd("was not forked")))
            return
        death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        child.on_death(lambda: death.set_result(None))
        channel = self._channel = await AsyncChannel[FromHost].over(child.sock, FromHost)
        if self._killed:
            child.signal(signal.SIGKILL)
        # Renewals since the request to fork went nowhere. A lease replaces the allowance even if that was longer: the
        # node may have joined meanwhile, and this host may get daemons that are swept when that lease ends.
        self._send(Lease(self._lease.until or boot.until))
        receiving = asyncio.create_task(self._receive(channel, handle))
        await death
        # What the host sent before it died is still in the socket: a clean end must not pass for a crash.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_MESSAGES):
                await receiving
        channel.close()
        self._channel = None
        handle(self._id, HostDied(await child.reap()))

    async def _fork(
        self, spawner: Spawner, boot: HostBoot, handle: EventHandler, check_room: Callable[[], None]
    ) -> Child | None:
        """Try to fork for as long as the host is wanted; ``check_room`` raises OSError if no other process fits."""
        while not self._killed:
            try:
                check_room()
                # A lease that has ended counts too: a host under it ends as it starts.
                child = await spawner.start(_ROLE, boot, lambda: self._lease.until or lease_clock() + _BOOT_ALLOWANCE)
            except (OSError, EOFError) as error:
                due = self._fork_fault.is_worth_logging((type(error), error.args[:1]), now=time.monotonic())
                level = logging.WARNING if due else logging.DEBUG
                logger.log(level, "host of %s: cannot be forked (%r), trying again", boot.node, error)
                handle(self._id, ForkFailed(error))
                await asyncio.sleep(_FORK_RETRY)
            else:
                self._fork_fault.over()
                return child
        return None

    async def _receive(self, channel: AsyncChannel[FromHost], handle: EventHandler) -> None:
        with contextlib.suppress(ChannelClosed):
            while True:
                event = await channel.receive()
                if isinstance(event, HostNumbers):
                    self._asked = False
                handle(self._id, event)


class HostPool:
    """The host processes of a node by id."""

    def __init__(self, *, boot: Boot, spawner: Spawner, lease: NodeLease, files: LogFiles, lifetime: Lifetime) -> None:
        self._boot = boot
        self._files = files
        self._spawner = spawner
        self._lease = lease
        self._lifetime = lifetime
        self._hosts: dict[HostId, HostProcess] = {}
        #: Shared by all hosts: the cause of a failed fork affects every host.
        self._fork_fault = RepeatedFault()
        #: The hosts whose descriptors are counted.
        self._admitted: set[HostId] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, host_id: HostId, *, isolated: bool, handle: EventHandler) -> None:
        """Fork a host; ``handle`` gets the reports of the host, and last of all the death."""
        host = self._hosts[host_id] = HostProcess(
            host_id, isolated=isolated, lease=self._lease, fork_fault=self._fork_fault
        )
        boot = HostBoot(
            node=self._boot.node,
            settings=self._boot.settings,
            title=f"celery_daemons.host: {self._boot.node}",
            isolated=isolated,
            log_ring=self._files.open(host_id),
        )
        task = self._lifetime.start(host.run(self._spawner, boot, handle, check_room=lambda: self._check_room(host_id)))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._closed(host_id, done))

    def _check_room(self, host_id: HostId) -> None:
        # Admitted before the fork: many may be asked for at once, and are forked one after the other.
        if host_id not in self._admitted:
            descriptors.check_room(len(self._admitted))
            self._admitted.add(host_id)

    def __getitem__(self, host_id: HostId) -> HostProcess:
        return self._hosts[host_id]

    def __contains__(self, host_id: object) -> bool:
        return host_id in self._hosts

    def pids(self) -> dict[HostId, int]:
        """Return the process id of each host that has been forked."""
        return {host_id: host.pid for host_id, host in self._hosts.items() if host.pid}

    def check_loops(self) -> None:
        """Ask every host for numbers from its loop, unless the host has not answered the last question."""
        for host in self._hosts.values():
            host.check_loop()

    def renew(self) -> None:
        """Pass the lease on to every host."""
        for host in self._hosts.values():
            host.renew()

    async def leave_all(self, within: float) -> None:
        """Ask every host to end, and wait up to ``within`` seconds. Call when no daemon is left."""
        for host in self._hosts.values():
            host.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)

    def kill_all(self) -> None:
        """Kill every host now."""
        for host in self._hosts.values():
            host.kill()

    async def wait_dead(self) -> None:
        """Wait until every host that was killed is dead."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def all_dead(self) -> bool:
        """Whether no host is left, neither running nor about to be forked."""
        return not self._tasks

    def _closed(self, host_id: HostId, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # A defect: the agent leaves. The process may live, so it has to be killed, and counts as alive.
            return
        self._tasks.discard(task)
        self._files.close(host_id)
        self._hosts.pop(host_id, None)
        self._admitted.discard(host_id)
