"""Each measure: what people wait for or pay for, as rows of name, value, unit, and what we aim at."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import psutil

from tests.benchmarks import failover
from tests.benchmarks.rows import Row
from tests.benchmarks.stage import Stage, median, quantile, stage, times
from tests.support.workers import Worker


def _of_role(worker: Worker, role: str) -> list[psutil.Process]:
    return [one for one in worker.tree() if any(role in part for part in one.cmdline())]


def _agent(worker: Worker) -> psutil.Process:
    return next(one for one in worker.tree() if one.cmdline()[1:3] == ["-m", "celery_daemons.node"])


def cold_start() -> Iterator[Row]:
    """Three workers, and 60 daemons from a scanner, from nothing."""
    with stage() as scene:
        scene.list(60)
        workers = [scene.worker(f"w{number}") for number in (1, 2, 3)]
        for worker in workers:
            worker.wait_ready()
        ready = time.monotonic()
        scene.wait(lambda: scene.count_running() == 60)
        yield Row("60 daemons on 3 workers, after the last is ready", time.monotonic() - ready, "s", 5.0)


def spawn_latency() -> Iterator[Row]:
    """From the call to ``running`` in the book."""
    with stage() as scene:
        worker = scene.worker("w1", concurrency=2)
        worker.wait_ready()
        scene.wait(scene.cluster.leader)
        _spawn(scene, "warm")
        taken = [_spawn(scene, f"free.{number}") for number in range(100)]
        yield Row("spawn to running, median", median(taken) * 1e3, "ms", 20.0)
        yield Row("spawn to running, p99", quantile(taken, 0.99) * 1e3, "ms")
        _occupy(scene, 22, 3.0)
        time.sleep(0.5)
        busy = [_spawn(scene, f"busy.{number}") for number in range(30)]
        yield Row("the same with a full pool and 20 tasks waiting, median", median(busy) * 1e3, "ms", 100.0)
    with stage() as scene:
        scene.worker("w1", pool="solo").wait_ready()
        scene.wait(scene.cluster.leader)
        _spawn(scene, "warm")
        _occupy(scene, 4, 2.0)
        time.sleep(0.5)
        busy = [_spawn(scene, f"busy.{number}") for number in range(4)]
        yield Row("the same with the solo pool, whose parent is busy, median", median(busy) * 1e3, "ms", 1100.0)


def _spawn(scene: Stage, name: str) -> float:
    began = time.perf_counter()
    scene.cluster.want(name, "rest", "[[],{}]")
    scene.cluster.wait_running(name, within=30)
    return time.perf_counter() - began


def _occupy(scene: Stage, tasks: int, seconds: float) -> None:
    scene.project.python(f"import proj\nfor _ in range({tasks}): proj.sleep.delay({seconds})")


def look_ups() -> Iterator[Row]:
    """``locate`` beside a bare HGET of the same client, and the replica."""
    with stage() as scene:
        scene.worker("w1").wait_ready()
        _spawn(scene, "one")
        keys, client = scene.cluster.store.keys, scene.cluster.store.client
        bare, ours = partial(client.hget, keys.book, "one"), partial(scene.cluster.locate, "one")
        times(bare, 2000), times(ours, 2000)
        ratios, bares = [], []
        for _ in range(20):
            hget, locate = median(times(bare, 500)), median(times(ours, 500))
            ratios.append(locate / hget)
            bares.append(hget)
        yield Row("a bare HGET, median", median(bares) * 1e6, "µs")
        yield Row("locate, as a multiple of it, median", median(ratios), "×", 1.3)
        from celery_daemons import AddressBook

        with AddressBook.connect(scene.server.url, scene.project.namespace) as book:
            locate = book.locate
            began = time.perf_counter()
            for _ in range(200_000):
                locate("one")
            yield Row("locate in the replica, mean", (time.perf_counter() - began) / 200_000 * 1e6, "µs", 1.0)


def at_rest() -> Iterator[Row]:
    """Commands that our clients send while nothing happens."""
    for daemons in (0, 1000):
        with stage() as scene:
            scene.list(daemons)
            worker = scene.worker("w1")
            worker.wait_ready()
            scene.wait(lambda scene=scene, daemons=daemons: scene.count_running() == daemons)  # type: ignore[misc]
            scene.wait(scene.cluster.leader)
            time.sleep(3)
            agent, seconds = _agent(worker), 10.0
            before, cpu = _commands(scene), sum(agent.cpu_times()[:2])
            time.sleep(seconds)
            sent = _commands(scene) - before
            used = sum(agent.cpu_times()[:2]) - cpu
            yield Row(f"commands at rest with {daemons} daemons, one node that leads", sent / seconds, "1/s", 4.0)
            yield Row(f"agent's processor time with {daemons} daemons", used / seconds * 100, "%")
            yield Row(f"agent's memory with {daemons} daemons (RSS)", agent.memory_info().rss / 1e6, "MB", 40.0)


def _commands(scene: Stage) -> float:
    """Commands that are ours: scripts and the journal. What a script calls counts in the same statistics, as others."""
    stats = scene.cluster.store.client.info("commandstats")
    ours = ("evalsha", "eval", "xread", "xrange", "xrevrange", "hscan")
    return float(sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ours))


def memory() -> Iterator[Row]:
    """What one more daemon costs."""
    with stage() as scene:
        worker = scene.worker("w1")
        worker.wait_ready()
        _spawn(scene, "warm")
        (host,) = _of_role(worker, "celery_daemons.host")
        before = host.memory_full_info().uss
        scene.list(2000)
        scene.cluster.rescan("rest")
        scene.wait(lambda: scene.count_running() == 2001)
        time.sleep(1)
        per_daemon = (host.memory_full_info().uss - before) / 2000 / 1024
        bare = _bare_task_kib()
        yield Row("a bare asyncio task with an event", bare, "KiB")
        yield Row("a coroutine daemon, beyond that", per_daemon - bare, "KiB", 6.0)
        scene.cluster.want("alone", "alone", "[[],{}]")
        pid = scene.cluster.wait_running("alone", within=30).pid
        time.sleep(0.5)
        yield Row("an isolated daemon, private", psutil.Process(pid).memory_full_info().uss / 1e6, "MB", 8.0)


def _bare_task_kib() -> float:
    async def rest(event: asyncio.Event) -> None:
        await event.wait()

    async def measure() -> float:
        process = psutil.Process()
        before = process.memory_full_info().uss
        tasks = [asyncio.create_task(rest(asyncio.Event())) for _ in range(10_000)]
        await asyncio.sleep(0.1)
        used = process.memory_full_info().uss - before
        for task in tasks:
            task.cancel()
        return used / 10_000 / 1024

    return asyncio.run(measure())


def fail_over() -> Iterator[Row]:
    """``kill -9`` of one of two workers, host killed, agent killed, with 300 daemons."""
    with stage() as scene:
        scene.list(300)
        workers = {f"{name}@test": scene.worker(name) for name in ("w1", "w2")}
        scene.wait(lambda: scene.count_running() == 300)
        leader = scene.cluster.leader()
        victim = next(node for node in workers if leader is None or node != leader.node)
        names = [record.name for record in scene.cluster.list(node=victim)]
        tokens = {name: address.token for name, address in scene.cluster.locate_many(names).items()}
        host = _of_role(workers[victim], "celery_daemons.host")[0]
        began = time.monotonic()
        host.kill()
        scene.wait(lambda: _renewed(scene, tokens))
        yield Row(f"a host killed: {len(names)} daemons run again", time.monotonic() - began, "s", 0.5)
        tokens = {name: address.token for name, address in scene.cluster.locate_many(names).items()}
        began = time.monotonic()
        _agent(workers[victim]).kill()
        scene.wait(lambda: _renewed(scene, tokens))
        yield Row(f"an agent killed: {len(names)} daemons run again", time.monotonic() - began, "s", 3.0)
        tokens = {name: address.token for name, address in scene.cluster.locate_many(names).items()}
        began = time.monotonic()
        workers[victim].kill()
        scene.wait(lambda: _renewed(scene, tokens))
        yield Row(f"a worker killed: {len(names)} daemons run elsewhere", time.monotonic() - began, "s", 0.6)


def _renewed(scene: Stage, tokens: dict[str, int]) -> bool:
    found = scene.cluster.locate_many(tokens)
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

    base = "import celery.bin.celery"
    pairs = [(run(base), run(f"{base}; import celery_daemons.cli")) for _ in range(11)]
    yield Row("the entry point, on top of celery's own imports", median([b - a for a, b in pairs]) * 1e3, "ms", 20.0)


def ordinary_tasks() -> Iterator[Row]:
    """What the worker's own tasks notice: the time for a thousand of them, beside a worker without daemons."""
    with stage() as scene:
        plain, ours = scene.worker("plain", concurrency=2, options=["-Q", "plain", "--no-daemons"]), None
        ours = scene.worker("ours", concurrency=2, options=["-Q", "ours"])
        plain.wait_ready(), ours.wait_ready()
        scene.list(200)
        scene.cluster.rescan("rest")
        scene.wait(lambda: scene.count_running() == 200)
        ratios = [_drain_tasks(scene, "ours") / _drain_tasks(scene, "plain") for _ in range(7)]
        yield Row("1,000 tasks on a node with 200 daemons, as a multiple of a plain worker", median(ratios), "×")


def _drain_tasks(scene: Stage, queue: str) -> float:
    """Seconds for the worker to take a thousand tasks that wait when it is let go on."""
    name = f"{queue}@test"
    control = "import proj\nproj.app.control.%s_consumer(%r, destination=[%r], reply=True)"
    scene.project.python(control % ("cancel", queue, name))
    scene.project.python(f"import proj\nfor _ in range(1000): proj.sleep.apply_async((0,), queue={queue!r})")
    client = scene.cluster.store.client
    left = client.llen(queue)
    scene.project.python(control % ("add", queue, name))
    scene.wait(lambda: client.llen(queue) < left, every=0.0005)
    began, left = time.perf_counter(), client.llen(queue)
    scene.wait(lambda: client.llen(queue) == 0, every=0.0005)
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
}
