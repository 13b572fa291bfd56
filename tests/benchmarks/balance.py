"""Measure the effect of nodes that join and leave gracefully, and of a failing daemon on other daemons."""

import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import psutil

from tests.benchmarks.bench_cluster import BenchCluster, agent, bench_cluster, of_role
from tests.benchmarks.rows import Row, spread
from tests.support.workers import Worker

DRAINED = 100
ROLLED = 200
#: Seconds after its last worker within which a rolled cluster has to be balanced.
_BALANCED_WITHIN = 30.0


def _spawn(cluster: BenchCluster, count: int) -> None:
    for number in range(count):
        cluster.client.want(f"timed.{number}", "timed", "[[],{}]")
    cluster.wait(lambda: cluster.count_running() == count)


def _lives(cluster: BenchCluster) -> dict[str, list[tuple[str, float]]]:
    """What each daemon has noted: when it began and when it ended, by the machine's one monotonic clock."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for line in (cluster.project.folder / "lives").read_text().splitlines():
        word, name, at = line.split()
        found[name].append((word, float(at)))
    return found


def _gaps(cluster: BenchCluster, since: float) -> list[float]:
    """Seconds between the end of each life and the beginning of the next, of those that ended since then."""
    gaps = []
    for notes in _lives(cluster).values():
        for (word, ended), (_, begun) in pairwise(notes):
            if word == "ends" and ended >= since:
                gaps.append(begun - ended)
    return gaps


def drain() -> Iterator[Row]:
    """SIGTERM to one of two workers with a hundred coroutine daemons on it."""
    in_all, gaps = [], []
    for _ in range(5):
        with bench_cluster(rebalance="off") as cluster:
            cluster.settle()
            first = cluster.worker("w1")
            cluster.wait(lambda cluster=cluster: len(cluster.client.nodes()) == 1)  # type: ignore[misc]
            _spawn(cluster, DRAINED)
            cluster.worker("w2")
            cluster.wait(lambda cluster=cluster: len(cluster.client.nodes()) == 2)  # type: ignore[misc]
            first.wait_ready()
            began = time.monotonic()
            first.terminate()
            cluster.wait(lambda cluster=cluster: _all_on(cluster, "w2@test"))  # type: ignore[misc]
            # A daemon is reported as running a moment before it writes its first line.
            cluster.wait(lambda cluster=cluster: _beginnings(cluster) == 2 * DRAINED)  # type: ignore[misc]
            in_all.append(max(at for notes in _lives(cluster).values() for _, at in notes) - began)
            gaps += _gaps(cluster, began)
    what = f"a worker with {DRAINED} daemons ended by SIGTERM"
    yield spread(f"{what}: the last runs elsewhere after", in_all, "s", 3.0)
    yield spread("a daemon is away for, p50", gaps, "s", 0.3)
    yield spread("a daemon is away for, p99", gaps, "s", 1.0, at=0.99)


def _all_on(cluster: BenchCluster, node: str) -> bool:
    found = cluster.client.locate_many([f"timed.{number}" for number in range(DRAINED)])
    return len(found) == DRAINED and all(one.node == node and one.status == "running" for one in found.values())


def rolling() -> Iterator[Row]:
    """All of four workers with two hundred daemons between them restart, one after the other."""
    moves, gaps, evened = [], [], []
    for _ in range(3):
        with bench_cluster() as cluster:
            cluster.settle()
            workers = {name: cluster.worker(name) for name in ("w1", "w2", "w3", "w4")}
            cluster.wait(lambda cluster=cluster: _up(cluster) == 4)  # type: ignore[misc]
            _spawn(cluster, ROLLED)
            began, before = time.monotonic(), _beginnings(cluster)
            for name, worker in workers.items():
                worker.stop()
                workers[name] = cluster.worker(name)
                cluster.wait(lambda cluster=cluster: _up(cluster) == 4)  # type: ignore[misc]
            last = time.monotonic()
            cluster.wait(lambda cluster=cluster: _is_balanced(cluster), within=60)  # type: ignore[misc]
            evened.append(time.monotonic() - last)
            moves.append((_beginnings(cluster) - before) / ROLLED)
            gaps += _gaps(cluster, began)
    what = f"a rolling restart of 4 workers with {ROLLED} daemons"
    yield spread(f"{what}: moves per daemon", moves, "", 1.5)
    yield spread("a daemon is away for, at each move, p50", gaps, "s")
    yield spread("a daemon is away for, at each move, p99", gaps, "s", 1.0, at=0.99)
    yield spread("after the last worker, every node holds its share again after", evened, "s", _BALANCED_WITHIN)


def _up(cluster: BenchCluster) -> int:
    return sum(node.status == "up" for node in cluster.client.nodes())


def _beginnings(cluster: BenchCluster) -> int:
    return sum(word == "begins" for notes in _lives(cluster).values() for word, _ in notes)


def _is_balanced(cluster: BenchCluster) -> bool:
    held = [node.daemons for node in cluster.client.nodes()]
    fair = ROLLED / 4
    return sum(held) == ROLLED and min(held) >= int(0.9 * fair) and max(held) <= 1.25 * fair


def failing() -> Iterator[Row]:
    """A daemon that always crashes, and daemons that hang."""
    with bench_cluster() as cluster:
        cluster.settle()
        worker = cluster.worker("w1")
        cluster.wait(cluster.client.leader)
        _spawn(cluster, 1)
        time.sleep(3)
        seconds = 60.0
        before = _processor(worker)
        time.sleep(seconds / 2)
        idle = (_processor(worker) - before) / (seconds / 2)
        cluster.client.want("crashing", "crashing", "[[],{}]")
        before = _processor(worker)
        time.sleep(seconds)
        used = (_processor(worker) - before) / seconds
        starts = sum(word == "begins" for word, _ in _lives(cluster)["crashing"])
        yield Row("a daemon that always crashes, in its first minute: starts", starts, "", 12.0)
        yield Row("processor time of agent and hosts for it, beyond rest", (used - idle) * 100, "%", 1.0)
        for kind in ("coroutine", "loop", "process", "thread"):
            name = f"hung-{kind}"
            cluster.client.want(name, name, "[[],{}]")
            cluster.wait(lambda name=name: len(_lives(cluster)[name]) == 2)  # type: ignore[misc]
            (_, first), (_, second) = _lives(cluster)[name]
            yield Row(f"a hung {kind} with a deadline of 1 s runs again after", second - first, "s", 3.0)


def _processor(worker: Worker) -> float:
    """Seconds of processor time of a node's agent and hosts."""
    ours: list[psutil.Process] = [agent(worker), *of_role(worker, "celery_daemons.host")]
    return sum(sum(process.cpu_times()[:2]) for process in ours)
