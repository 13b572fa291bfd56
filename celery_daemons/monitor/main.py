"""The monitor's process and its composition root: every part is built here, from top to bottom."""

import logging
import random
import socket
import time
from collections.abc import Callable
from typing import Final

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.domain.planner import Planner
from celery_daemons.errors import ConfigurationError, DaemonsError, LeaseLost
from celery_daemons.forkserver.child import loaded_app
from celery_daemons.forkserver.process_end import end_process, send_process_init
from celery_daemons.launcher import Registry, registry_of
from celery_daemons.monitor.agent_link import AgentLink
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.counts_check import CountsCheck
from celery_daemons.monitor.departed import DepartedNodes
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.executor import PlanExecutor
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.leases import LeaseWatcher
from celery_daemons.monitor.loop import Monitor
from celery_daemons.monitor.missing_scanners import MissingScanners
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.monitor.reconciler import Reconciler
from celery_daemons.monitor.scan import Scans
from celery_daemons.monitor.succession import Succession
from celery_daemons.settings import Settings
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.replica import Replica
from celery_daemons.wire.messages import ClusterNumbers, MonitorBoot, Testimony

logger = logging.getLogger(__name__)

#: Seconds for one command of the monitor; more than the loop waits for the journal.
_COMMAND_TIMEOUT: Final = 4.0
#: The most seconds that the loop waits for the journal: without a limit, a quiet loop could not report progress.
_MAX_WAIT: Final = 1.0
#: The same limit as a share of the lease, for short leases: the agent replaces a monitor that reports no progress for
#: a few of these.
_MAX_WAIT_LEASE_SHARE: Final = 0.2


def _ignore_numbers(_numbers: ClusterNumbers) -> None:
    """Do nothing."""


def build_monitor(
    *,
    node: NodeName,
    epoch: Epoch,
    settings: Settings,
    registry: Registry,
    store: Store,
    scan_store: Store,
    dispatcher: Dispatcher,
    report_progress: Callable[[], None],
    report_numbers: Callable[[ClusterNumbers], None] = _ignore_numbers,
    clock: Callable[[], float],
    testimony: Testimony | None = None,
) -> Monitor:
    """Build a monitor that leads under ``epoch``; ``clock`` measures every wait in seconds.

    ``testimony`` is what the monitor's agent has seen of the cluster, on that clock. Without it, nothing from before
    the monitor's own time is known, and the monitor waits one lease before it acts on unconfirmed data.

    ``store`` is pinned to the server that a monitor confirmed. ``scan_store`` is not: what scanners list may go to any
    server.
    """
    replica = Replica(store, with_specs=True, on_page=report_progress)
    planner = Planner(replica, load_factor=settings.load_factor, vnodes=settings.vnodes, options=registry.options_of)
    tally = ClusterTally(enabled=settings.http is not None, snapshot=replica, report=report_numbers, clock=clock)
    hold_off = HoldOff(
        settings.longest_lease,
        clock,
        longest=testimony.longest_lease if testimony else 0.0,
        known_since=testimony.known_since if testimony else None,
    )
    lease_watcher = LeaseWatcher(
        reconcile_interval=settings.reconcile_interval,
        hold_off=hold_off,
        clock=clock,
        segments=testimony.clock if testimony else (),
    )
    quiet_period = QuietPeriod(settings.settle_delay, clock)
    rebalancer = Rebalancer(
        settings=settings, snapshot=replica, planner=planner, quiet_period=quiet_period, clock=clock
    )
    reconciler = Reconciler(planner=planner, rebalancer=rebalancer, hold_off=hold_off)
    executor = PlanExecutor(
        store=store,
        epoch=epoch,
        replica=replica,
        reconciler=reconciler,
        dispatcher=dispatcher,
        tally=tally,
        report_progress=report_progress,
    )
    return Monitor(
        store=store,
        replica=replica,
        hold_off=hold_off,
        quiet_period=quiet_period,
        rebalancer=rebalancer,
        reconciler=reconciler,
        lease_watcher=lease_watcher,
        executor=executor,
        departed=DepartedNodes(store=store, epoch=epoch, dispatcher=dispatcher, clock=clock),
        scans=Scans(
            registry=registry,
            settings=settings,
            store=scan_store,
            epoch=epoch,
            snapshot=replica,
            tally=tally,
            clock=clock,
        ),
        succession=Succession(
            node=node,
            epoch=epoch,
            store=store,
            replica=replica,
            dispatcher=dispatcher,
            rng=random.Random(),  # noqa: S311 - a choice among candidates, not a secret
        ),
        missing_scanners=MissingScanners(registry=registry, store=store, epoch=epoch, snapshot=replica),
        tally=tally,
        counts_check=CountsCheck(store=store, epoch=epoch, snapshot=replica),
        report_progress=report_progress,
        max_wait=max_wait(settings),
        clock=clock,
    )


def max_wait(settings: Settings) -> float:
    """Return the most seconds that the loop waits for the journal."""
    return min(_MAX_WAIT, _MAX_WAIT_LEASE_SHARE * settings.lease_ttl)


def main(boot: MonitorBoot, sock: socket.socket) -> int:
    """Lead until the lease is lost or the agent is gone. Return the exit status."""
    settings = boot.settings
    link = AgentLink(sock, lease_until=boot.until, progress_interval=max_wait(settings) / 2, clock=time.monotonic)
    try:
        app = loaded_app()
        registry = registry_of(app)
    except ConfigurationError as error:
        link.report_load_failed(str(error))
        return 1
    dispatcher = Dispatcher(app)
    monitor = build_monitor(
        node=NodeName(boot.node),
        epoch=Epoch(boot.epoch),
        settings=settings,
        registry=registry,
        store=Store(settings.redis_url, Keys(settings.namespace), timeout=_COMMAND_TIMEOUT, pin_server=True),
        scan_store=Store(settings.redis_url, Keys(settings.namespace), timeout=_COMMAND_TIMEOUT),
        dispatcher=dispatcher,
        report_progress=link.report_progress,
        report_numbers=link.report_numbers,
        clock=lease_clock,
        testimony=boot.testimony,
    )
    link.start(on_hand_over=monitor.notify_candidates)
    # After the link has started: a handler may take longer than a lease.
    send_process_init()
    dispatcher.start()
    return end_process(_lead(monitor, link, boot.node))


def _lead(monitor: Monitor, link: AgentLink, node: str) -> int:
    try:
        monitor.run()
        link.report_stepped_down()
        monitor.notify_candidates()
    except LeaseLost as error:
        logger.warning("monitor %s: %s", node, error)
        return 0
    except DaemonsError as error:
        logger.error("monitor %s: %s", node, error)
    except Exception:
        logger.exception("monitor %s: loop failed, exiting", node)
    else:
        return 0
    return 1
