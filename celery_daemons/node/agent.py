"""The agent: one asyncio loop beside a worker that holds the node's lease, its hosts and perhaps the monitor."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Coroutine
from typing import Any, Final

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.domain.records import NodeRow, needs_text
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import NodeStatus
from celery_daemons.errors import DaemonsError, StoreUnavailable
from celery_daemons.forkserver.spawner import Spawner
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.election import Election
from celery_daemons.node.host_pool import HostPool
from celery_daemons.node.lease import NodeLease
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.local_daemon import running
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.node.worker_link import Control
from celery_daemons.store import journal, lease
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.keys import Keys
from celery_daemons.wire.messages import AssignmentsChanged, Boot, Campaign, Drain, FromWorker, Joined, Rejected

logger = logging.getLogger(__name__)

#: Seconds before an agent whose hosts cannot load the app makes way for another.
_LOAD_RETRY: Final = 10.0
#: Seconds before the deadline of the kernel's timer at which the agent ends its hosts itself.
_BEFORE_THE_KERNEL: Final = 0.02
#: Seconds between two looks at a lease that is over.
_GUARD_LOOK: Final = 0.05
#: The most seconds between two attempts at a heartbeat that was not answered.
_IMPATIENCE: Final = 0.25
#: The share of the drain time-out that daemons get before their hosts are killed; the rest is for Redis.
_DRAIN_SHARE: Final = 0.9


class Agent:
    """Everything a node does, from its start to its end."""

    def __init__(self, boot: Boot, control: socket.socket, lifeline: socket.socket) -> None:
        self.settings = boot.settings
        self._boot = boot
        self._node = NodeName(boot.node)
        self._keys = Keys(self.settings.namespace)
        # A command may take as long as the lease can wait for it: two tries fit in what a late heartbeat leaves.
        timeout = max(
            0.2, (self.settings.lease_ttl - self.settings.lease_margin - self.settings.heartbeat_interval) / 2
        )
        self._store = AsyncStore(self.settings.redis_url, self._keys, timeout=timeout, pin_server=True)
        self._spawner = Spawner(boot, lifeline)
        self._election = Election(boot, self.settings, self._spawner, self._store)
        self._launchers = {str(name): options for name, options in boot.launchers.items()}
        self._supervisor = Supervisor(self._launchers)
        self._ledger = Outbox(self._store, self._node, self._supervisor.claimed)
        self._heartbeat = NodeLease(self._store, self.settings, self._node, self._row(), self._running)
        self._ledger.lease_runs = self._heartbeat.runs
        self._ledger.settled_with = self._heartbeat.settled_with
        self._catching_up = AssignmentSync(self._store, self._node, self._heartbeat, self._supervisor, self._ledger)
        self._ledger.differs = self._catching_up.distrust
        self._pool = HostPool(boot, self._spawner, self._supervisor, lambda: self._heartbeat.until)
        self._supervisor.connect(self._pool, self._ledger)
        self._control = Control(control, boot.worker_pid, self._hear)
        self._leave_within: asyncio.Future[float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Live until the worker is gone or asks to drain."""
        loop = asyncio.get_running_loop()
        self._leave_within = loop.create_future()
        # A service manager may signal every process of the worker's group at once.
        loop.add_signal_handler(signal.SIGTERM, self._leave, self.settings.drain_timeout)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._start(self._control.run())
        self._start(self._watch_worker())
        living = asyncio.create_task(self._live())
        living.add_done_callback(self._done)
        if self._boot.hosting:
            self._start(self._ledger.run())
            if self.settings.on_store_loss == "stop":
                self._start(self._guard())
        timeout = await self._leave_within
        await self._drain(timeout, living)
        await self._store.close()

    # Holding the lease

    async def _live(self) -> None:
        if self._boot.hosting:
            await self._first_hosts()
        while True:
            if self._boot.hosting:
                self._catching_up.distrust()
                generation = await self._heartbeat.join()
                self._ledger.incarnation = self._heartbeat.incarnation
                self._control.tell(Joined(str(self._heartbeat.incarnation)))
                self._pool.start_shared()
                self._pool.renew(self._heartbeat.until)
                self._start(self._catching_up.catch_up(generation))
                await self._beat_until_lost()
                await self._lost()
            else:
                await self._beat_alone()

    async def _first_hosts(self) -> None:
        """Wait until a host has loaded the user's app: a node that can run nothing does not join."""
        self._pool.start_shared()
        host = self._pool.shared[0]
        await host.ready.wait()
        if host.dead:
            logger.error("node %s: cannot run daemons: %s", self._node, host.unready or "a host died as it started")
            await asyncio.sleep(_LOAD_RETRY)
            # The fork server has loaded what it could: only a new agent has a new one.
            self._leave(0.0)
            await asyncio.Event().wait()

    async def _beat_until_lost(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat.pause)
            answer = await self._beat_with_patience()
            if answer is None or answer.verdict != "ok":
                return
            self._pool.renew(self._heartbeat.until)
            if not self._supervisor.draining:
                self._pool.start_shared()
            self._supervisor.stopper.look_at_memory(self.settings.host_max_memory)
            self._ledger.poke()
            if not self._catching_up.is_at(answer.generation):
                self._start(self._catching_up.catch_up(answer.generation))
            await self._campaign(led=answer.led)

    async def _guard(self) -> None:
        """End the hosts when the lease ends, whatever the heartbeat waits for; just before the kernel would do it."""
        while True:
            left = self._heartbeat.until - lease_clock() - _BEFORE_THE_KERNEL
            if self._heartbeat.until and left <= 0:
                self._pool.kill_all()
            await asyncio.sleep(max(_GUARD_LOOK, left) if self._heartbeat.until else self._heartbeat.pause)

    async def _beat_with_patience(self) -> lease.Beat | None:
        """One heartbeat, tried until it is answered or, unless duplicates are preferred, the lease is over."""
        while True:
            answer = await self._heartbeat.beat()
            self._election.check_lease()
            if answer is not None:
                return answer
            if self.settings.on_store_loss == "stop" and lease_clock() >= self._heartbeat.until:
                return None
            await asyncio.sleep(min(self._heartbeat.pause, _IMPATIENCE))

    async def _beat_alone(self) -> None:
        """A candidate without a node only runs for election."""
        incarnation = Incarnation("candidate")
        while True:
            try:
                await self._store.check()
                led = await self._store.read(lambda client: client.exists(self._keys.monitor))
                await self._election.after_beat(incarnation, led=bool(led))
            except DaemonsError as error:
                logger.warning("monitor %s: %s", self._node, error)
                self._heartbeat.meet()
            self._election.check_lease()
            await asyncio.sleep(self.settings.heartbeat_interval)

    async def _campaign(self, *, led: bool) -> None:
        assert self._heartbeat.incarnation is not None
        with contextlib.suppress(StoreUnavailable):
            await self._election.after_beat(self._heartbeat.incarnation, led=led)

    async def _lost(self) -> None:
        logger.warning("node %s: lease lost, its daemons are stopped", self._node)
        await self._kill_hosts()
        self._heartbeat.ended()

    async def _kill_hosts(self) -> None:
        self._ledger.incarnation = None
        self._supervisor.forget_all()
        self._pool.kill_all()
        await self._pool.wait_dead()

    # What the worker says

    def _hear(self, message: FromWorker) -> None:
        match message:
            case AssignmentsChanged():
                self._catching_up.hear(message)
            case Rejected():
                self._start(self._note_rejected(message))
            case Campaign():
                if self._heartbeat.incarnation is not None:
                    self._start(self._campaign(led=False))
            case Drain():
                self._leave(message.timeout)

    async def _note_rejected(self, message: Rejected) -> None:
        cause = f"{message.count} messages on the spawn queue were no spawn tasks: {message.reason}"
        with contextlib.suppress(StoreUnavailable):
            await self._store.run(journal.note(self._keys, "message-rejected", node=self._node, cause=cause))

    async def _watch_worker(self) -> None:
        await self._control.gone.wait()
        logger.warning("node %s: its worker is gone, handing its daemons over", self._node)
        self._leave(self.settings.drain_timeout)

    def _leave(self, timeout: float) -> None:
        if self._leave_within is not None and not self._leave_within.done():
            self._leave_within.set_result(timeout)

    # The end

    async def _drain(self, within: float, living: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            await asyncio.wait_for(self._election.retire(), max(0.5, within))
        if not self._boot.hosting or self._heartbeat.incarnation is None:
            await self._kill_hosts()
            return
        with contextlib.suppress(StoreUnavailable):
            await self._heartbeat.drain()
            if self._supervisor.lives and not await self._heartbeat.others():
                logger.warning(
                    "node %s: no other node takes daemons: its %d run again once one does",
                    self._node,
                    len(self._supervisor.lives),
                )
        self._supervisor.stop_all()
        # Looks, not an event: the end of the last life is one of many paths, and this runs once.
        while self._supervisor.lives and loop.time() < end - within * (1 - _DRAIN_SHARE):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if self._supervisor.lives:
            logger.warning("node %s: %d daemons did not stop in time", self._node, len(self._supervisor.lives))
        self._pool.kill_all()
        await self._pool.wait_dead()
        while not self._ledger.idle and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        living.cancel()
        with contextlib.suppress(StoreUnavailable):
            await self._heartbeat.leave()

    # What this node is

    def _running(self) -> list[Running]:
        self._ledger.void_answers()
        # No spawn task tells which of these a newer token holds elsewhere.
        self._catching_up.distrust()
        return running(self._supervisor.lives.values())

    def _row(self) -> NodeRow:
        return NodeRow(
            incarnation=Incarnation(self._boot.previous or ""),
            status=NodeStatus.UP,
            queue=self._boot.queue,
            spawn_queue=self._boot.spawn_queue,
            host=self._boot.host,
            pid=self._boot.worker_pid,
            weight=self.settings.node_weight,
            labels=",".join(self.settings.node_labels),
            launchers=",".join(sorted(self._boot.launchers)),
            candidate=self.settings.monitor,
            needs=needs_text({name: (one.labels, one.weight) for name, one in self._launchers.items()}),
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A part of the agent that is not there any more cannot be missed for long: the worker starts a new agent.
            logger.critical("node %s: the agent failed", self._node, exc_info=task.exception())
            self._leave(self.settings.drain_timeout)
