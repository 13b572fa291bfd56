"""The package itself: coroutine daemons in a shared host, and daemons with a process of their own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil

from celery_daemons import AddressBook
from tests.benchmarks.bench_cluster import BenchCluster, bench_cluster
from tests.benchmarks.peers.contender import WARM, Contender, Fault, Life, LookUp, Scene
from tests.support.workers import Worker

TITLE = "celery_daemons"


class Ours(Scene):
    """Two workers, their hosts started by a few daemons that are not counted."""

    def __init__(self, cluster: BenchCluster, book: AddressBook, *, launcher: str, listed: bool) -> None:
        self._bench = cluster
        self._cluster = cluster.client
        self._book = book
        self._launcher = launcher
        self._listed = listed
        self._workers: dict[str, Worker] = {}
        for name in ("w1", "w2"):
            worker = cluster.worker(name)
            self._workers[worker.node] = worker
        for worker in self._workers.values():
            worker.wait_ready()
        cluster.wait(self._cluster.leader)
        cluster.wait(lambda: sum(node.status == "up" for node in self._cluster.nodes()) == len(self._workers))
        self.spawn(warm := [f"rest.{number}" for number in range(WARM)])
        cluster.wait(lambda: len(self.lives(warm)) == WARM)
        self._before = self._private()

    def spawn(self, names: Sequence[str]) -> None:
        """Let the recovery scanner list them, or spawn one after the other."""
        if self._listed:
            self._bench.list(len(names) if len(names) == WARM else WARM + len(names))
            self._cluster.rescan(self._launcher)
        else:
            for name in names:
                self._cluster.want(name, self._launcher, "[[],{}]")

    def lives(self, names: Sequence[str]) -> Mapping[str, Life]:
        """By the address book; a token is one start's own."""
        found = self._cluster.locate_many(names)
        return {name: Life(at.node, at.token) for name, at in found.items() if at.status == "running"}

    def weigh(self, names: Sequence[str]) -> float:
        """By what all processes of both nodes have grown; a daemon with a process by that process's private memory."""
        if self._launcher == "rest":
            return (self._private() - self._before) / len(names)
        pids = [address.pid for address in self._cluster.locate_many(names).values()]
        return sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / len(names)

    def look_ups(self) -> Mapping[str, LookUp]:
        """A round trip to Redis, or none."""
        return {"locate": LookUp(self._cluster.locate), "replica": LookUp(self._book.locate)}

    def killable(self) -> Sequence[str]:
        """Either node: the monitor's, if it has more daemons."""
        return list(self._workers)

    def kill(self, node: str, fault: Fault) -> None:
        """Kill the worker's main process, or with it the agent and all hosts."""
        worker = self._workers[node]
        worker.kill() if fault == "main" else worker.kill_tree()

    def _private(self) -> int:
        return sum(one.memory_full_info().uss for worker in self._workers.values() for one in worker.tree())


@contextmanager
def _scene(*, launcher: str = "rest", listed: bool = False, **settings: Any) -> Iterator[Scene]:
    with (
        bench_cluster(**settings) as cluster,
        AddressBook.connect(cluster.server.url, cluster.project.namespace) as book,
    ):
        yield Ours(cluster, book, launcher=launcher, listed=listed)


CONTENDERS = {
    "ours": Contender(title=f"{TITLE}, coroutines", setting="defaults", count=1000, scene=_scene, rounds=3),
    "ours-tuned": Contender(
        title=f"{TITLE}, coroutines",
        setting="lease 2 s, listed by a scanner",
        count=1000,
        scene=partial(_scene, listed=True, lease_ttl=2.0, heartbeat_interval=0.4),
    ),
    "ours-isolated": Contender(
        title=f"{TITLE}, a process each", setting="defaults", count=40, scene=partial(_scene, launcher="alone")
    ),
}
