"""``python -m celery_daemons.node --fd N NODENAME``: the agent's process, and what it is made of."""

import argparse
import asyncio
import logging
import multiprocessing.util
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import msgspec

from celery_daemons.forkserver import logs
from celery_daemons.wire.messages import Boot

if TYPE_CHECKING:
    from celery_daemons.node.election import Election
    from celery_daemons.node.lifetime import Lifetime
    from celery_daemons.node.measurements import Measurements
    from celery_daemons.node.service_manager import ServiceManager
    from celery_daemons.node.vitals import Vitals
    from celery_daemons.node.witness import ClusterWitness
    from celery_daemons.node.worker_link import WorkerLink
    from celery_daemons.store.connection import AsyncStore


def main() -> None:
    """Read the boot message from standard input, run the agent, and exit the process."""
    parser = argparse.ArgumentParser(prog="python -m celery_daemons.node")
    parser.add_argument("--fd", type=int, required=True, help="the socket to the worker, inherited")
    parser.add_argument("--lifeline", type=int, required=True, help="a socket that every host holds open, inherited")
    parser.add_argument("node", metavar="NODENAME")
    arguments = parser.parse_args()
    boot = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Boot)
    to_worker = socket.socket(fileno=arguments.fd)
    lifeline = socket.socket(fileno=arguments.lifeline)
    for fd in (arguments.fd, arguments.lifeline):
        os.set_inheritable(fd, False)
    sys.path[:] = boot.sys_path
    _use_folder(boot.tempdir)
    logs.plain("daemons", level=boot.loglevel, logfile=boot.logfile)
    status = 1
    # Imported here: the worker's sys.path counts, which has just been set.
    from celery_daemons.node import descriptors, system
    from celery_daemons.node.service_manager import ServiceManager

    # Before the fork server starts, which would inherit the variables.
    service_manager = ServiceManager.from_environment(os.environ, worker_pid=boot.worker_pid)
    descriptors.raise_limit()
    lacking = system.missing(timers=boot.settings.on_store_loss == "stop")
    if lacking is not None:
        logging.getLogger("celery_daemons.node").critical("node %s: cannot run daemons: %s", boot.node, lacking)
        # Ends with its worker, which would only start another agent before.
        to_worker.recv(1)
        shutil.rmtree(boot.tempdir, ignore_errors=True)
        os._exit(0)
    try:
        asyncio.run(run(boot, to_worker, lifeline, service_manager))
        status = 0
    except Exception:
        logging.getLogger("celery_daemons.node").critical("node %s: the agent failed", boot.node, exc_info=True)
    shutil.rmtree(boot.tempdir, ignore_errors=True)
    # Not sys.exit: multiprocessing would wait for hosts, which end by themselves.
    logging.shutdown()
    os._exit(status)


