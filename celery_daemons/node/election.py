"""This node's candidacy: take the monitor's lease, run the monitor, and renew only while its loop makes progress."""

import asyncio
import logging
import random
import signal
import time
from typing import Final

from celery_daemons.domain.names import Epoch, Incarnation, NodeName
from celery_daemons.errors import StoreUnavailable
from celery_daemons.forkserver.spawner import Child, Spawner
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.repeats import RepeatedFault
from celery_daemons.node.vitals import Vitals
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import lease
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import AsyncStore
from celery_daemons.wire.channel import AsyncChannel, ChannelClosed
from celery_daemons.wire.messages import (
    Boot,
    ClusterNumbers,
    FromMonitor,
    HandOver,
    Lease,
    LoadFailed,
    MonitorBoot,
    Progress,
    SteppedDown,
)

logger = logging.getLogger(__name__)

_ROLE: Final = "celery_daemons.monitor.main:main"
#: Seconds that a monitor gets to notify its successors that it has resigned.
_HAND_OVER_TIMEOUT: Final = 0.5
#: Seconds until a new monitor's first report of progress: it reads the whole book before that.
_FIRST_PROGRESS: Final = 15.0
#: Leases without progress after which a monitor counts as stalled. Below one, so that a successor leads within a lease.
_STALLED_AFTER: Final = 0.6
#: Seconds after which an earlier failure no longer lengthens the pause before the next candidacy.
_FORGET_FAILURES_AFTER: Final = 60.0
#: The longest pause, in heartbeats.
_LONGEST_PAUSE: Final = 30.0
#: Doublings of the pause that are enough to reach the longest one, whatever the number of failures.
_DOUBLINGS: Final = 5


