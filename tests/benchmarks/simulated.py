"""Many nodes in one process: the agent's protocol through the real verbs, without hosts; the monitor is a real one.

The broker is a server of its own, so that what is counted at the store is the store's. Spawn tasks are left in their
queues: these nodes go by their heartbeats, as one does that has lost every message.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Incarnation, NodeName, Token
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import DaemonStatus, NodeStatus, Outcome
from celery_daemons.store import assignments, book, lease
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH, ScriptCall
from celery_daemons.wire.spawn_task import spawn_queue_name, task_queue_name
from tests.benchmarks.bench_cluster import BenchCluster, bench_cluster, of_role
from tests.benchmarks.rows import Row, spread
from tests.benchmarks.timeline import Timeline, server_ms
from tests.support.projects import ROOT
from tests.support.servers import Server
from tests.support.workers import CeleryProcess

NODES = (100, 1000)
DAEMONS = 100_000
TTL = 5.0
#: Calls under way at once: a thousand agents have a connection each, this process has fewer.
_CONNECTIONS = 64


class SimulatedNode:
    """Joins, beats once a second, and claims and reports what the book has for it."""

    def __init__(self, store: AsyncStore, gate: asyncio.Semaphore, name: str, namespace: str) -> None:
        self.name = NodeName(name)
        self.incarnation = Incarnation(secrets.token_hex(8))
        self._store = store
        self._gate = gate
        self._generation = -1
        self._running: dict[DaemonName, Token] = {}
        self._row = NodeRow(
            incarnation=self.incarnation,
            status=NodeStatus.UP,
            queue=task_queue_name(namespace, name),
            spawn_queue=spawn_queue_name(namespace, name),
            host="simulated",
            pid=1,
            weight=1.0,
            labels="",
            launchers="alone,rest",
        )

    async def live(self) -> None:
        """Take part in the protocol until cancelled."""
        await asyncio.sleep(random.random())
        joined = await self._run(lease.join(self._store.keys, self.name, self._row, ttl_ms=int(TTL * 1000)))
        if not isinstance(joined, lease.Joined):
            raise TypeError(f"{self.name} is taken")
        due = time.monotonic()
        while True:
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            beat = await self._run(lease.beat(self._store.keys, self.name, self.incarnation, ttl_ms=int(TTL * 1000)))
            if beat.verdict != "ok":
                raise RuntimeError(f"{self.name}: {beat.verdict}")
            if beat.generation != self._generation:
                await self._catch_up()

    async def _catch_up(self) -> None:
        keys = self._store.keys
        page = await self._run(assignments.page(keys, self.name))
        generation, rows = page.generation, dict(page.rows)
        while page.cursor != "0":
            page = await self._run(assignments.page(keys, self.name, page.cursor))
            rows.update(page.rows)
        self._generation = generation
        claims = [
            runs.Assignment(name, row.token)
            for name, row in rows.items()
            if row and row.status is DaemonStatus.ASSIGNED and self._running.get(name) != row.token
        ]
        for start in range(0, len(claims), BATCH):
            await self._claim(claims[start : start + BATCH])
        recalled = [
            runs.Release(name=name, token=row.token, outcome=Outcome.STOPPED, restarts=0)
            for name, row in rows.items()
            if row and row.status is DaemonStatus.STOPPING
        ]
        for start in range(0, len(recalled), BATCH):
            await self._run(book.release(keys, self.name, recalled[start : start + BATCH]))

    async def _claim(self, items: list[runs.Assignment]) -> None:
        keys = self._store.keys
        claimed = await self._run(book.claim(keys, self.name, self.incarnation, items))
        granted = [
            (name, claim.token) for (name, _), claim in zip(items, claimed or (), strict=False) if not claim.refused
        ]
        self._running.update(granted)
        reports = [
            runs.Report(name=name, token=token, status=DaemonStatus.RUNNING, pid=1, restarts=0)
            for name, token in granted
        ]
        if reports:
            await self._run(book.report(keys, self.name, self.incarnation, reports))

    async def _run(self, call: ScriptCall[Any]) -> Any:
        async with self._gate:
            return await self._store.run(call)


async def live(url: str, namespace: str, first: int, count: int) -> None:
    """Run ``count`` nodes until killed."""
    store = AsyncStore(url, Keys(namespace), timeout=30.0)
    gate = asyncio.Semaphore(_CONNECTIONS)
    nodes = [SimulatedNode(store, gate, f"s{number}@test", namespace) for number in range(first, first + count)]
    await asyncio.gather(*(node.live() for node in nodes))


@contextlib.contextmanager
def nodes(cluster: BenchCluster, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process with so many nodes."""
    arguments = [cluster.server.url, cluster.project.namespace, str(first), str(count)]
    command = [sys.executable, "-m", "tests.benchmarks.simulated", *arguments]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def measure(counts: Sequence[int] = NODES, daemons: int = DAEMONS) -> Iterator[Row]:
    """A real monitor, so many simulated nodes, a hundred thousand daemons: at rest, and when one node is lost."""
    for count in counts:
        with Server("valkey") as broker, bench_cluster(broker=broker.url) as cluster:
            yield from _measure(cluster, broker, count, daemons)


