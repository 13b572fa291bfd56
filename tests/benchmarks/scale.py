"""Ten thousand daemons and a hundred thousand, on two workers."""

import time
from collections.abc import Iterator, Sequence

from tests.benchmarks import bare
from tests.benchmarks.bench_cluster import BenchCluster, Meter, bench_cluster, monitor, peak_mb
from tests.benchmarks.rows import Row, spread
from tests.benchmarks.timeline import Timeline
from tests.support.workers import Worker

THOUSANDS = (10, 100)
ROUNDS = {1: 3, 3: 3, 10: 5, 30: 3, 100: 3}
AIMS = {10: 1.5, 100: 15.0}
#: The steps of a start and the event that ends each.
STEPS = (("want", "recorded"), ("assign", "assigned"), ("claim", "claimed"), ("report", "reported running"))


def two_workers(cluster: BenchCluster) -> list[Worker]:
    """Two workers, both nodes, one of which leads; nothing to run yet."""
    cluster.settle()
    workers = [cluster.worker("w1"), cluster.worker("w2")]
    cluster.wait(lambda: sum(node.status == "up" for node in cluster.client.nodes()) == 2)
    leader = cluster.wait(cluster.client.leader)
    cluster.wait(lambda: "rest" in cluster.client.status().scanners, every=0.05)
    assert leader
    time.sleep(1.0)
    return workers


def let_run(cluster: BenchCluster, count: int) -> Timeline:
    """Let the scanner list so many, ask for a scan, and wait until all run and can be located."""
    cluster.list(count)
    timeline = Timeline(cluster.client.store)
    cluster.client.rescan("rest")
    timeline.until_running(count)
    names = [f"rest.{number}" for number in range(count)]
    found = cluster.client.locate_many(names)
    unlocated = [name for name in names if name not in found or found[name].status != "running"]
    if unlocated:
        raise RuntimeError(f"{len(unlocated)} daemons were reported as running and cannot be located")
    return timeline


def cold_start(thousands: Sequence[int] = THOUSANDS) -> Iterator[Row]:
    """From the request to scan to the last of so many coroutine daemons running, in a new cluster each round."""
    task = bare.task_start()
    yield Row("a bare asyncio task, of ten thousand", task * 1e6, "µs")
    for thousand in thousands:
        yield from _cold_start(thousand, task)


def _cold_start(thousand: int, task: float) -> Iterator[Row]:
    count, taken, between = thousand * 1000, [], []
    ends: dict[str, list[float]] = {event: [] for event, _ in STEPS}
    used: dict[str, list[float]] = {}
    memory, redis = [], []
    for _ in range(ROUNDS[thousand]):
        with bench_cluster() as cluster:
            workers = two_workers(cluster)
            leader, client = monitor(workers), cluster.client.store.client
            peak, held = peak_mb(leader), client.info("memory")["used_memory"]
            meter = Meter(cluster, workers)
            timeline = let_run(cluster, count)
            for role, seconds in meter.seconds().items():
                used.setdefault(role, []).append(seconds * 1e6 / count)
            taken.append(timeline.seconds("report"))
            between.append(timeline.seconds("report") - timeline.seconds("report", last=False))
            for event, _ in STEPS:
                ends[event].append(timeline.seconds(event))
            time.sleep(1.0)
            memory.append(peak_mb(leader) - peak)
            redis.append((client.info("memory")["used_memory"] - held) / count)
    what = f"{count:,} daemons from cold on 2 workers"
    beside = (f"{count:,} bare asyncio tasks", task * count)
    yield spread(f"{what}: from the request to the last running", taken, "s", AIMS.get(thousand), beside=beside)
    yield spread("of that, from the first running to the last", between, "s", AIMS.get(thousand))
    for event, word in STEPS:
        yield spread(f"of that, until the last is {word}", ends[event], "s")
    for role, each in used.items():
        yield spread(f"processor time of {role}, for each of {count:,} daemons", each, "µs")
    yield spread(f"the monitor's peak memory with {count:,} daemons, beyond its start", memory, "MB", 150.0)
    yield spread(f"Redis's memory for each of {count:,} daemons, journal included", redis, "B", 1024.0)