class Election:
    """Runs for election and keeps the monitor's process; losing the lease is a state, not an error."""

    def __init__(
        self,
        *,
        boot: Boot,
        settings: Settings,
        spawner: Spawner,
        store: AsyncStore,
        witness: ClusterWitness,
        vitals: Vitals,
        measurements: Measurements,
        rng: random.Random,
    ) -> None:
        self._boot = boot
        self._settings = settings
        self._spawner = spawner
        self._store = store
        self._witness = witness
        self._vitals = vitals
        self._measurements = measurements
        self._rng = rng
        self._child: Child | None = None
        self._channel: AsyncChannel[FromMonitor] | None = None
        self._dead: asyncio.Event = asyncio.Event()
        self._progress_by = 0.0
        self._until = 0.0
        self._not_before = 0.0
        self._failures = 0
        self._proven_at = 0.0
        self._retired = False
        self._fork_fault = RepeatedFault()
        self.epoch: Epoch | None = None

    async def after_beat(self, incarnation: Incarnation, *, led: bool) -> None:
        """Renew, or run for election if no monitor leads; once per heartbeat."""
        if self.epoch is not None:
            await self._renew(incarnation)
        elif self._settings.monitor and not self._retired and not led and time.monotonic() >= self._not_before:
            sent = lease_clock()
            epoch = await self._store.run(
                lease.campaign(
                    self._store.keys, NodeName(self._boot.node), incarnation, ttl_ms=self._settings.lease_ttl_ms
                )
            )
            if epoch is not None:
                self._until = sent + self._settings.lease_ttl - self._settings.lease_margin
                await self._lead(epoch)

    async def _renew(self, incarnation: Incarnation) -> None:
        assert self.epoch is not None
        if time.monotonic() > self._progress_by:
            logger.error("monitor %s: loop stalled, replacing the process", self._boot.node)
            await self.step_down("stalled")
            return
        sent = lease_clock()
        renewed = await self._store.run(
            lease.campaign(
                self._store.keys,
                NodeName(self._boot.node),
                incarnation,
                ttl_ms=self._settings.lease_ttl_ms,
                epoch=self.epoch,
            )
        )
        if renewed is None:
            self._measurements.fenced["campaign"] += 1
            logger.warning("monitor %s: lease lost, stepping down", self._boot.node)
            self._end_monitor(failed=False)
            return
        self._until = sent + self._settings.lease_ttl - self._settings.lease_margin
        if self._channel is not None:
            self._channel.send(Lease(self._until))

    def check_lease(self) -> None:
        """Kill the monitor if the monitor's lease has ended on this machine's clock."""
        if self.epoch is not None and lease_clock() > self._until:
            logger.warning("monitor %s: lease not renewed in time, stepping down", self._boot.node)
            self._end_monitor(failed=False)

    async def retire(self) -> None:
        """Step down, and never run for election again."""
        self._retired = True
        epoch, self.epoch = self.epoch, None
        if epoch is None:
            return
        try:
            # Resigned first: a node that the monitor notifies can lead at once, and Redis refuses whatever this monitor
            # still does.
            await self._store.run(lease.resign(self._store.keys, epoch, cause="its node leaves"))
            if self._channel is not None:
                self._channel.send(HandOver())
                async with asyncio.timeout(_HAND_OVER_TIMEOUT):
                    await self._dead.wait()
        except (StoreUnavailable, TimeoutError) as error:
            logger.info("monitor %s: not handed over; its lease runs out by itself (%r)", self._boot.node, error)
        self._end_monitor(failed=False)

    async def step_down(self, cause: str) -> None:
        """End the monitor and give the lease back, so that another node leads at once."""
        epoch = self.epoch
        self._end_monitor(failed=True)
        if self._child is not None:
            await self._dead.wait()
        if epoch is not None:
            try:
                await self._store.run(lease.resign(self._store.keys, epoch, cause=cause))
            except StoreUnavailable as error:
                logger.info("monitor %s: not resigned; its lease runs out by itself (%s)", self._boot.node, error)

    def _end_monitor(self, *, failed: bool) -> None:
        """Kill the monitor and pause before the next candidacy; longer with each monitor in a row that has failed."""
        self.epoch = None
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
        now = time.monotonic()
        if now >= self._not_before + _FORGET_FAILURES_AFTER:
            self._failures = 0
        # Another node may succeed. If there is none, this node tries again, more slowly with each failure. The loss of
        # the lease does not count as a failure: Redis did not answer, or its clock was set and another node was
        # elected.
        self._failures += failed
        doublings = min(max(0, self._failures - 1), _DOUBLINGS)
        pause = self._settings.heartbeat_interval * min(2.0**doublings, _LONGEST_PAUSE)
        self._not_before = now + pause * self._rng.uniform(1.0, 1.5)

    async def _lead(self, epoch: Epoch) -> None:
        logger.info("monitor %s: elected, epoch %d", self._boot.node, epoch)
        self.epoch = epoch
        self._measurements.elections += 1
        self._progress_by = time.monotonic() + _FIRST_PROGRESS
        # A monitor that keeps failing right after its first progress must still back off.
        self._proven_at = time.monotonic() + self._settings.lease_ttl
        boot = MonitorBoot(
            node=self._boot.node,
            settings=self._boot.settings,
            title=f"celery_daemons.monitor: {self._boot.node}",
            epoch=epoch,
            testimony=self._witness.testimony(),
        )
        task = asyncio.create_task(self._serve(boot, epoch))
        task.add_done_callback(self._served)

    async def _serve(self, boot: MonitorBoot, epoch: Epoch) -> None:
        self._dead = dead = asyncio.Event()
        try:
            self._child = child = await self._spawner.start(_ROLE, boot, lambda: self._until)
            child.on_death(dead.set)
            self._channel = channel = await AsyncChannel[FromMonitor].over(child.sock, FromMonitor)
        except (OSError, EOFError) as error:
            due = self._fork_fault.is_worth_logging((type(error), error.args[:1]), now=time.monotonic())
            level = logging.ERROR if due else logging.DEBUG
            logger.log(level, "monitor %s: cannot be forked (%s), trying again", self._boot.node, error)
            self._child = None
            dead.set()
            await self.step_down("cannot be forked")
            return
        self._fork_fault.over()
        self._vitals.monitor_progressed(time.monotonic())
        if self.epoch != epoch:
            child.signal(signal.SIGKILL)
        receiving = asyncio.create_task(self._receive(channel))
        await dead.wait()
        self._vitals.monitor_gone()
        self._measurements.monitor_ended()
        channel.close()
        receiving.cancel()
        if self._child is child:  # otherwise the next monitor has been forked already
            self._child = self._channel = None
        ended = await child.reap()
        if self.epoch == epoch:
            logger.error("monitor %s: its process %d %s, resigning", self._boot.node, child.pid, ended.cause)
            await self.step_down("its process ended")

    def _served(self, task: asyncio.Task[None]) -> None:
        # The monitor counts as stalled after this, and is replaced.
        if not task.cancelled() and task.exception() is not None:
            logger.error("monitor %s: serving its process failed", self._boot.node, exc_info=task.exception())

    async def _receive(self, channel: AsyncChannel[FromMonitor]) -> None:
        while True:
            try:
                message = await channel.receive()
            except ChannelClosed:
                return
            match message:
                case Progress():
                    now = time.monotonic()
                    self._vitals.monitor_progressed(now)
                    if now >= self._proven_at:
                        self._failures = 0
                    self._progress_by = now + _STALLED_AFTER * self._settings.lease_ttl
                case ClusterNumbers():
                    self._measurements.monitor_reported(message)
                case LoadFailed(error):
                    logger.error("monitor %s: %s", self._boot.node, error)
                case SteppedDown():
                    self.epoch = None
                    # Other nodes come first: they are notified, or see it by their next heartbeat. If none leads by
                    # then, this one does again.
                    self._not_before = time.monotonic() + 2 * self._settings.heartbeat_interval