async def run(boot: Boot, to_worker: socket.socket, lifeline: socket.socket, service_manager: "ServiceManager") -> None:  # noqa: PLR0915 - the composition root
    """Build the agent from top to bottom, each part from the parts above, and run the agent."""
    # Imported here: the worker's sys.path counts, which has just been set.
    from celery_daemons.domain.names import NodeName
    from celery_daemons.forkserver.spawner import Spawner
    from celery_daemons.node.agent import Agent
    from celery_daemons.node.assignment_sync import AssignmentSync
    from celery_daemons.node.bell import READ_TIMEOUT, Bell
    from celery_daemons.node.command_runner import CommandRunner
    from celery_daemons.node.conditions import Conditions
    from celery_daemons.node.election import Election
    from celery_daemons.node.host_pool import HostPool
    from celery_daemons.node.inspector import Inspector
    from celery_daemons.node.lifetime import Lifetime
    from celery_daemons.node.log_files import LogFiles
    from celery_daemons.node.measurements import Measurements
    from celery_daemons.node.metrics import Metrics, ServedNode
    from celery_daemons.node.node_lease import NodeLease
    from celery_daemons.node.node_row import command_timeout, row_of
    from celery_daemons.node.observation import Observation
    from celery_daemons.node.outbox import Outbox
    from celery_daemons.node.outbox_sender import OutboxSender
    from celery_daemons.node.readiness import NodeReadiness
    from celery_daemons.node.serving import Serving
    from celery_daemons.node.supervision.supervisor import Supervisor
    from celery_daemons.node.vitals import Vitals
    from celery_daemons.node.witness import ClusterWitness
    from celery_daemons.node.worker_link import WorkerLink
    from celery_daemons.store.clock import lease_clock
    from celery_daemons.store.codec import printable
    from celery_daemons.store.connection import AsyncStore
    from celery_daemons.store.keys import Keys

    settings, node, keys = boot.settings, NodeName(boot.node), Keys(boot.settings.namespace)
    lifetime = Lifetime(node=node, drain_timeout=settings.drain_timeout)
    vitals = Vitals(no_ticks=boot.no_ticks, now=time.monotonic())
    worker_link = WorkerLink(to_worker, worker_pid=boot.worker_pid, vitals=vitals)
    measurements = Measurements()
    store = AsyncStore(
        settings.redis_url, keys, timeout=command_timeout(settings), pin_server=True, on_call=measurements.called
    )
    spawner = Spawner(boot, lifeline)
    witness = ClusterWitness(settings=settings, node=node)
    election = Election(
        boot=boot,
        settings=settings,
        spawner=spawner,
        store=store,
        witness=witness,
        vitals=vitals,
        measurements=measurements,
        rng=random.Random(),  # noqa: S311 - jitter, not a secret
    )
    if not boot.hosting:
        await _run_candidate(
            boot,
            store=store,
            lifetime=lifetime,
            election=election,
            witness=witness,
            worker_link=worker_link,
            vitals=vitals,
            measurements=measurements,
            service_manager=service_manager,
        )
        return
    lease = NodeLease(
        store=store,
        settings=settings,
        node=node,
        row=row_of(boot),
        witness=witness,
        on_renewal=lambda margin: measurements.renewed(margin, now=time.monotonic()),
    )
    supervisor = Supervisor(boot.launchers, shared_hosts=settings.hosts, rng=random.Random())  # noqa: S311
    outbox = Outbox(keys=keys, node=node)
    files = LogFiles(boot.tempdir)
    hosts = HostPool(boot=boot, spawner=spawner, lease=lease, files=files, lifetime=lifetime)
    sync = AssignmentSync(store=store, node=node, lease=lease, supervisor=supervisor, outbox=outbox)
    serving = Serving()
    inspector = Inspector(supervisor=supervisor, hosts=hosts, files=files)
    sender = OutboxSender(store=store, node=node, lease=lease, outbox=outbox, measurements=measurements)
    runner = CommandRunner(
        supervisor=supervisor,
        outbox=outbox,
        sender=sender,
        hosts=hosts,
        sync=sync,
        serving=serving,
        vitals=vitals,
        measurements=measurements,
        inspector=inspector,
    )
    listener = AsyncStore(settings.redis_url, keys, timeout=READ_TIMEOUT)
    bell = Bell(listener=listener, store=store, node=node, lease=lease, answer=inspector.answer)
    conditions = Conditions(
        node=node,
        lease=lease,
        supervisor=supervisor,
        runner=runner,
        spawner=spawner,
        serving=serving,
        redis_time=lambda: witness.clock.now(lease_clock()),
    )
    observation = Observation(
        settings=settings,
        node=node,
        vitals=vitals,
        readiness=NodeReadiness(
            lease=lease,
            serving=serving,
            lifetime=lifetime,
            uncordon=f"celery -A {boot.app} daemons uncordon {node}",
        ),
        service_manager=service_manager,
        metrics_page=Metrics(
            measurements=measurements,
            vitals=vitals,
            leads=lambda: election.epoch is not None,
            node=ServedNode(
                lease_seconds=settings.lease_ttl, launchers=boot.launchers, supervisor=supervisor, hosts=hosts
            ),
            served=settings.http is not None,
        ).page,
        ask_hosts=hosts.check_loops,
        describe=lambda: f"{supervisor.count} daemons{', leads' if election.epoch is not None else ''}",
        set_warning=lambda warning: lease.change_row(warning=printable(warning)),
    )
    agent = Agent(
        settings=settings,
        node=node,
        store=store,
        lifetime=lifetime,
        lease=lease,
        supervisor=supervisor,
        outbox=outbox,
        sender=sender,
        hosts=hosts,
        sync=sync,
        runner=runner,
        serving=serving,
        conditions=conditions,
        bell=bell,
        election=election,
        worker_link=worker_link,
    )
    observation.start(lifetime)
    await agent.run()
    observation.close()


async def _run_candidate(
    boot: Boot,
    *,
    store: "AsyncStore",
    lifetime: "Lifetime",
    election: "Election",
    witness: "ClusterWitness",
    worker_link: "WorkerLink",
    vitals: "Vitals",
    measurements: "Measurements",
    service_manager: "ServiceManager",
) -> None:
    """Build the rest of a candidate without a node, and run the candidate."""
    from celery_daemons.domain.names import NodeName
    from celery_daemons.node.candidate import Candidate
    from celery_daemons.node.metrics import Metrics
    from celery_daemons.node.observation import Observation
    from celery_daemons.node.readiness import CandidateReadiness

    settings, node = boot.settings, NodeName(boot.node)
    candidate = Candidate(
        settings=settings,
        node=node,
        store=store,
        lifetime=lifetime,
        election=election,
        witness=witness,
        worker_link=worker_link,
    )
    observation = Observation(
        settings=settings,
        node=node,
        vitals=vitals,
        readiness=CandidateReadiness(candidate=candidate, lifetime=lifetime),
        service_manager=service_manager,
        metrics_page=Metrics(
            measurements=measurements,
            vitals=vitals,
            leads=lambda: election.epoch is not None,
            served=settings.http is not None,
        ).page,
        ask_hosts=lambda: None,
        describe=lambda: "leads" if election.epoch is not None else "candidate",
        set_warning=lambda _: None,
    )
    observation.start(lifetime)
    await candidate.run()
    observation.close()


def _use_folder(folder: str) -> None:
    """Let multiprocessing keep sockets in a folder that the worker removes even if this process is killed."""
    tempfile.tempdir = folder
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = None


if __name__ == "__main__":
    main()
