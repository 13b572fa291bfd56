"""The agent of a node: join, keep the lease, and leave with nothing left behind."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.bell import Bell
from celery_daemons.node.command_runner import CommandRunner
from celery_daemons.node.conditions import Conditions
from celery_daemons.node.election import Election
from celery_daemons.node.host_memory import HostMemory
from celery_daemons.node.host_pool import HostPool
from celery_daemons.node.lease_answers import Forgotten, Renewed
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.other_nodes import has_other_nodes
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.outbox_sender import OutboxSender
from celery_daemons.node.serving import Serving
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.node.worker_link import WorkerLink
from celery_daemons.settings import Settings
from celery_daemons.store import journal
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import AsyncStore
from celery_daemons.wire.messages import AssignmentsChanged, Campaign, Drain, FromWorker, JoinedAs, NodeQueues, Rejected

logger = logging.getLogger(__name__)

#: Seconds before the deadline of the kernel's timer at which the agent kills its hosts itself.
_BEFORE_THE_KERNEL: Final = 0.02
#: Seconds between two checks of a lease that has ended.
_GUARD_INTERVAL: Final = 0.05
#: The most seconds between two attempts at a heartbeat that was not answered.
_BEAT_RETRY: Final = 0.25
#: The share of the drain time-out that daemons get before their hosts are killed; the rest is for Redis.
_DRAIN_SHARE: Final = 0.9
#: Seconds in which hosts without daemons end by themselves; longer than they take at most for what a script does last.
_HOSTS_LEAVE: Final = 2.5
#: Seconds between two checks whether a drain is complete.
_DRAIN_CHECK: Final = 0.01
#: Seconds of a drain after which the log names the daemons that it waits for; most daemons stop sooner.
_REPORT_AWAITED: Final = 1.0
#: Seconds for Redis after the end of a shortened drain, in which the daemons that were killed are released.
_HURRY: Final = 1.0
#: The most names in a line of the log.
_NAMES_LISTED: Final = 5


class Agent:
    """Holds the node's lease, and runs the hosts and perhaps the monitor, until the worker is gone or asks to drain."""

    def __init__(
        self,
        *,
        settings: Settings,
        node: NodeName,
        store: AsyncStore,
        lifetime: Lifetime,
        lease: NodeLease,
        supervisor: Supervisor,
        outbox: Outbox,
        sender: OutboxSender,
        hosts: HostPool,
        sync: AssignmentSync,
        runner: CommandRunner,
        serving: Serving,
        conditions: Conditions,
        bell: Bell,
        election: Election,
        worker_link: WorkerLink,
    ) -> None:
        self._settings = settings
        self._node = node
        self._store = store
        self._lifetime = lifetime
        self._lease = lease
        self._supervisor = supervisor
        self._outbox = outbox
        self._sender = sender
        self._hosts = hosts
        self._sync = sync
        self._runner = runner
        self._serving = serving
        self._conditions = conditions
        self._bell = bell
        self._election = election
        self._worker_link = worker_link
        self._memory = HostMemory()

    async def run(self) -> None:
        """Serve until the worker is gone or asks to drain."""
        self._lifetime.handle_signals()
        self._lifetime.start(self._worker_link.run(self._on_worker))
        self._lifetime.start(self._watch_worker())
        serving = self._lifetime.start(self._serve())
        self._lifetime.start(self._sender.run(self._runner.on_reply))
        self._lifetime.start(self._bell.run())
        if self._settings.on_store_loss == "stop":
            self._lifetime.start(self._guard())
        timeout = await self._lifetime.wait()
        await self._drain(timeout, serving)
        await self._store.close()

    # Holding the lease

    async def _serve(self) -> None:
        await self._try_app()
        while True:
            self._sync.invalidate()
            generation = await self._lease.join()
            self._worker_link.send(JoinedAs(str(self._lease.incarnation)))
            self._runner.apply(self._supervisor.open_hosts(now=time.monotonic()))
            self._hosts.renew()
            self._lifetime.start(self._catch_up(generation))
            await self._beat_until_lost()
            logger.warning("node %s: lease lost, its daemons are stopped", self._node)
            await self._kill_hosts()
            self._lease.end()

    async def _try_app(self) -> None:
        """Wait until a host has loaded the app or none can: the node then joins with the reason, and tries again."""
        self._runner.apply(self._supervisor.open_hosts(now=time.monotonic()))
        await self._runner.tried_app.wait()
        problem = self._serving.problem
        if problem:
            logger.error("node %s: takes no daemons: %s", self._node, problem)
            self._runner.apply(self._supervisor.cannot_start(problem))
            await self._lease.report_problem(problem)
            with contextlib.suppress(StoreUnavailable):
                await self._store.run(journal.note(self._store.keys, "cannot-serve", node=self._node, cause=problem))

    async def _beat_until_lost(self) -> None:
        while True:
            await asyncio.sleep(self._lease.pause)
            answer = await self._beat_with_retries()
            if answer is None:
                return
            self._hosts.renew()
            await self._conditions.check()
            self._bell.check_server()
            now = time.monotonic()
            self._runner.apply(self._supervisor.open_hosts(now=now))
            limit_kib = self._settings.host_max_memory
            if limit_kib is not None:
                resident_kib = self._memory.measure(self._hosts.pids())
                self._runner.apply(self._supervisor.memory_measured(resident_kib, limit_kib, now=now))
            self._sender.wake()
            if not self._sync.is_current(answer.generation):
                self._lifetime.start(self._catch_up(answer.generation))
            await self._campaign(led=answer.led)

    async def _beat_with_retries(self) -> Renewed | None:
        """Renew the lease, trying until Redis answers; ``None`` once the lease is lost."""
        while True:
            answer = await self._lease.beat()
            if isinstance(answer, Forgotten):
                self._outbox.void_replies()
                # No spawn task reports which of these daemons a newer token holds elsewhere.
                self._sync.invalidate()
                answer = await self._lease.reassert(self._supervisor.running())
            self._election.check_lease()
            if answer is not None:
                return answer if isinstance(answer, Renewed) else None
            if self._settings.on_store_loss == "stop" and lease_clock() >= self._lease.until:
                return None
            await asyncio.sleep(min(self._lease.pause, _BEAT_RETRY))

    async def _guard(self) -> None:
        """Kill the hosts when the lease ends, just before the kernel would, whatever the heartbeat waits for."""
        while True:
            left = self._lease.until - lease_clock() - _BEFORE_THE_KERNEL
            if self._lease.until and left <= 0:
                self._hosts.kill_all()
            await asyncio.sleep(max(_GUARD_INTERVAL, left) if self._lease.until else self._lease.pause)

    async def _campaign(self, *, led: bool) -> None:
        assert self._lease.incarnation is not None
        with contextlib.suppress(StoreUnavailable):
            # A node that cannot fork a monitor would lead without one until its lease ends.
            await self._election.after_beat(self._lease.incarnation, led=led or bool(self._serving.problem))

    async def _catch_up(self, generation: int) -> None:
        held = await self._sync.catch_up(generation)
        if held is not None:
            self._runner.apply(self._supervisor.synchronised(held.rows, serial=held.serial, now=time.monotonic()))

    async def _kill_hosts(self) -> None:
        self._supervisor.forget_all()
        self._outbox.clear()
        self._hosts.kill_all()
        await self._hosts.wait_dead()

    # Events

    def _on_worker(self, message: FromWorker) -> None:
        match message:
            case AssignmentsChanged():
                if self._sync.on_message(message):
                    now = time.monotonic()
                    self._runner.apply(self._supervisor.recalled(message.recalled, now=now))
                    self._runner.apply(self._supervisor.assigned(message.assigned, now=now))
            case Rejected():
                self._lifetime.start(self._note_rejected(message))
            case Campaign():
                if self._lease.incarnation is not None:
                    self._lifetime.start(self._campaign(led=False))
            case NodeQueues(queue, spawn_queue):
                self._lease.change_row(queue=queue, spawn_queue=spawn_queue)
            case Drain():
                self._lifetime.leave(message.timeout)

    async def _note_rejected(self, message: Rejected) -> None:
        cause = f"{message.count} messages on the spawn queue are not spawn tasks: {message.reason}"
        with contextlib.suppress(StoreUnavailable):
            await self._store.run(journal.note(self._store.keys, "message-rejected", node=self._node, cause=cause))

    async def _watch_worker(self) -> None:
        await self._worker_link.gone.wait()
        logger.warning("node %s: its worker is gone, handing its daemons over", self._node)
        self._lifetime.leave()

    # The end

    async def _drain(self, within: float, serving: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(max(0.5, within)):
                await self._election.retire()
        if self._lease.incarnation is None:
            await self._kill_hosts()
            return
        with contextlib.suppress(StoreUnavailable):
            await self._lease.drain()
            if self._supervisor.count and not await has_other_nodes(self._store, self._node):
                logger.warning(
                    "node %s: no other node takes daemons; the %d on this node run again once one does",
                    self._node,
                    self._supervisor.count,
                )
        self._runner.apply(self._supervisor.drain(now=time.monotonic()))
        await self._await_daemons(within)
        if not self._supervisor.count:
            await self._hosts.leave_all(min(_HOSTS_LEAVE, max(0.0, end - loop.time())))
        self._hosts.kill_all()
        await self._hosts.wait_dead()
        while not self._outbox.idle and (loop.time() < end and self._lifetime.left > -_HURRY):  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_CHECK)
        serving.cancel()
        with contextlib.suppress(StoreUnavailable):
            await self._lease.leave(nothing_runs=self._hosts.all_dead)

    async def _await_daemons(self, within: float) -> None:
        """Wait until every daemon has stopped, or until the share of the drain time-out for that is over."""
        # Polled: the end of the last daemon comes by one of many paths, and this runs once.
        report_at = time.monotonic() + _REPORT_AWAITED
        while self._supervisor.count and self._lifetime.left > within * (1 - _DRAIN_SHARE):
            if time.monotonic() >= report_at:
                report_at = float("inf")
                logger.warning(
                    "node %s: waiting up to %.0f s for %s to stop; a second Ctrl-C kills them",
                    self._node,
                    self._lifetime.left,
                    _listed(sorted(self._supervisor.names)),
                )
            await asyncio.sleep(_DRAIN_CHECK)
        if self._supervisor.count:
            logger.warning(
                "node %s: did not stop in time, killing %s", self._node, _listed(sorted(self._supervisor.names))
            )


def _listed(names: Sequence[str]) -> str:
    """Return names for a log line; only the first few of many names."""
    more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
    return ", ".join(names[:_NAMES_LISTED]) + more
