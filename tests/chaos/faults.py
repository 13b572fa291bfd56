"""The faults. Each returns which daemons it hit, how long it lasts, and how it is healed."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from celery_daemons.errors import DaemonsError
from tests.chaos.chaos_cluster import LEASE, ChaosCluster, Node


@dataclass(slots=True)
class Fault:
    """One fault as it happened; ``hit`` are the daemons that have to start again."""

    kind: str
    at: float
    hit: list[str] = field(default_factory=list)
    mend: Callable[[], None] | None = None
    mend_at: float = 0.0


def _stop(process: psutil.Process | None, number: int) -> bool:
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_worker(cluster: ChaosCluster, node: Node) -> Fault:
    """``kill -9`` of the worker's main process."""
    hit = cluster.at(node)
    fault = Fault("worker killed", time.monotonic(), hit, node.restart, time.monotonic() + cluster.rng.uniform(0.5, 2))
    node.worker.kill()
    return fault


def kill_tree(cluster: ChaosCluster, node: Node) -> Fault:
    """Everything of a node at once, as when the power fails."""
    hit = cluster.at(node)
    fault = Fault("machine lost", time.monotonic(), hit, node.restart, time.monotonic() + cluster.rng.uniform(1, 4))
    node.worker.kill_tree()
    return fault


def kill_agent(cluster: ChaosCluster, node: Node) -> Fault | None:
    """The agent alone."""
    hit, now = cluster.at(node), time.monotonic()
    return Fault("agent killed", now, hit) if _stop(node.agent(), signal.SIGKILL) else None


def kill_host(cluster: ChaosCluster, node: Node) -> Fault | None:
    """One host, shared or of one daemon."""
    now, host = time.monotonic(), node.role("host")
    if host is None:
        return None
    pid = host.pid
    hit = [address.name for address in cluster.client.locate_many(cluster.at(node)).values() if address.pid == pid]
    return Fault("host killed", now, hit) if _stop(host, signal.SIGKILL) else None


def kill_forkserver(_: ChaosCluster, node: Node) -> Fault | None:
    """The process that hosts are forked from."""
    return Fault("fork server killed", time.monotonic()) if _stop(node.role("forkserver"), signal.SIGKILL) else None


def kill_monitor(cluster: ChaosCluster, _: Node) -> Fault | None:
    """The monitor's process, wherever it is."""
    for node in cluster.idle():
        if _stop(node.role("monitor"), signal.SIGKILL):
            return Fault("monitor killed", time.monotonic())
    return None


def _frozen(kind: str, node: Node, process: psutil.Process | None, seconds: float) -> Fault | None:
    if not _stop(process, signal.SIGSTOP):
        return None
    now = time.monotonic()
    node.busy_until = now + seconds + 0.5
    return Fault(kind, now, [], lambda: _stop(process, signal.SIGCONT) and None, now + seconds)


def freeze_monitor(cluster: ChaosCluster, _: Node) -> Fault | None:
    """The monitor, for up to two leases."""
    for node in cluster.idle():
        monitor = node.role("monitor")
        if monitor is not None:
            return _frozen("monitor frozen", node, monitor, cluster.rng.uniform(0.2, 2 * LEASE))
    return None


def freeze_agent(cluster: ChaosCluster, node: Node) -> Fault | None:
    """The agent alone, for up to two leases: its hosts have to end themselves."""
    return _frozen("agent frozen", node, node.agent(), cluster.rng.uniform(0.2, 2 * LEASE))


def freeze_host(cluster: ChaosCluster, node: Node) -> Fault | None:
    """One host, for up to two leases."""
    return _frozen("host frozen", node, node.role("host"), cluster.rng.uniform(0.2, 2 * LEASE))