def _measure(cluster: BenchCluster, broker: Server, count: int, daemons: int) -> Iterator[Row]:
    cluster.settle()
    arguments = ["daemons", "monitor", "-n", "boss@here"]
    monitor = CeleryProcess(cluster.project, "boss", arguments, ready=": elected, epoch")
    with nodes(cluster, 1, count - 1), nodes(cluster, 0, 1) as victim, monitor:
        store = cluster.client.store
        cluster.wait(lambda: store.client.hlen(store.keys.nodes) == count, every=0.1)
        time.sleep(2.0)
        cluster.list(daemons)
        timeline = Timeline(store)
        cluster.client.rescan("rest")
        timeline.until_running(daemons, within=240.0)
        what = f"{count:,} simulated nodes, {daemons:,} daemons"
        yield Row(f"{what}: from the request to scan to the last assigned", timeline.seconds("assign"), "s")
        yield Row(f"{what}: scripts called to assign all", float(timeline.stretches["assign"].entries), "")
        time.sleep(3.0)
        yield from _rest(cluster, monitor, what)
        yield from _loss(cluster, broker, victim, what)


def _rest(cluster: BenchCluster, monitor: CeleryProcess, what: str) -> Iterator[Row]:
    client, seconds, rounds = cluster.client.store.client, 4.0, 4
    processes = {
        "Redis": psutil.Process(cluster.server.pid),
        "monitor": of_role(monitor, "celery_daemons.monitor")[0],  # type: ignore[arg-type]
    }
    sent: list[float] = []
    used: dict[str, list[float]] = {role: [] for role in processes}
    for _ in range(rounds):
        calls, cpu = _calls(client), {role: sum(one.cpu_times()[:2]) for role, one in processes.items()}
        time.sleep(seconds)
        sent.append((_calls(client) - calls) / seconds)
        for role, one in processes.items():
            used[role].append((sum(one.cpu_times()[:2]) - cpu[role]) / seconds * 100)
    yield spread(f"{what}: commands at rest", sent, "1/s", 2500.0)
    yield spread(f"{what}: Redis's processor time at rest", used["Redis"], "%", 15.0)
    yield spread(f"{what}: the monitor's processor time at rest", used["monitor"], "%")


def _calls(client: Any) -> float:
    stats = client.info("commandstats")
    ours = ("evalsha", "eval", "xread", "xrange", "xrevrange", "hscan")
    return float(sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ours))


def _loss(cluster: BenchCluster, broker: Server, victim: "subprocess.Popen[bytes]", what: str) -> Iterator[Row]:
    store, queues = cluster.client.store, broker.client()
    names = set(store.client.smembers(store.keys.held(NodeName("s0@test"))))
    lost = {name.decode() for name in names}
    victim.kill()
    end_ms = int(store.client.zscore(store.keys.leases, "s0@test"))
    timeline = Timeline(store)

    def all_assigned(entry: Any) -> bool:
        if entry.event == "assign":
            lost.difference_update(item[0] for item in entry.items)
        return not lost

    timeline.until(all_assigned, within=TTL + 30.0)
    planned = (timeline.last_ms - end_ms) / 1000
    waiting = -1
    # What the dispatcher has not sent yet comes within moments; quiet means that it has sent all.
    while waiting != (waiting := int(queues.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0))):
        quiet = server_ms(store)
        time.sleep(0.02)
    queues.close()
    yield Row(f"{what}: a lost node's {len(names)} planned after its lease ended", planned, "s", 0.5)
    yield Row(f"{what}: and dispatched", max(planned, (quiet - end_ms) / 1000), "s", 0.5)


def main() -> None:
    """``python -m tests.benchmarks.simulated URL NAMESPACE FIRST COUNT``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("namespace")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    asyncio.run(live(given.url, given.namespace, given.first, given.count))


if __name__ == "__main__":
    main()
