"""The cluster of the benchmarks: a separate Valkey, a project, workers and a client."""

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from celery_daemons.store.keys import LAYOUT
from tests.support.clients import TestClient
from tests.support.projects import PRELUDE, Project
from tests.support.servers import Server
from tests.support.workers import Worker

T = TypeVar("T")

SOURCE = (
    PRELUDE
    + """
import resource
from celery_daemons import Launcher

@daemons.launcher("rest")
async def rest(ctx, number=0):
    await ctx.stopping.wait()

@daemons.launcher("alone")
def alone(ctx):
    ctx.stopping.wait()

def note(ctx, word):
    with open(FOLDER + "/lives", "a") as lives:
        lives.write(f"{word} {ctx.name} {time.monotonic():.6f}\\n")

@daemons.launcher("timed")
async def timed(ctx):
    note(ctx, "begins")
    try:
        await ctx.stopping.wait()
    finally:
        note(ctx, "ends")

@daemons.launcher("crashing")
async def crashing(ctx):
    note(ctx, "begins")
    raise RuntimeError("as always")

def hang_once(ctx):
    note(ctx, "begins")
    flag = Path(FOLDER, ctx.name)
    return not flag.exists() and not flag.touch()

@daemons.launcher("hung-coroutine", progress_deadline=1.0)
async def hung_coroutine(ctx):
    if hang_once(ctx):
        await asyncio.sleep(1000)
    while True:
        ctx.beat()
        await asyncio.sleep(0.1)

@daemons.launcher("hung-loop", progress_deadline=1.0)
async def hung_loop(ctx):
    if hang_once(ctx):
        time.sleep(1000)
    while True:
        ctx.beat()
        await asyncio.sleep(0.1)

def hang(ctx):
    if hang_once(ctx):
        time.sleep(1000)
    while not ctx.stopping.is_set():
        ctx.beat()
        ctx.sleep(0.1)

daemons.register_launcher("hung-process", Launcher(hang, progress_deadline=1.0))
daemons.register_launcher("hung-thread", Launcher(hang, progress_deadline=1.0, isolation="thread"))

@app.task
def sleep(seconds):
    time.sleep(seconds)

@rest.recovery_scanner
def listed():
    text = (Path(FOLDER) / "count").read_text()
    for number in range(int(text)):
        yield rest.spec(f"rest.{number}", number=number)
"""
)


class BenchCluster:
    """One project on one server."""

    def __init__(self, server: Server, folder: Path, stack: ExitStack, settings: dict[str, Any]) -> None:
        self.server = server
        self._stack = stack
        broker = settings.pop("broker", server.url)
        settings = {"redis_url": server.url, **settings}
        namespace = f"bench-{uuid.uuid4().hex[:6]}"
        self.project = Project(folder, SOURCE, broker_url=broker, namespace=namespace, settings=settings)
        self.list(0)
        self.client = TestClient.connect(server.url, self.project.namespace, vnodes=40)
        stack.callback(self.client.close)

    def settle(self) -> None:
        """Make the cluster look old: in a new cluster, the monitor waits for one lease before it acts."""
        store = self.client.store
        store.client.hset(store.keys.cluster, mapping={"layout": LAYOUT, "created_ms": "1"})

    def list(self, count: int) -> None:
        """Let the recovery scanner list ``count`` daemons."""
        (self.project.folder / "count").write_text(str(count))

    def worker(self, name: str, **options: Any) -> Worker:
        """Start a worker and return before it is ready."""
        options.setdefault("concurrency", 1)
        return self._stack.enter_context(Worker(self.project, name, **options))

    def count_running(self) -> int:
        """Return the number of running daemons according to the address book."""
        return self.client.status().daemons["running"]

    def wait(self, condition: Callable[[], T], within: float = 60.0, every: float = 0.01) -> T:
        """Wait for a condition; the measurement has failed if it does not come true."""
        deadline = time.monotonic() + within
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError("the measurement did not come to its end")
            time.sleep(every)
        return value


@contextmanager
def bench_cluster(**settings: Any) -> Iterator[BenchCluster]:
    """Start a server and make a project on it; remove both at the end."""
    folder = Path(tempfile.mkdtemp(prefix="daemons-bench-"))
    try:
        with ExitStack() as stack:
            yield BenchCluster(stack.enter_context(Server("valkey")), folder, stack, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_role(worker: Worker, role: str) -> list[psutil.Process]:
    """Return the processes of a worker whose title names a role."""
    return [one for one in worker.tree() if any(role in part for part in one.cmdline())]


def agent(worker: Worker) -> psutil.Process:
    """Return the agent of a worker."""
    return next(one for one in worker.tree() if one.cmdline()[1:3] == ["-m", "celery_daemons.node"])


def monitor(workers: Iterable[Worker]) -> psutil.Process:
    """Return the monitor process of the worker that leads."""
    return next(one for worker in workers for one in of_role(worker, "celery_daemons.monitor"))


def peak_mb(process: psutil.Process) -> float:
    """Return the peak resident memory of a process, in MiB (VmHWM)."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("the kernel reports no VmHWM")


class Meter:
    """Processor time of the processes of a cluster, by role, since it was made."""

    def __init__(self, cluster: BenchCluster, workers: Iterable[Worker]) -> None:
        running = list(workers)
        self._roles = {
            "Redis": [psutil.Process(cluster.server.pid)],
            "the monitor": [one for worker in running for one in of_role(worker, "celery_daemons.monitor")],
            "agents": [agent(worker) for worker in running],
            "hosts": [one for worker in running for one in of_role(worker, "celery_daemons.host")],
            "workers": [psutil.Process(worker.pid) for worker in running],
        }
        self._before = {role: self._used(role) for role in self._roles}

    def seconds(self) -> dict[str, float]:
        """Seconds used by each role."""
        return {role: self._used(role) - before for role, before in self._before.items()}

    def _used(self, role: str) -> float:
        total = 0.0
        for process in self._roles[role]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
        return total