def fail_over(thousand: int = 10) -> Iterator[Row]:
    """``kill -9`` of the worker that does not lead, and that holds nearly all of so many thousand daemons."""
    count, taken = thousand * 1000, []
    for _ in range(3):
        with bench_cluster() as cluster:
            cluster.settle()
            # The first one leads; next to the second it is too light to hold more than a few.
            first = cluster.worker("w1")
            cluster.wait(cluster.client.leader)
            second = cluster.worker("w2", options=["--daemon-weight", "200"])
            cluster.wait(lambda cluster=cluster: len(cluster.client.nodes()) == 2)  # type: ignore[misc]
            let_run(cluster, count)
            time.sleep(1.0)
            located = cluster.client.locate_many(f"rest.{number}" for number in range(count))
            names = [name for name, address in located.items() if address.node == second.node]
            if cluster.wait(cluster.client.leader).node != first.node or len(names) < count * 0.97:
                raise RuntimeError("the daemons are not where they should be")
            timeline = Timeline(cluster.client.store)
            second.kill()
            taken.append(timeline.until_running(names))
    aim = {10: 1.5}.get(thousand)
    yield spread(f"kill -9 of one of 2 workers, {count:,} daemons on it: all run on the other", taken, "s", aim)


def journal() -> Iterator[Row]:
    """A replica that follows a hundred thousand changes, and one that loads a hundred thousand daemons."""
    from celery_daemons.domain.names import DaemonName, LauncherName
    from celery_daemons.store import specs
    from celery_daemons.store.replica import Replica
    from celery_daemons.store.script import BATCH

    count, rounds = 100_000, 3
    with bench_cluster() as cluster:
        store = cluster.client.store
        behind = []
        for number in range(rounds):
            replica = Replica(store, with_specs=True)
            replica.load()
            for start in range(0, count, BATCH):
                names = [DaemonName(f"j{number}.{one}") for one in range(start, start + BATCH)]
                items = [(name, LauncherName("none"), "[[],{}]") for name in names]
                store.run(specs.record(store.keys, items, mode="spawn"))
            began = time.perf_counter()
            while len(replica.specs) < count * (number + 1):
                replica.follow(block_ms=100)
            behind.append(time.perf_counter() - began)
        yield spread(f"a replica follows {count:,} changes that it has missed", behind, "s", 3.0)
    yield from _load()


def _load() -> Iterator[Row]:
    from celery_daemons import AddressBook

    with bench_cluster() as cluster:
        two_workers(cluster)
        count, taken, bare_reads = 100_000, [], []
        let_run(cluster, count)
        keys, client = cluster.client.store.keys, cluster.client.store.client
        for _ in range(5):
            began = time.perf_counter()
            cursor = None
            while cursor != 0:
                cursor, _page = client.hscan(keys.book, cursor or 0, count=1000)
            bare_reads.append(time.perf_counter() - began)
            began = time.perf_counter()
            with AddressBook.connect(cluster.server.url, cluster.project.namespace) as book:
                taken.append(time.perf_counter() - began)
                if book.locate(f"rest.{count - 1}") is None:
                    raise RuntimeError("the replica is not whole")
        beside = ("a bare HSCAN of the book", sorted(bare_reads)[2])
        yield spread(f"an address book of {count:,} loaded", taken, "s", 1.0, beside=beside)
        names = [f"rest.{number}" for number in range(10_000)]
        many, hmget = [], []
        for _ in range(9):
            began = time.perf_counter()
            for start in range(0, len(names), 1000):
                client.hmget(keys.book, names[start : start + 1000])
            hmget.append(time.perf_counter() - began)
            began = time.perf_counter()
            cluster.client.locate_many(names)
            many.append(time.perf_counter() - began)
        beside = ("bare HMGETs of 1,000", sorted(hmget)[4] * 1e3)
        yield spread("locate_many of 10,000", [one * 1e3 for one in many], "ms", 50.0, beside=beside)
