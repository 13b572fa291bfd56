"""Measure latencies and costs, each as rows of name, value, unit and aim."""

import time
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import psutil

from tests.benchmarks import balance, bare, failover, pure, scale, simulated, stalls
from tests.benchmarks.bench_cluster import BenchCluster, agent, bench_cluster, monitor, of_role
from tests.benchmarks.rows import Row, spread


def cold_start() -> Iterator[Row]:
    """Three workers, and 60 daemons from a scanner, from nothing."""
    taken = []
    for _ in range(3):
        with bench_cluster() as cluster:
            cluster.list(60)
            workers = [cluster.worker(f"w{number}") for number in (1, 2, 3)]
            for worker in workers:
                worker.wait_ready()
            ready = time.monotonic()
            cluster.wait(lambda cluster=cluster: cluster.count_running() == 60)  # type: ignore[misc]
            taken.append(time.monotonic() - ready)
    yield spread("60 daemons on 3 workers of a new cluster, after the last is ready", taken, "s", 5.0)


def spawn_latency() -> Iterator[Row]:
    """From the call to ``running`` in the book."""
    with bench_cluster() as cluster:
        worker = cluster.worker("w1", concurrency=2)
        worker.wait_ready()
        cluster.wait(cluster.client.leader)
        _spawn(cluster, "warm")
        store = cluster.client.store
        script, publish = bare.evalsha(store) * 1e3, bare.publish(cluster.server.url) * 1e3
        yield Row("a bare EVALSHA, median", script, "ms")
        yield Row("a bare Kombu publish, median", publish, "ms")
        taken = [_spawn(cluster, f"free.{number}") * 1e3 for number in range(200)]
        beside = ("a bare Kombu publish and an EVALSHA", script + publish)
        yield spread("spawn to running, p50", taken, "ms", 12.0, beside=beside)
        yield spread("spawn to running, p99", taken, "ms", 40.0, at=0.99, beside=beside)
        _occupy(cluster, 22, 3.0)
        time.sleep(0.5)
        busy = [_spawn(cluster, f"busy.{number}") * 1e3 for number in range(30)]
        yield spread("the same with a full pool and 20 tasks waiting, p50", busy, "ms", 100.0)
    with bench_cluster() as cluster:
        cluster.worker("w1", pool="solo").wait_ready()
        cluster.wait(cluster.client.leader)
        _spawn(cluster, "warm")
        _occupy(cluster, 4, 2.0)
        time.sleep(0.5)
        busy = [_spawn(cluster, f"busy.{number}") * 1e3 for number in range(4)]
        yield spread("the same with the solo pool, whose parent is busy, p50", busy, "ms", 1100.0)


def _spawn(cluster: BenchCluster, name: str) -> float:
    began = time.perf_counter()
    cluster.client.want(name, "rest", "[[],{}]")
    cluster.client.wait_running(name, within=30)
    return time.perf_counter() - began


def _occupy(cluster: BenchCluster, tasks: int, seconds: float) -> None:
    cluster.project.python(f"import proj\nfor _ in range({tasks}): proj.sleep.delay({seconds})")


def look_ups() -> Iterator[Row]:
    """``locate`` beside a bare HGET of the same client, and the replica."""
    with bench_cluster() as cluster:
        cluster.worker("w1").wait_ready()
        _spawn(cluster, "one")
        keys, client = cluster.client.store.keys, cluster.client.store.client
        hget, ours = partial(client.hget, keys.book, "one"), partial(cluster.client.lookups.locate, "one")
        bare.times(hget, 2000), bare.times(ours, 2000)
        ratios, bares = [], []
        for _ in range(30):
            # In turns, so that other load on the machine affects both.
            first, second = bare.times(hget, 300), bare.times(ours, 300)
            bares.append(median(first) * 1e6)
            ratios.append(median(second) / median(first))
        yield spread("a bare HGET, median of 300", bares, "µs")
        yield spread("locate, as a multiple of it", ratios, "×", 1.2)
        yield from _replica(cluster)


