"""Processes that are killed, frozen or asked to end, and daemons that are moved meanwhile."""

import contextlib
import random
import signal
import time
from functools import partial

import psutil

from celery_daemons.errors import DaemonsError
from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.fault import LONGEST_SILENCE, Cause, Fault, lasting, send_signal
from tests.chaos.members import LEASES, Member, Node


def kill_worker(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """``kill -9`` of the worker's main process."""
    hit, now = cluster.at(node), time.monotonic()
    node.process.kill()
    return Fault("worker killed", now, hit, partial(node.restart, rng), now + rng.uniform(0.5, 2))


def kill_tree(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """All processes of a node at once, as in a power failure."""
    hit, now = cluster.at(node), time.monotonic()
    node.process.kill_tree()
    return Fault("machine lost", now, hit, partial(node.restart, rng), now + rng.uniform(1, 4))


def kill_agent(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """The agent alone."""
    hit, now = cluster.at(node), time.monotonic()
    return Fault("agent killed", now, hit) if send_signal(node.agent(rng), signal.SIGKILL) else None


def kill_host(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """One host, shared or of one daemon."""
    now, host = time.monotonic(), node.role("host", rng)
    if host is None:
        return None
    hit = [address.name for address in cluster.client.locate_many(cluster.at(node)).values() if address.pid == host.pid]
    return Fault("host killed", now, hit) if send_signal(host, signal.SIGKILL) else None


def kill_forkserver(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """The process that hosts are forked from."""
    now = time.monotonic()
    return Fault("fork server killed", now) if send_signal(node.role("forkserver", rng), signal.SIGKILL) else None


def _leading(cluster: ChaosCluster, rng: random.Random) -> tuple[Member, psutil.Process] | None:
    """Return a process of a monitor and where it runs, at a worker or without one."""
    for member in (*cluster.idle(), *cluster.idle_candidates()):
        monitor = member.role("monitor", rng)
        if monitor is not None:
            return member, monitor
    return None


def kill_monitor(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """The monitor's process, wherever it is."""
    found, now = _leading(cluster, rng), time.monotonic()
    return Fault("monitor killed", now) if found is not None and send_signal(found[1], signal.SIGKILL) else None


def _frozen(kind: str, member: Member, process: psutil.Process | None, rng: random.Random) -> Fault | None:
    if not send_signal(process, signal.SIGSTOP):
        return None
    return lasting(kind, member, rng.uniform(0.2, LONGEST_SILENCE), lambda: send_signal(process, signal.SIGCONT))


def freeze_monitor(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """The monitor, for up to two of the shortest leases."""
    found = _leading(cluster, rng)
    return _frozen("monitor frozen", *found, rng) if found is not None else None


def freeze_agent(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """The agent alone, for up to two of the shortest leases: the kernel has to end its hosts."""
    return _frozen("agent frozen", node, node.agent(rng), rng)


def freeze_host(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """One host, for up to two of the shortest leases."""
    return _frozen("host frozen", node, node.role("host", rng), rng)


def freeze_tree(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """A whole node, for up to two of the shortest leases."""
    seconds = rng.uniform(0.2, LONGEST_SILENCE)
    hit = cluster.at(node) if seconds > min(LEASES) + 1 else []
    node.process.pause_tree()
    fault = lasting("node frozen", node, seconds, node.process.resume_tree)
    fault.hit = hit
    return fault


def terminate(cluster: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """SIGTERM, as in a deploy."""
    hit = cluster.at(node)
    node.process.terminate()
    fault = lasting("worker terminated", node, 3.0, partial(node.restart, rng))
    fault.hit = hit
    return fault


def kill_candidate(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """A monitor without a worker, with its agent, as when its machine is lost."""
    idle = cluster.idle_candidates()
    if not idle:
        return None
    candidate = rng.choice(idle)
    candidate.process.kill_tree()
    return lasting("monitor without worker killed", candidate, rng.uniform(0.5, 3), candidate.restart)


def freeze_candidate(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """A monitor without a worker, with its agent, for up to two of the shortest leases."""
    idle = cluster.idle_candidates()
    if not idle:
        return None
    candidate, seconds = rng.choice(idle), rng.uniform(0.2, LONGEST_SILENCE)
    candidate.process.pause_tree()
    return lasting("monitor without worker frozen", candidate, seconds, candidate.process.resume_tree)


def move(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault:
    """A client moves a few daemons."""
    now, names = time.monotonic(), rng.sample(cluster.names, min(5, len(cluster.names)))
    for name in names:
        with contextlib.suppress(DaemonsError):
            cluster.client.move(name)
    return Fault("daemons moved", now)


#: What happens how often.
WEIGHTS: dict[Cause, int] = {
    kill_host: 20,
    kill_agent: 10,
    kill_monitor: 10,
    kill_worker: 6,
    kill_tree: 4,
    kill_forkserver: 4,
    kill_candidate: 4,
    freeze_monitor: 6,
    freeze_agent: 6,
    freeze_host: 8,
    freeze_tree: 4,
    freeze_candidate: 3,
    terminate: 4,
    move: 4,
}
