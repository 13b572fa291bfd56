"""How long daemons are away when something dies: read from the journal, which has Redis's time for both ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery_daemons.store import journal
from tests.benchmarks.bench_cluster import BenchCluster, bench_cluster
from tests.benchmarks.rows import Row, spread
from tests.benchmarks.timeline import Timeline

DAEMONS = 1000
ROUNDS = 10


class ThreeWorkers:
    """Three workers with a thousand daemons between them."""

    def __init__(self, bench: BenchCluster) -> None:
        self.bench = bench
        self.store = bench.client.store
        bench.list(DAEMONS)
        self.workers = {f"w{number}@test": bench.worker(f"w{number}") for number in (1, 2, 3)}
        self.wait_whole()

    def wait_whole(self) -> None:
        """Wait until three nodes are up and all daemons run."""
        self.bench.wait(lambda: sum(node.status == "up" for node in self.bench.client.nodes()) == 3)
        self.bench.wait(lambda: self.bench.count_running() == DAEMONS, every=0.2)

    def even_out(self) -> None:
        """Give each node its share again: what ran elsewhere stays there by itself."""
        self.bench.client.ask_rebalance()
        self.bench.wait(lambda: all(node.daemons > DAEMONS / 3 * 0.85 for node in self.bench.client.nodes()))
        self.wait_whole()

    def leader(self) -> str:
        """The node that leads."""
        return self.bench.wait(self.bench.client.leader).node

    def victim(self) -> str:
        """A node that does not lead."""
        leader = self.leader()
        return max((n for n in self.bench.client.nodes() if n.name != leader), key=lambda node: node.daemons).name

    def names(self, node: str) -> set[str]:
        """What runs on a node."""
        return {record.name for record in self.bench.client.list(node=node)}

    def timeline(self) -> Timeline:
        """From now on."""
        return Timeline(self.store)

    def replace(self, node: str) -> None:
        """Start a new worker for one that is dead."""
        self.workers[node].close()
        self.workers[node] = self.bench.worker(node.partition("@")[0])
        self.wait_whole()


@contextmanager
def _cluster(**settings: Any) -> Iterator[ThreeWorkers]:
    # Nothing moves but by the fault, and what evens out between two of them does so at once.
    with bench_cluster(rebalance="manual", rebalance_limit=1.0, **settings) as cluster:
        yield ThreeWorkers(cluster)


def workers() -> Iterator[Row]:
    """``kill -9`` of one of three workers that does not lead."""
    with _cluster() as cluster:
        taken = []
        for _ in range(ROUNDS):
            victim = cluster.victim()
            names, timeline = cluster.names(victim), cluster.timeline()
            cluster.workers[victim].kill()
            taken.append(timeline.until_running(names))
            cluster.replace(victim)
            cluster.even_out()
        what = f"a worker of three killed, {DAEMONS} daemons in all: its third runs elsewhere"
        yield spread(f"{what}, p50", taken, "s", 0.3)
        yield spread(f"{what}, p99", taken, "s", 0.6, at=0.99)


def machines() -> Iterator[Row]:
    """Everything of a node at once, frozen nodes, and the monitor's node."""
    for lease, beat, bound in ((5.0, 1.0, 5.5), (2.0, 0.4, 2.5)):
        with _cluster(lease_ttl=lease, heartbeat_interval=beat) as cluster:
            taken, frozen = [], []
            for _ in range(3):
                victim = cluster.victim()
                names, timeline = cluster.names(victim), cluster.timeline()
                cluster.workers[victim].kill_tree()
                taken.append(timeline.until_running(names))
                cluster.replace(victim)
                cluster.even_out()
                victim = cluster.victim()
                names, timeline = cluster.names(victim), cluster.timeline()
                cluster.workers[victim].pause_tree()
                frozen.append(timeline.until_running(names))
                cluster.workers[victim].resume_tree()
                cluster.wait_whole()
                cluster.even_out()
            yield spread(f"a machine lost, lease {lease:g} s: longest", taken, "s", bound, at=1.0)
            yield spread(f"a node frozen, lease {lease:g} s: longest", frozen, "s", bound, at=1.0)
            leader, timeline = cluster.leader(), cluster.timeline()
            cluster.workers[leader].kill_tree()
            yield Row(
                f"the monitor's machine lost, lease {lease:g} s: another leads",
                timeline.until_event("lead"),
                "s",
                bound,
            )


def redis_loss() -> Iterator[Row]:
    """FLUSHALL under a thousand daemons."""
    with _cluster() as cluster:
        client = cluster.store.client
        before = {record.name: record.token for record in cluster.bench.client.list()}
        began = time.monotonic()
        client.flushall()
        cluster.bench.wait(lambda: client.hlen(cluster.store.keys.book) == DAEMONS, every=0.005)
        taken = time.monotonic() - began
        cluster.wait_whole()
        after = {record.name: record.token for record in cluster.bench.client.list()}
        yield Row(f"FLUSHALL with {DAEMONS} daemons: all in the book again", taken, "s", 2.0)
        yield Row("of these restarted", float(sum(after[name] != token for name, token in before.items())), "", 0.0)


def resignation() -> Iterator[Row]:
    """SIGTERM to the monitor's worker: nobody leads for so long."""
    with bench_cluster() as cluster:
        names = ("w1", "w2", "w3")
        workers = {f"{name}@test": cluster.worker(name) for name in names}
        taken = []
        for _ in range(6):
            cluster.wait(lambda: sum(node.status == "up" for node in cluster.client.nodes()) == 3)
            leader = cluster.wait(cluster.client.leader).node
            time.sleep(1)
            position = journal.last_id(cluster.client.store)
            workers[leader].stop()
            entries = journal.follow(cluster.client.store, position, block_ms=5000, count=1000)
            ends = {entry.event: entry.at_ms for entry in entries if entry.event in ("resign", "lead")}
            while "lead" not in ends:
                ends |= {e.event: e.at_ms for e in journal.follow(cluster.client.store, entries[-1].id, block_ms=5000)}
            taken.append((ends["lead"] - ends["resign"]) / 1000)
            workers[leader] = cluster.worker(leader.partition("@")[0])
        yield spread("a monitor resigned: another leads", [one * 1e3 for one in taken], "ms", 200.0)