def _replica(cluster: BenchCluster) -> Iterator[Row]:
    from celery_daemons import AddressBook

    with AddressBook.connect(cluster.server.url, cluster.project.namespace) as book:
        plain = {"one": book.locate("one")}
        taken = [timeit.timeit(partial(book.locate, "one"), number=50_000) / 50_000 * 1e6 for _ in range(9)]
        gets = [timeit.timeit(partial(plain.get, "one"), number=50_000) / 50_000 * 1e6 for _ in range(9)]
    beside = ("a bare dict.get", median(gets))
    yield spread("locate in the replica, mean of 50,000", taken, "µs", 0.35, beside=beside)


def at_rest() -> Iterator[Row]:
    """Commands that our clients send while nothing happens."""
    for daemons in (0, 1000, 100_000):
        yield from scale_of_rest(daemons)


def scale_of_rest(daemons: int, *, seconds: float = 5.0, rounds: int = 4) -> Iterator[Row]:
    """Commands, processor time and memory of a leading node at rest with ``daemons`` daemons."""
    with bench_cluster() as cluster:
        cluster.settle()
        worker = cluster.worker("w1")
        cluster.wait(cluster.client.leader)
        if daemons:
            scale.let_run(cluster, daemons)
        time.sleep(3)
        roles = {"agent": agent(worker), "Redis": psutil.Process(cluster.server.pid)}
        roles["monitor"] = monitor([worker])
        roles["host"] = of_role(worker, "celery_daemons.host")[0]
        sent: list[float] = []
        used: dict[str, list[float]] = {role: [] for role in roles}
        for _ in range(rounds):
            before, cpu = _commands(cluster), {role: sum(one.cpu_times()[:2]) for role, one in roles.items()}
            time.sleep(seconds)
            sent.append((_commands(cluster) - before) / seconds)
            for role, one in roles.items():
                used[role].append((sum(one.cpu_times()[:2]) - cpu[role]) / seconds * 100)
        yield spread(f"commands at rest with {daemons:,} daemons, one node that leads", sent, "1/s", 4.0)
        for role, shares in used.items():
            aim = 1.0 if role == "agent" else None
            yield spread(f"the {role}'s processor time at rest with {daemons:,} daemons", shares, "%", aim)
        resident, aim = roles["agent"].memory_info().rss / 1e6, 40.0 if daemons <= 1000 else None
        yield Row(f"the agent's memory with {daemons:,} daemons (RSS)", resident, "MB", aim)


def _commands(cluster: BenchCluster) -> float:
    """Commands that are ours: scripts and the journal. What a script calls counts in the same statistics, as others."""
    stats = cluster.client.store.client.info("commandstats")
    ours = ("evalsha", "eval", "xread", "xrange", "xrevrange", "hscan", "blpop")
    return float(sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ours))


def memory() -> Iterator[Row]:
    """The memory of one more daemon."""
    with bench_cluster() as cluster:
        worker = cluster.worker("w1")
        worker.wait_ready()
        _spawn(cluster, "warm")
        (host,) = of_role(worker, "celery_daemons.host")
        before = host.memory_full_info().uss
        cluster.list(2000)
        cluster.client.rescan("rest")
        cluster.wait(lambda: cluster.count_running() == 2001)
        time.sleep(1)
        per_daemon = (host.memory_full_info().uss - before) / 2000 / 1024
        plain = bare.task_memory()
        yield Row("a bare asyncio task with an event", plain, "KiB")
        beyond, ratio = per_daemon - plain, per_daemon / plain
        yield Row("a coroutine daemon, beyond that", beyond, "KiB", 6.0, ratio=ratio, bare="that, all in all")
        cluster.client.want("alone", "alone", "[[],{}]")
        pid = cluster.client.wait_running("alone", within=30).pid
        time.sleep(0.5)
        yield Row("an isolated daemon, private", psutil.Process(pid).memory_full_info().uss / 1e6, "MB", 8.0)


def fail_over() -> Iterator[Row]:
    """Host killed, agent killed, and ``kill -9`` of one of two workers, with 300 daemons."""
    taken: dict[str, list[float]] = {"host": [], "agent": [], "worker": []}
    for _ in range(3):
        for what, seconds in _falls().items():
            taken[what].append(seconds)
    yield spread("a host killed: its half of 300 daemons runs again", taken["host"], "s", 0.5)
    yield spread("an agent killed: its half of 300 daemons runs again", taken["agent"], "s", 3.0)
    yield spread("a worker killed: its half of 300 daemons runs elsewhere", taken["worker"], "s", 0.6)