def freeze_tree(cluster: ChaosCluster, node: Node) -> Fault:
    """A whole node, for up to two leases."""
    seconds = cluster.rng.uniform(0.2, 2 * LEASE)
    now = time.monotonic()
    hit = cluster.at(node) if seconds > LEASE + 1 else []
    node.worker.pause_tree()
    node.busy_until = now + seconds + 0.5
    return Fault("node frozen", now, hit, node.worker.resume_tree, now + seconds)


def drain(cluster: ChaosCluster, node: Node) -> Fault:
    """SIGTERM, as in a deploy."""
    now = time.monotonic()
    hit = cluster.at(node)
    node.worker.terminate()
    node.busy_until = now + 3
    return Fault("worker terminated", now, hit, node.restart, now + 3)


def move(cluster: ChaosCluster, _: Node) -> Fault | None:
    """Somebody moves a few daemons, amid all that."""
    now, names = time.monotonic(), cluster.rng.sample(cluster.names, 5)
    for name in names:
        with contextlib.suppress(DaemonsError):
            cluster.client.move(name)
    return Fault("daemons moved", now)


def _wire(kind: str, node: Node, seconds: float) -> Fault:
    now = time.monotonic()
    node.busy_until = now + seconds + 0.5
    return Fault(kind, now, [], node.proxy.heal, now + seconds)


def cut(_: ChaosCluster, node: Node) -> Fault:
    """All of a node's connections reset."""
    node.proxy.cut()
    return Fault("connections reset", time.monotonic())


def hole(cluster: ChaosCluster, node: Node) -> Fault:
    """A node's packets vanish, one way or both."""
    which = cluster.rng.choice(("up", "down", "both"))
    node.proxy.hole(which)  # type: ignore[arg-type]
    return _wire(f"network hole ({which})", node, cluster.rng.uniform(0.2, 2 * LEASE))


def delay(cluster: ChaosCluster, node: Node) -> Fault:
    """A node's packets take 200 ms, one way or both."""
    node.proxy.delay(0.2, cluster.rng.choice(("up", "down", "both")))  # type: ignore[arg-type]
    return _wire("network delay", node, cluster.rng.uniform(1, 4))


def flush(cluster: ChaosCluster, _: Node) -> Fault:
    """Redis loses its data."""
    now = time.monotonic()
    cluster.server.client().flushall()
    return Fault("Redis flushed", now)


def restart_empty(cluster: ChaosCluster, _: Node) -> Fault:
    """Redis restarts without its data."""
    now = time.monotonic()
    cluster.server.restart(keep_data=False)
    return Fault("Redis restarted empty", now)


def restart_old(cluster: ChaosCluster, _: Node) -> Fault:
    """Redis restarts with the data it last saved, which may be of a minute ago."""
    now = time.monotonic()
    cluster.server.kill()
    cluster.server.start()
    return Fault("Redis killed, old data", now)


def save(cluster: ChaosCluster, _: Node) -> Fault:
    """Redis saves; no fault in itself, but what an old restart comes back with."""
    cluster.server.client().bgsave()
    return Fault("Redis saved", time.monotonic())


def pause_redis(cluster: ChaosCluster, _: Node) -> Fault:
    """Redis hangs, for up to one and a half leases."""
    now, seconds = time.monotonic(), cluster.rng.uniform(0.1, 1.5 * LEASE)
    cluster.server.pause()
    time.sleep(seconds)
    cluster.server.resume()
    return Fault("Redis hung", now)


#: What happens how often.
WEIGHTS: dict[Callable[[ChaosCluster, Node], Fault | None], int] = {
    kill_host: 20,
    kill_agent: 10,
    kill_monitor: 10,
    kill_worker: 6,
    kill_tree: 4,
    kill_forkserver: 4,
    freeze_monitor: 6,
    freeze_agent: 6,
    freeze_host: 8,
    freeze_tree: 4,
    drain: 4,
    move: 4,
    cut: 10,
    hole: 6,
    delay: 6,
    flush: 3,
    restart_empty: 2,
    restart_old: 2,
    save: 2,
    pause_redis: 3,
}