def _falls() -> dict[str, float]:
    with bench_cluster() as cluster:
        cluster.list(300)
        workers = {f"{name}@test": cluster.worker(name) for name in ("w1", "w2")}
        cluster.wait(lambda: cluster.count_running() == 300)
        leader = cluster.client.leader()
        victim = next(node for node in workers if leader is None or node != leader.node)
        names = [record.name for record in cluster.client.list(node=victim)]
        acts: dict[str, Callable[[], object]] = {
            "host": of_role(workers[victim], "celery_daemons.host")[0].kill,
            "agent": lambda: agent(workers[victim]).kill(),
            "worker": workers[victim].kill,
        }
        taken = {}
        for what, act in acts.items():
            tokens = {name: address.token for name, address in cluster.client.locate_many(names).items()}
            began = time.monotonic()
            act()
            cluster.wait(lambda tokens=tokens: _renewed(cluster, tokens))  # type: ignore[misc]
            taken[what] = time.monotonic() - began
        return taken


def _renewed(cluster: BenchCluster, tokens: dict[str, int]) -> bool:
    found = cluster.client.locate_many(tokens)
    return len(found) == len(tokens) and all(
        address.status == "running" and address.token > tokens[name] for name, address in found.items()
    )


def command_line() -> Iterator[Row]:
    """What loading the entry point adds to every ``celery`` command."""
    import subprocess
    import sys

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    # Not celery.bin.celery: that loads the entry point by itself, and its difference to itself is nothing.
    base = "import click"
    pairs = [(run(base), run(f"{base}; import celery_daemons.cli")) for _ in range(11)]
    beside = ("Click's own import", median([first for first, _ in pairs]) * 1e3)
    added = [(second - first) * 1e3 for first, second in pairs]
    yield spread("the entry point, on top of Click, which Celery imports anyway", added, "ms", 20.0, beside=beside)


def ordinary_tasks() -> Iterator[Row]:
    """The effect on the worker's own tasks: the time for a thousand of them, compared with a worker without daemons."""
    with bench_cluster() as cluster:
        plain, ours = cluster.worker("plain", concurrency=2, options=["-Q", "plain", "--no-daemons"]), None
        ours = cluster.worker("ours", concurrency=2, options=["-Q", "ours"])
        plain.wait_ready(), ours.wait_ready()
        cluster.list(200)
        cluster.client.rescan("rest")
        cluster.wait(lambda: cluster.count_running() == 200)
        ratios = [_drain_tasks(cluster, "ours") / _drain_tasks(cluster, "plain") for _ in range(7)]
        yield spread("1,000 tasks on a node with 200 daemons, as a multiple of a plain worker", ratios, "×")


def _drain_tasks(cluster: BenchCluster, queue: str) -> float:
    """Seconds for the worker to take a thousand tasks that wait when it is let go on."""
    name = f"{queue}@test"
    control = "import proj\nproj.app.control.%s_consumer(%r, destination=[%r], reply=True)"
    cluster.project.python(control % ("cancel", queue, name))
    cluster.project.python(f"import proj\nfor _ in range(1000): proj.sleep.apply_async((0,), queue={queue!r})")
    client = cluster.client.store.client
    left = client.llen(queue)
    cluster.project.python(control % ("add", queue, name))
    cluster.wait(lambda: client.llen(queue) < left, every=0.0005)
    began, left = time.perf_counter(), client.llen(queue)
    cluster.wait(lambda: client.llen(queue) == 0, every=0.0005)
    return (time.perf_counter() - began) / left


MEASURES: dict[str, Callable[[], Iterator[Row]]] = {
    "cold-start": cold_start,
    "spawn": spawn_latency,
    "look-ups": look_ups,
    "rest": at_rest,
    "memory": memory,
    "fail-over": fail_over,
    "command-line": command_line,
    "tasks": ordinary_tasks,
    "workers": failover.workers,
    "machines": failover.machines,
    "redis": failover.redis_loss,
    "resignation": failover.resignation,
    "drain": balance.drain,
    "rolling": balance.rolling,
    "failing": balance.failing,
    "planner": pure.planner,
    "scale": scale.cold_start,
    "scale-fail-over": scale.fail_over,
    "journal": scale.journal,
    "simulated": simulated.measure,
    "stalls": stalls.measure,
}
